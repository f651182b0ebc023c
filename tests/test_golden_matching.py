"""The official DiffTrack code's results, reproduced by the options that are named after its quirks."""
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vidlens.core.grid import Grid
from vidlens.points.matching import Matching, Tracks, match, match_cost, match_features, points_on_grid, read_out

GOLDEN = Path(__file__).parent / 'golden'


def load(name):
    with np.load(GOLDEN / f'{name}.npz') as z:
        return {k: z[k] for k in z.files}


def tensor(x):
    return torch.as_tensor(x).float()


def close(ours, theirs, rtol=1e-4):
    theirs = tensor(theirs)
    torch.testing.assert_close(ours.float(), theirs, rtol=rtol, atol=1e-5 * theirs.abs().max().item())


def video_tokens(z, x):
    "Cut the text off, wherever it is."
    n, text = int(z['p_F'] * z['p_h'] * z['p_w']), int(z['p_text_len'])
    return tensor(x)[..., text:, :] if z['p_text_first'] else tensor(x)[..., :n, :]


def grid_of(z):
    grid = Grid(int(z['p_F']), int(z['p_h']), int(z['p_w']), int(z['p_stride']))
    assert (grid.height, grid.width) == (z['p_H_px'], z['p_W_px'])
    return grid


def queries_of(z):
    if z.get('p_default_grid_size', 0):
        return points_on_grid(int(z['p_default_grid_size']), int(z['p_H_px']), int(z['p_W_px']))
    xy = tensor(z['in_query_points_px'][0])
    return torch.cat([torch.zeros(len(xy), 1), xy], 1)


def argmax_field(cost_of, grid):
    "(frames - 1, rows, cols, 2): the best token, as (column, row), of every token of frame 0."
    return torch.stack([read_out(cost_of(f), grid)[0].view(grid.rows, grid.cols, 2) for f in range(1, grid.frames)])


def check_tracks(z, grid, tracks, suffix=''):
    close(tracks.xy.transpose(0, 1)[None] / grid.stride, z[f'out_tracks_token{suffix}'])
    at = tracks.at_frames(int(z['p_target_frames']), time='half_pixel')
    close(at.xy.transpose(0, 1)[None], z[f'out_trajectory_px{suffix}'])
    assert len(at.times) == z['p_target_frames'] and tracks.visible.all()


def test_points_on_grid():
    z = load('00_points_on_grid')
    for i in range(5):
        size, height, width = (int(v) for v in z[f'p_size_extent_{i}'])
        close(points_on_grid(size, height, width)[None, :, 1:], z[f'out_points_{i}'], rtol=1e-6)


def test_interpolate_trajectory():
    z = load('00_interpolate_trajectory')
    xy = tensor(z['in_tracks']).transpose(1, 2)
    flags = torch.ones(xy.shape[:3])
    tracks = Tracks(xy, flags.bool(), flags, Grid(xy.shape[2], 1, 1).times())
    for name, n in (('a', 17), ('b', 23), ('49', 49)):
        close(tracks.at_frames(n, time='half_pixel').xy.transpose(1, 2), z[f'out_frames_{name}'])
    # the right default differs: it reads token frame k at RGB frame 4k
    assert torch.equal(tracks.at_frames(17).xy[:, :, ::4], xy)


@pytest.mark.parametrize('invert', [0, 1])
def test_corr_to_matches(invert):
    z = load('00_corr_to_matches')
    corr = tensor(z['in_corr4d'])[:, 0]
    source, target = ('B', 'A') if not invert else ('A', 'B')
    rows, cols = corr.shape[1:3] if target == 'A' else corr.shape[3:]
    maps = corr.flatten(1, 2).flatten(2, 3)          # (batch, A, B)
    maps = (maps.mT if target == 'A' else maps).softmax(-1)
    uv, score = read_out(maps, Grid(1, rows, cols))
    assert torch.equal(uv[..., 0], tensor(z[f'out_x{target}__invert{invert}']))
    assert torch.equal(uv[..., 1], tensor(z[f'out_y{target}__invert{invert}']))
    close(score, z[f'out_score__invert{invert}'])
    n, width = maps.shape[1], corr.shape[4] if source == 'B' else corr.shape[2]
    own = torch.stack([torch.arange(n) % width, torch.arange(n) // width]).float().expand(len(corr), 2, n)
    assert torch.equal(own[:, 0], tensor(z[f'out_x{source}__invert{invert}']))
    assert torch.equal(own[:, 1], tensor(z[f'out_y{source}__invert{invert}']))


QK = [('A_cogvideox', '', None), ('B_cogvideox', '', None), ('C_cogvideox', '', None),
      ('D_hunyuan', '_ref', 'published_hunyuan'), ('D_hunyuan', '_fixed', None)]


@pytest.mark.parametrize(('name', 'suffix', 'scale'), QK)
def test_matching_qk(name, suffix, scale):
    z = load(f'01_matching_qk__{name}')
    grid, q, k = grid_of(z), video_tokens(z, z['in_query']), video_tokens(z, z['in_key'])
    field = argmax_field(lambda f: match_cost(q, k, grid, 0, f, symmetric=True, scale=scale), grid)
    assert torch.equal(field, tensor(z[f'out_argmax_xy{suffix}']))
    tracks = match(q, k, grid, queries_of(z), matching=replace(Matching.published(), scale=scale))
    check_tracks(z, grid, tracks, suffix)


def test_the_hunyuan_scale_is_a_number_too():
    z = load('01_matching_qk__D_hunyuan')
    grid, q, k = grid_of(z), video_tokens(z, z['in_query']), video_tokens(z, z['in_key'])
    named, number = (match_cost(q, k, grid, 0, 1, scale=s)
                     for s in ('published_hunyuan', 1 / float(z['p_softmax_scale_ref'])))
    assert torch.equal(named, number)


@pytest.mark.parametrize('name', ['A_cogvideox', 'B_cogvideox', 'C_cogvideox', 'D_hunyuan'])
def test_matching_feature(name):
    z = load(f'02_matching_feature__{name}')
    grid, x = grid_of(z), video_tokens(z, z['in_features'])
    field = argmax_field(lambda f: match_cost(x[None], x[None], grid, 0, f, scale=1.), grid)
    assert torch.equal(field, tensor(z['out_argmax_xy']))
    check_tracks(z, grid, match_features(x, grid, queries_of(z), similarity='softmax',
                                            matching=Matching(lookup='published', cycle=None)))


@pytest.mark.parametrize('block', [64, 1000, 2 ** 22])
def test_blocks_change_nothing(block, monkeypatch):
    "However small the scratch memory, the golden result stands."
    monkeypatch.setattr('vidlens.points.matching.BLOCK', block)
    test_matching_qk(*QK[0])


@pytest.mark.parametrize('name', ['A_cogvideox', 'B_cogvideox', 'C_cogvideox'])
def test_the_default_differs_from_the_published(name):
    "The quirks are off by default: the same matches, read at the right place."
    z = load(f'01_matching_qk__{name}')
    grid, q, k = grid_of(z), video_tokens(z, z['in_query']), video_tokens(z, z['in_key'])
    p = points_on_grid(5, grid.height, grid.width)
    ours, theirs = (match(q, k, grid, p, matching=Matching(symmetric=True, lookup=how)).xy for how in ('nearest', 'published'))
    field = tensor(z['out_argmax_xy'])
    row, col = grid.nearest(p[:, 1:])
    moved = (field[:, row, col] - torch.stack([col, row], -1)).transpose(0, 1) * grid.stride
    assert torch.equal(ours[:, 1:], p[:, None, 1:] + moved)
    assert (ours - theirs).abs().max() > 1
