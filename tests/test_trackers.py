"""Rivals: exact where the answer is known, above chance on the world, honest about what they lost."""
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from vidlens import world
from vidlens.points.tapvid import PointClip, compare, evaluate_tapvid
from vidlens.core.grid import Grid
from vidlens.points.matching import Matching, Tracks, points_on_grid
from vidlens.points.trackers import (by_features, cotracker, lucas_kanade, nearest_latent, nearest_rgb, pseudo_truth,
                                     stand_still)
from vidlens.core.video import read_video

REAL = Path(__file__).resolve().parents[2] / 'shared/data/bmx-trees.mp4'


def texture(height, width, seed=0, cell=4):
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(1, 3, height // cell + 1, width // cell + 1, generator=g)
    return F.interpolate(x, (height, width), mode='bicubic')[0].movedim(0, -1).clamp(0, 1)


def panning(dx, dy, frames=6, height=48, width=64):
    "A window that slides over a texture by whole pixels: content moves by (-dx, -dy) a frame."
    big = texture(height + frames * abs(dy), width + frames * abs(dx))
    return torch.stack([big[f * dy:f * dy + height, f * dx:f * dx + width] for f in range(frames)])


def patches(frames):
    "Colours of each 8x8 patch."
    return frames.unflatten(1, (-1, 8)).unflatten(3, (-1, 8)).transpose(2, 3).flatten(3)


def pooled(frames):
    return F.avg_pool2d(frames.movedim(-1, 1), 4).movedim(1, -1)


def causal(video):
    z = pooled(video)
    return torch.cat([z[:1], z[1:].unflatten(0, (-1, 4)).mean(1)])


EVERY = {'still': stand_still, 'rgb': nearest_rgb, 'flow': lucas_kanade, 'features': by_features(patches, 8),
         'cotracker': cotracker(lambda video, queries: (queries[:, None, :, 1:].expand(1, video.shape[1], -1, -1),
                                                        torch.ones(1, video.shape[1], queries.shape[1]).bool()))}
LATE = torch.tensor([[0, 20.3, 13.1], [2, 30., 24.], [5, 41.7, 30.2]])


@pytest.mark.parametrize('name', EVERY)
def test_a_static_clip_stands_still(name):
    "Every tracker answers at all frames, for queries of any frame, exactly in the query's own."
    still = texture(48, 64).expand(6, -1, -1, -1)
    found = EVERY[name](still, LATE)
    assert found.xy.shape == (3, 6, 2) and found.visible.shape == (3, 6) and found.visible.all()
    assert (found.xy - LATE[:, None, 1:]).abs().max() < (.01 if name == 'flow' else 1e-4)
    assert found.times.tolist() == [0, 1, 2, 3, 4, 5] and found.score.shape == (3, 6)


def test_latents_of_a_static_clip():
    still = texture(48, 64).expand(9, -1, -1, -1)
    grid = Grid.of(9, 48, 64, stride=8, temporal=4)
    q = torch.tensor([[0, 20.3, 13.1], [5, 41.7, 30.2], [8, 60., 4.]])
    for latents in (causal, causal(still)):
        found = nearest_latent(latents, grid)(still, q)
        assert found.xy.shape == (3, 9, 2) and (found.xy - q[:, None, 1:]).abs().max() < 1e-4
    larger = nearest_latent(causal(still), grid)(F.interpolate(still.movedim(-1, 1), (96, 128)).movedim(1, -1),
                                                 q * torch.tensor([1., 2, 2]))
    assert (larger.xy - 2 * q[:, None, 1:]).abs().max() < 1e-4, 'places are in pixels of the video that is given'
    with pytest.raises(ValueError, match='7 frames.*first 9|the grid of the latents 9'):
        nearest_latent(causal, grid)(still[:7], q[:1])


@pytest.mark.parametrize('name', ['rgb', 'features'])
def test_patches_follow_whole_patches_exactly(name):
    video = panning(8, 8, frames=4, height=48, width=96)
    q = torch.tensor([[0, 70.2, 41.], [3, 9.5, 12.9], [1, 45., 33.]])
    found = EVERY[name](video, q)
    f = torch.arange(4.)
    true = q[:, None, 1:] - 8 * (f - q[:, :1])[..., None]
    inside = ((true >= 0) & (true <= torch.tensor([96, 48]))).all(-1)
    assert inside.sum() >= 9 and (found.xy - true)[inside].abs().max() < 1e-4 and found.visible[inside].all()


def test_frames_that_do_not_divide():
    "A frame of 50x70 is matched at 48x72 and answered in its own pixels."
    still = texture(50, 70).expand(3, -1, -1, -1)
    q = torch.tensor([[0, 66.2, 47.], [2, 3., 3.]])
    for tracker in (nearest_rgb, by_features(patches, 8), by_features(patches, 8, size=(100, 140))):
        assert (tracker(still, q).xy - q[:, None, 1:]).abs().max() < 1e-4


def test_lucas_kanade_is_exact_below_a_pixel_both_ways():
    "Content moves by 1.5 px to the left a frame: 3 px at double size, halved."
    big = panning(3, 0, frames=6, height=96, width=128)
    video = F.interpolate(big.movedim(-1, 1), (48, 64), mode='bilinear', antialias=True).movedim(1, -1)
    found = lucas_kanade(video, LATE, window=11)
    true = LATE[:, None, 1:] - torch.stack([1.5 * (torch.arange(6.) - LATE[:, :1]), torch.zeros(3, 6)], -1)
    assert (found.xy - true).abs().max() < .1 and found.visible.all() and found.error.max() < .1


def test_lucas_kanade_knows_where_pixel_centres_are():
    "A zoom and its mirror image: with centres at whole numbers their tracks would differ by 0.2 px."
    def picture(zoom):
        y, x = ((torch.arange(n) + .5 - 32) / zoom for n in (64, 64))
        x, y = x[None], y[:, None]
        return (torch.sin(.5 * x + .2 * y) + torch.sin(.3 * x - .6 * y) + torch.sin(.4 * y + .1 * x + 1)) / 6 + .5
    video = torch.stack([picture(1.2 ** (f / 4)) for f in range(5)])[..., None].expand(-1, -1, -1, 3)
    q = points_on_grid(6, 64, 64, margin=16)
    one, other = (lucas_kanade(v, q, window=11, levels=0).xy for v in (video, video.flip(1, 2)))
    other = (64 - other).flip(0)   # the grid's points in the opposite order
    assert (one - other).norm(dim=-1).max() < .03


def test_points_that_leave_are_hidden():
    video = panning(6, 0, frames=8)
    found = lucas_kanade(video, [[0, 20.5, 24.5], [0, 58.5, 24.5]])
    assert not found.visible[0, 4:].any() and found.visible[0, :2].all() and found.visible[1, :7].all()
    assert found.xy.isfinite().all() and found.error.isfinite().all() and found.score.isfinite().all()
    out = lucas_kanade(panning(1, 0, frames=4), [[0, 2.4, 24.5]], window=15, levels=0)
    assert out.xy[0, 3, 0] < 0 and out.error[0, 3] < 1 and out.visible[0].tolist() == [True, True, True, False]


@pytest.mark.parametrize('flat, seen', [([0, 1, 2], []), ([0], []), ([1], []), ([2], [1])])
def test_what_has_no_texture_is_lost(flat, seen):
    "A step out of a grey frame finds nothing, on the way there or back: the error is the frame's diagonal."
    video = texture(48, 64).expand(3, -1, -1, -1).clone()
    video[flat] = .5
    found = lucas_kanade(video, [[0, 30., 24.]])
    assert found.visible[0].nonzero()[:, 0].tolist() == [0, *seen]
    assert found.error[0, 2] == 80 and found.score[0, 0] == 1


def covered_clip(frames=10):
    "A textured square slides over a textured ground; point 0 is covered in frames 5 to 7, point 1 never."
    ground, cover, video = texture(64, 64, 1), texture(64, 64, 2), []
    for f in range(frames):
        x, frame = 6 * f - 10, ground.clone()
        a, b = max(0, x), max(0, x + 20)
        frame[20:44, a:b] = cover[20:44, a - x:b - x]
        video.append(frame)
    hidden = torch.tensor([6 * f - 10 <= 36 < 6 * f + 10 for f in range(frames)])
    return torch.stack(video), torch.tensor([[0, 36., 32.], [0, 40., 8.]]), hidden


@pytest.mark.parametrize('horizon', [None, 2, 4])
def test_the_way_back_flags_what_is_covered(horizon):
    video, q, hidden = covered_clip()
    found = lucas_kanade(video, q, horizon=horizon)
    assert hidden.sum() == 3 and not found.visible[0][hidden].any(), 'hidden where it is covered'
    assert found.visible[0, :4].all() and found.visible[1].all(), 'and only there, or after'
    assert not found.visible[0, 5:].any(), 'it does not come back, although the window follows the square well'
    assert (found.error[0][hidden] > 2).all() and found.error[1].max() < 2
    careless = lucas_kanade(video, q, horizon=horizon, cycle=1e9)
    assert torch.equal(careless.xy, found.xy) and careless.visible.all()


def test_the_way_back_goes_through_time_both_ways():
    "The same clip reversed, asked in its last frame, gives the same tracks reversed."
    video, q, _ = covered_clip()
    there, back = lucas_kanade(video, q), lucas_kanade(video.flip(0), q + torch.tensor([9., 0, 0]))
    assert torch.equal(there.xy, back.xy.flip(1)) and torch.equal(there.visible, back.visible.flip(1))


def world_set():
    clips = []
    for kind in ('single', 'two', 'pan', 'mixed'):
        scenes = world.sample(4, 5, world.Mixture(kind=kind))
        for i in range(4):
            d = scenes.clip(i, frames=9, points=8, background=8)
            clips.append(PointClip(f'{kind} {i}', d.tracks, d.visible, d.video))
    return clips


def test_rivals_on_the_world():
    "Interval of the paired difference above 0: patches beat chance and standing still, Lucas-Kanade beats patches."
    clips, g = world_set(), torch.Generator().manual_seed(0)

    def chance(video, queries):
        xy = torch.rand(len(queries), len(video), 2, generator=g) * video.shape[1]
        return Tracks(xy, torch.ones(xy.shape[:2]).bool(), torch.ones(xy.shape[:2]), torch.arange(len(video)).float())
    score = {name: evaluate_tapvid(clips, t) for name, t in
             dict(chance=chance, still=stand_still, rgb=partial(nearest_rgb, stride=16), flow=lucas_kanade).items()}
    for better, worse in (('still', 'chance'), ('rgb', 'chance'), ('rgb', 'still'), ('flow', 'still'), ('flow', 'rgb')):
        assert compare(score[better], score[worse])['d_avg'].lo > 0, (better, worse)
    assert score['flow'].interval('d_avg').mean > .55 and score['flow'].interval('AJ').mean > .4
    every = evaluate_tapvid(clips, partial(nearest_rgb, stride=16, matching=Matching(cycle=None)))
    assert compare(score['rgb'], every)['AJ'].lo > 0 and compare(score['rgb'], every)['d_avg'].mean == 0


def test_strided_goes_both_ways_on_the_world():
    clips = world_set()[8:10]
    first, strided = (evaluate_tapvid(clips, lucas_kanade, mode) for mode in ('first', 'strided'))
    assert sum(strided.queries) > sum(first.queries)
    assert strided.interval('d_avg').mean > first.interval('d_avg').mean - .15


def test_pseudo_truth_is_right_where_it_speaks():
    "Known tracks: of the places it believes, queries aside, 9 of 10 are within 2 px (of 64), and it speaks of half."
    right, spoken = [], []
    for c in world_set():
        q, which = c.queries()
        found = pseudo_truth(c.video, q)
        asked = torch.arange(9) != q[:, :1]
        near = (found.xy - c.tracks[which]).norm(dim=-1) < 2
        right.append(near[found.visible & c.visible[which] & asked])
        spoken.append(found.visible[c.visible[which] & asked])
    assert torch.cat(right).float().mean() > .9 and torch.cat(spoken).float().mean() > .5


def test_pseudo_truth_takes_a_tracker():
    video, q, _ = covered_clip(3)
    assert pseudo_truth(video).xy.shape == (100, 3, 2)
    assert torch.equal(pseudo_truth(video, q.tolist(), stand_still).xy, stand_still(video, q).xy)
    with pytest.raises(ValueError, match='query 0'):
        pseudo_truth(video, [[9, 1, 1]])


# CoTracker

class Recorder(torch.nn.Module):
    "A predictor that moves each point by (1, 2) px a frame and is sure of the first half of the frames."

    def __init__(self, keyword=True, extra=False, confidence=False):
        super().__init__()
        self.extra, self.confidence, self.weight = extra, confidence, torch.nn.Parameter(torch.zeros(1))
        if not keyword:
            self.forward = self.run

    def forward(self, video, queries, backward_tracking=False):
        self.both = backward_tracking
        return self.run(video, queries)

    def run(self, video, queries):
        assert not self.training and not torch.is_grad_enabled()
        self.video, self.queries = video, queries
        f = torch.arange(video.shape[1])[:, None] - queries[0, :, 0]
        xy = queries[0, :, 1:] + f[..., None] * torch.tensor([1., 2.])
        seen = (torch.arange(video.shape[1]) < 3)[:, None].expand(-1, queries.shape[1])
        seen = seen * .8 + .1 if self.confidence else seen
        return xy[None], seen[None, ..., None] if self.extra else seen[None]


@pytest.mark.parametrize('options', [{}, {'keyword': False}, {'extra': True}, {'confidence': True}])
def test_cotracker_speaks_the_predictors_language(options):
    model, video = Recorder(**options), texture(48, 64).expand(6, -1, -1, -1)
    found = cotracker(model)(video, LATE)
    assert model.video.shape == (1, 6, 3, 48, 64) and 200 < model.video.max() <= 255
    assert torch.allclose(model.queries[0], LATE - torch.tensor([0, .5, .5])), 'its pixel centres are whole numbers'
    assert getattr(model, 'both', True)
    f = torch.arange(6.) - LATE[:, :1]
    assert torch.allclose(found.xy, LATE[:, None, 1:] + f[..., None] * torch.tensor([1., 2.]), atol=1e-4)
    assert found.visible.dtype == torch.bool and found.visible[:, :3].all() and not found.visible[:, 3:].any()


def test_cotracker_faults(tmp_path, monkeypatch):
    video = texture(48, 64).expand(6, -1, -1, -1)
    for model, error, said in ((lambda v, queries: None, TypeError, 'tracks, visibility'),
                               (lambda v, queries: (None, None), TypeError, 'online'),
                               (lambda v, queries: (torch.zeros(1, 6, 5, 2), torch.zeros(1, 6, 5)), ValueError, 'online')):
        with pytest.raises(error, match=said):
            cotracker(model)(video, LATE)
    with pytest.raises(TypeError, match='can be called'):
        cotracker('cotracker3')
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, '_get_cache_or_reload', None)   # nothing may be fetched
    with pytest.raises(ModuleNotFoundError, match='fetch it once.*lucas_kanade needs no model'):
        cotracker()
    copy = tmp_path / 'facebookresearch_co-tracker_main'
    copy.mkdir()
    (copy / 'hubconf.py').write_text('def cotracker3_offline():\n    return lambda video, queries: (queries[:, None, :, '
                                     '1:].repeat(1, video.shape[1], 1, 1), queries[:, None, :, 0].repeat(1, '
                                     'video.shape[1], 1) >= 0)\n')
    assert torch.allclose(cotracker()(video, LATE).xy, stand_still(video, LATE).xy)
    (copy / 'hubconf.py').write_text('raise OSError("weights are missing")\n')
    with pytest.raises(ModuleNotFoundError, match='weights are missing.*fetch it once'):
        cotracker()


# bad input

@pytest.mark.parametrize('name', EVERY)
@pytest.mark.parametrize('queries, said', [([[6, 1, 1]], 't from 0 to 5'), ([[0, 65, 1]], 'x from 0 to 64'),
                                           ([[0, 1, -1]], 'y from 0 to 48'), ([[0, float('nan'), 1]], 'query 0'),
                                           ([[1, 1]], r'\(points, 3\)'), (torch.zeros(0, 3), 'at least one')])
def test_bad_queries(name, queries, said):
    with pytest.raises(ValueError, match=said):
        EVERY[name](texture(48, 64).expand(6, -1, -1, -1), queries)


def test_bad_options():
    video = texture(48, 64).expand(6, -1, -1, -1)
    for call, said in ((lambda: nearest_rgb(video, LATE, stride=0), 'stride=0'),
                       (lambda: by_features(patches, 16)(video, LATE), r"\(n, rows, cols, channels\) = \(6, 3, 4, 'channels'\)"),
                       (lambda: by_features(lambda x: x.mean(), 8)(video, LATE), 'channels last'),
                       (lambda: by_features(lambda x: 3, 8)(video, LATE), 'gave int'),
                       (lambda: lucas_kanade(video, LATE, window=1), 'window=1'),
                       (lambda: lucas_kanade(video, LATE, cycle=-1), 'cycle=-1'),
                       (lambda: lucas_kanade(video, LATE, horizon=0), 'horizon=0'),
                       (lambda: stand_still(video.movedim(-1, 1), LATE), 'movedim')):
        with pytest.raises(ValueError, match=said):
            call()


def test_without_opencv(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cv2', None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'vidlens\[eval\]'"):
        lucas_kanade(texture(48, 64).expand(6, -1, -1, -1), LATE)


def test_features_come_in_batches():
    sizes = []

    def seen(frames):
        sizes.append(len(frames))
        assert not torch.is_grad_enabled()
        return patches(frames)
    by_features(seen, 8, batch=4)(texture(48, 64).expand(6, -1, -1, -1), LATE)
    assert sizes == [4, 2]


def test_a_real_clip():
    if not REAL.is_file():
        pytest.skip('needs ../shared/data/bmx-trees.mp4')
    video = read_video(REAL, frames=6, size=(240, 424))
    found = lucas_kanade(video, points_on_grid(8, 240, 424, t=2))
    assert found.xy.shape == (64, 6, 2) and found.visible[:, 2].all() and .4 < found.visible.float().mean() < 1
    kept = found.visible[:, 5]
    moved = (found.xy[kept, 5] - found.xy[kept, 2]).norm(dim=-1)
    assert kept.any() and 3 < moved.median() < 120, 'the camera follows the rider, so the ground moves'
    assert (found.error[:, 5][kept] <= 2).all()
