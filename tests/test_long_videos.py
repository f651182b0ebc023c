"""Clips of any length: every frame is in a chunk, costs are averaged as stated, planted motion is read to the token."""
from pathlib import Path

import numpy as np
import pytest
import torch
from seam import tiny
from torch.nn.functional import one_hot

import vidlens
from vidlens import world
from vidlens.points.tapvid import PointClip, evaluate_tapvid
from vidlens.core.grid import Grid
from vidlens.seam.capturing import capture
from vidlens.points.matching import Matching, match
from vidlens.seam.run import renoise
from vidlens.points.long_videos import Chunk, Chunks, _from_anchor, plan_chunks, track_long, tracker

GOLDEN = Path(__file__).parent / 'golden'
UNCHECKED = Matching(cycle=None)     # all points are visible


@pytest.fixture(scope='module')
def pipe():
    return vidlens.load()


@pytest.fixture(scope='module')
def clip():
    return world.clip('a red circle moves right', seed=5, frames=26, points=4, background=4)


PLANS = [(n, a, length, r, order, overlap) for n in (1, 2, 5, 13, 26, 57) for a in {0, n // 2, n - 1}
         for length in (2, 5, 13) for r, order in ((1, 'interleaved'), (1, 'consecutive'), (4, 'consecutive'))
         for overlap in (0, 2) if overlap < length - 1]


@pytest.mark.parametrize('n, anchor, length, r, order, overlap', PLANS)
def test_every_frame_is_shown_and_every_chunk_is_full(n, anchor, length, r, order, overlap):
    plan = plan_chunks(n, anchor, length, r, order, overlap)
    assert {anchor} | {f for c in plan for f in c.frames} == set(range(n))
    assert all(c.frames[0] == anchor and len(c.frames) == 1 + (length - 1) * r for c in plan)
    assert all(len(c.times) == length - 1 and c.times[0] is not None and anchor not in c.times for c in plan)
    times = {t for c in plan for t in c.times if t is not None}
    assert (times == set(range(n)) - {anchor}) if r == 1 else {0, n - 1} <= times | {anchor}
    for c in plan:      # a token frame sits at the last RGB frame that it covers
        ends = [c.frames[r * (i + 1)] for i in range(length - 1)]
        assert all(t in (None, e) for t, e in zip(c.times, ends))


def test_published_chunks_span_the_clip():
    plan = plan_chunks(49, 0, 13)
    assert [c.frames for c in plan] == [(0, *range(a, 49, 4)) for a in (1, 2, 3, 4)]


def test_overlap_is_at_least_what_was_asked():
    plan = plan_chunks(30, 0, 9, order='consecutive', overlap=3)
    assert all(len(set(a.times) & set(b.times)) >= 3 for a, b in zip(plan, plan[1:]))


@pytest.mark.parametrize('bad', [dict(anchor=9), dict(length=1), dict(overlap=4), dict(order='random'),
                                 dict(temporal=4, order='interleaved'), dict(anchor=-1)])
def test_what_cannot_be_planned(bad):
    with pytest.raises(ValueError, match='use|must'):
        plan_chunks(**dict(frames=9, anchor=0, length=5) | bad)


def shifting(grid, step, frames):
    "Queries and keys in which the token at (row, col) of the anchor is found `step` columns a frame further."
    place = torch.arange(grid.rows * grid.cols).view(grid.rows, grid.cols)
    codes = [one_hot(place.roll(step * f, 1).flatten(), grid.per_frame).float() for f in frames]
    return torch.cat(codes)[None], 40 * torch.cat(codes)[None]


@pytest.mark.parametrize('order, overlap', [('interleaved', 0), ('consecutive', 0), ('consecutive', 2)])
@pytest.mark.parametrize('symmetric', [False, True])
def test_planted_translation_is_read_to_the_token(order, overlap, symmetric):
    grid, n, anchor = Grid(5, 4, 9, 8, 1, False), 12, 7
    plan = plan_chunks(n, anchor, 5, 1, order, overlap)
    xy = torch.tensor([[4., 4.], [37.5, 12.25], [71., 31.]])
    found = _from_anchor(lambda c: iter([[shifting(grid, 1, [f - anchor for f in c.frames])]]), plan, grid, anchor, xy,
                         Matching(symmetric=symmetric), None, lambda: None)
    wanted = (xy[:, None, 0] + 8 * (torch.arange(n) - anchor)) % 72
    assert torch.allclose(found.xy[..., 0], wanted) and torch.allclose(found.xy[..., 1], xy[:, None, 1].expand(-1, n))
    assert found.times.tolist() == list(range(n)) and found.error.max() < 1e-4


def test_frames_in_two_chunks_have_their_costs_averaged():
    "A chunk that is sure outvotes one that is not; a frame that fills up has no vote."
    grid = Grid(3, 1, 4, 8, 1, False)
    def passes(chunk):
        sure = chunk.frames[2] == 2
        q, k = torch.eye(4).repeat(3, 1)[None], torch.eye(4).repeat(3, 1)[None] * (60 if sure else 1.)
        k[:, 4:8] = k[:, 4:8].roll(2 if sure else 1, 1)
        return iter([[(q, k)]])
    plan, xy = [Chunk((0, 1, 2), (1, 2)), Chunk((0, 1, 3), (1, 3))], torch.tensor([[20., 4.]])
    found = _from_anchor(passes, plan, grid, 0, xy, UNCHECKED, None, lambda: None)
    assert found.xy[0, 1].tolist() == [4., 4.] and found.times.tolist() == [0, 1, 2, 3]
    only = _from_anchor(passes, [Chunk((0, 1, 2), (None, 2)), plan[1]], grid, 0, xy, UNCHECKED, None, lambda: None)
    assert only.xy[0, 1].tolist() == [28., 4.]


@pytest.mark.parametrize('name', ['interval_avg', 'stride_avg', 'stride_first'])
@pytest.mark.parametrize('suffix', ['ref', 'fixed'])
def test_the_official_loop(name, suffix):
    "Published scale (D4) and drifting lookup (D2), overlaps averaged or first come."
    with np.load(GOLDEN / f'06_chunked_tracking__{name}.npz') as z:
        z = {k: z[k] for k in z.files}
    grid = Grid(int(z['p_chunk_len']), int(z['p_h']), int(z['p_w']), int(z['p_stride']), 1, False)
    plan, qk, seen = [], {}, set()
    for i in range(int(z['p_n_chunks'])):
        frames = tuple(int(f) for f in z[f'in_chunk{i}_frames'])
        times = tuple(f if bool(z['p_average_overlapped_corr']) or f not in seen else None for f in frames)
        chunk = Chunk((0, *frames), tuple(None if f in frames[:j] else t for j, (f, t) in enumerate(zip(frames, times))))
        seen |= set(frames)
        plan.append(chunk)
        qk[i] = tuple(torch.as_tensor(z[f'in_chunk{i}_{x}']).float().flatten(1, 2) for x in ('query', 'key'))
    order = iter(range(len(plan)))
    t, *xy = torch.as_tensor(z['in_query_points_txy'][0]).float().unbind(-1)
    how = Matching(symmetric=True, lookup='published', scale=1 / float(z[f'p_softmax_scale_{suffix}']), cycle=None)
    found = _from_anchor(lambda c: iter([[qk[next(order)]]]), plan, grid, 0, torch.stack(xy, -1), how, None, lambda: None)
    wanted = torch.as_tensor(z[f'out_trajectory_px_{suffix}'][0]).transpose(0, 1)
    assert (t == 0).all() and found.xy.shape == wanted.shape
    torch.testing.assert_close(found.xy, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('encoding', ['frames', 'causal'])
def test_one_chunk_is_a_plain_match(pipe, clip, encoding):
    n = 5 if encoding == 'frames' else 17
    video, ask = clip.video[:n], torch.cat([torch.zeros(len(clip.queries), 1), clip.queries[:, 1:]], 1)
    found = track_long(pipe, video, ask, 4, chunks=Chunks(encoding))
    with capture(pipe, 'q k', layers=4) as tape:
        renoise(pipe, video, step=-2, num_inference_steps=30, encoding=encoding)    # the default of track_long
    grid = Grid(5, 8, 8, 8, 1 if encoding == 'frames' else 4, encoding == 'causal')
    plain = match(tape.get('q', 4)[0], tape.get('k', 4)[0], grid, ask, matching=Matching()).at_frames(n)
    assert torch.allclose(found.xy, plain.xy, atol=1e-4) and torch.allclose(found.score, plain.score, atol=1e-5)
    assert torch.equal(found.visible, plain.visible) and torch.allclose(found.error, plain.error, atol=1e-4)


def test_any_frame_any_size(pipe, clip):
    "Queries in several frames, a clip that is not of the model's size, several layers and steps."
    video = torch.nn.functional.interpolate(clip.video.movedim(-1, 1), scale_factor=(1.5, 2.)).movedim(1, -1)
    ask, told = torch.tensor([[0, 20., 20.], [9, 64., 48.], [25, 127., 95.]]), []
    found = track_long(pipe, video, ask, [3, 4], [-12, -6], on_pass=lambda i, n: told.append((i, n)))
    assert found.xy.shape == (3, 26, 2) and found.xy.isfinite().all() and found.visible.shape == (3, 26)
    for i, (t, *xy) in enumerate(ask.tolist()):
        assert torch.allclose(found.xy[i, int(t)], torch.tensor(xy), atol=1e-4) and found.visible[i, int(t)]
    assert told == [(i + 1, 42) for i in range(42)]    # 3 anchors, 7 chunks each, 2 steps


def test_averaging_a_layer_with_itself_changes_nothing(pipe, clip):
    a, b = (track_long(pipe, clip.video, clip.queries[:3], layers, steps) for layers, steps in ((4, -9), ([4, 4], [-9, -9])))
    assert torch.allclose(a.xy, b.xy, atol=1e-4) and torch.allclose(a.score, b.score, atol=1e-5)


@pytest.mark.parametrize('encoding', ['frames', 'causal'])
def test_short_clips_are_filled_up(pipe, clip, encoding):
    found = track_long(pipe, clip.video[:3], [[1, 20., 20.]], 4, chunks=Chunks(encoding))
    assert found.xy.shape == (1, 3, 2) and found.xy[0, 1].tolist() == [20., 20.]
    alone = track_long(pipe, clip.video[:1], [[0, 20., 20.]], 4, chunks=Chunks(encoding))
    assert alone.xy.tolist() == [[[20., 20.]]]


def test_as_a_tracker_for_an_evaluation(pipe, clip):
    point = PointClip('one', clip.tracks, clip.visible, clip.video)
    first = evaluate_tapvid([point], tracker(pipe, 4, chunks=Chunks('causal')), size=64)
    assert 0 <= float(first['d_avg'][0]) <= 1 and first.queries == [len(clip.tracks)]


@pytest.mark.parametrize('family', ['cogvideox', 'wan', 'hunyuanvideo'])
def test_other_families(family):
    found = track_long(tiny(family), torch.rand(11, 40, 40, 3), [[0, 8., 8.], [4, 30., 20.]], 0, -1, num_inference_steps=4,
                       chunks=Chunks(length=3, size=(32, 32)))
    assert found.xy.shape == (2, 11, 2) and found.xy.isfinite().all()


def test_layers_of_a_unet_have_grids_of_their_own():
    pipe, video, ask = tiny('animatediff'), torch.rand(16, 32, 32, 3), [[0, 8., 8.], [4, 30., 20.]]
    found = track_long(pipe, video, ask, [4, 34], num_inference_steps=4, chunks=Chunks(length=16))
    with capture(pipe, 'q k', layers=[4, 34]) as tape:
        renoise(pipe, video, step=-2, num_inference_steps=4, encoding='frames')
    q, k = ([tape.get(kind, n)[0] for n in (4, 34)] for kind in 'qk')
    want = match(q, k, tape.grid_of(4), ask[:1])
    assert (tape.grid_of(4).rows, tape.grid.rows) == (4, 8) and torch.allclose(found.xy[:1], want.xy, atol=1e-4)
    assert track_long(pipe, video.repeat(3, 1, 1, 1)[:40], ask, 4, num_inference_steps=4).xy.shape == (2, 40, 2)
    with pytest.raises(ValueError, match='layer 0 has 8x8 tokens in a frame and layer 4 4x4.*one by one, layers=4'):
        track_long(pipe, video, ask, [0, 4], num_inference_steps=4)


@pytest.mark.parametrize('bad, says', [
    (lambda: dict(chunks=Chunks('both')), "'frames' or 'causal'"), (lambda: dict(chunks=Chunks(length=40)), '26'),
    (lambda: dict(chunks=Chunks(length=1)), 'at least 2'), (lambda: dict(points=[[40, 1., 1.]]), 'query 0'),
    (lambda: dict(points=[[0, float('nan'), 1.]]), 'query 0'), (lambda: dict(layers=9), '6 layers'), (lambda: dict(steps=99), '30'),
    (lambda: dict(chunks=Chunks(overlap=9)), 'overlap'), (lambda: dict(matching=Matching(lookup='near')), 'lookup'),
    (lambda: dict(matching=Matching(readout='mean')), 'readout'), (lambda: dict(layers=[]), 'layers'),
    (lambda: dict(steps=[]), 'steps')])
def test_what_does_not_fit_is_said(pipe, clip, bad, says):
    with pytest.raises(ValueError, match=says):
        track_long(pipe, clip.video, **dict(points=[[0, 9., 9.]], layers=4) | bad())
