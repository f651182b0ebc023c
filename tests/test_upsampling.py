"""Token maps enlarged to pixels: the geometry, the edges, and what bad input says."""
import sys

import pytest
import torch
import torch.nn.functional as F

from vidlens import world
from vidlens.core.grid import Grid
from vidlens.words.metrics import iou
from vidlens.core.upsampling import upsample

G = torch.Generator().manual_seed(0)
GRID = Grid(3, 4, 5, 8, 4)
VIDEO = torch.rand(9, 32, 40, 3, generator=G)
MAPS = torch.randn(2, 3, 3, 4, 5, generator=G)


def test_bilinear_puts_tokens_at_their_centres():
    "A map that is a plane in pixels comes back as that plane, between the outermost centres."
    grid = Grid(2, 6, 8, 4, 2)
    x, y = grid.centres().unbind(-1)
    large = upsample((x + 10 * y).expand(grid.shape), grid)
    assert large.shape == (3, 24, 32) and large.dtype == torch.float32
    yy, xx = torch.meshgrid(torch.arange(24) + .5, torch.arange(32) + .5, indexing='ij')
    inner = (slice(None), slice(2, -2), slice(2, -2))
    assert torch.allclose(large[inner], (xx + 10 * yy).expand(3, 24, 32)[inner], atol=1e-3)


@pytest.mark.parametrize('causal', [True, False])
def test_frames_have_the_map_of_their_token_frame(causal):
    grid = Grid(3, 4, 5, 8, 4, causal)
    large = upsample(MAPS.half(), grid)
    assert large.shape == (2, 3, grid.video_frames, 32, 40)
    for t in range(grid.video_frames):
        want = F.interpolate(MAPS.half().float()[:, :, grid.frame_of(t)], (32, 40), mode='bilinear', align_corners=False)
        assert torch.equal(large[:, :, t], want)


def guided_by_hand(p, guide, r, eps):
    "The guided filter of a grey guide, written out with windows (He et al. 2010, algorithm 1), both (height, width)."
    def mean(x):
        x = F.pad(x[None, None], (r, r, r, r), mode='reflect')
        return F.unfold(x, 2 * r + 1).mean(1).view(guide.shape)
    a = (mean(guide * p) - mean(guide) * mean(p)) / (mean(guide * guide) - mean(guide) ** 2 + eps)
    return mean(a) * guide + mean(mean(p) - a * mean(guide))


def test_edges_are_those_of_the_guided_filter():
    "With a grey video, three equal channels share the coefficient: eps counts a third."
    grey = VIDEO.mean(-1, keepdim=True).expand(-1, -1, -1, 3).double()
    found = upsample(MAPS[0, :1], GRID, grey.float(), radius=3, eps=.03)
    for t in (0, 3, 8):
        p = F.interpolate(MAPS[0, :1, GRID.frame_of(t)][None].double(), (32, 40), mode='bilinear', align_corners=False)[0, 0]
        assert (found[0, t] - guided_by_hand(p, grey[t, ..., 0], 3, .01)).abs().max() < 1e-3


def test_a_row_of_tokens():
    "The default window of one token is as high as the frame; it shrinks, and bilinear maps have none."
    grid, maps, video = Grid(2, 1, 4, 8, 4), MAPS[0, :1, :2, :1, :4], VIDEO[:5, :8]
    assert upsample(maps, grid).shape == (1, 5, 8, 32)
    assert torch.equal(upsample(maps, grid, video[..., :32, :]), upsample(maps, grid, video[..., :32, :], radius=7))


def test_large_stacks_are_filtered_in_groups(monkeypatch):
    import vidlens.core.upsampling as module
    whole = upsample(MAPS, GRID, VIDEO)
    monkeypatch.setattr(module, '_ROOM', 1)
    assert torch.allclose(upsample(MAPS, GRID, VIDEO), whole, atol=1e-6)


def test_edges_find_a_planted_object():
    clip = world.clip('a red circle moves right', seed=3)
    grid = Grid.of(17, 64, 64, 8, 4)
    share = F.avg_pool2d(clip.masks[0, :, None].float(), 8)[:, 0]
    maps = torch.stack([share[a:b + 1].mean(0) for a, b in map(grid.span, range(grid.frames))])
    plain, edges = (iou(upsample(maps, grid, v), clip.masks[0], .5).mean() for v in (None, clip.video))
    assert edges > plain + .05
    turned = upsample(maps, grid, clip.video.flip(2))          # the edges of another picture do not help
    assert iou(turned, clip.masks[0], .5).mean() < edges - .05


@pytest.mark.parametrize('how, says', [
    (dict(maps=MAPS[..., :4]), r'maps are \(2, 3, 3, 4, 4\), but must be \(\.\.\., 3, 4, 5\)'),
    (dict(maps=MAPS[0, 0, 0]), 'but must be'), (dict(maps=[1.]), 'list'),
    (dict(video=VIDEO[:5]), r'\(5, 32, 40, 3\), but for this grid .* \(9, 32, 40, 3\)'),
    (dict(video=(VIDEO * 255).byte()), 'uint8'), (dict(video=VIDEO * 255), r'must be in \[0, 1\]'),
    (dict(video=VIDEO, radius=0), 'radius=0'), (dict(video=VIDEO, radius=32), '1 to 31'), (dict(video=VIDEO, eps=0.), 'eps above')])
def test_bad_input(how, says):
    with pytest.raises(ValueError, match=says):
        upsample(**dict(maps=MAPS, grid=GRID) | how)


def test_without_kornia(monkeypatch):
    monkeypatch.setitem(sys.modules, 'kornia.filters', None)
    assert upsample(MAPS, GRID).shape == (2, 3, 9, 32, 40)
    with pytest.raises(ImportError, match='pip install kornia'):
        upsample(MAPS, GRID, VIDEO)
