"""Flow by planted truth: fields that slide, cameras that are known, and the official AMF results."""
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from planted import rng, sliding
from torch.utils._python_dispatch import TorchDispatchMode

from vidlens.points.flow import (FlowReading, amf_loss, fit_affine, flow_error, motion_flow, remove_camera, residual_flow,
                                 true_flow)
from vidlens.core.grid import Grid
from vidlens.points.matching import match_cost, read_out
from vidlens.world import CAMERAS, Mixture, pan_over, sample

GOLDEN = Path(__file__).parent / 'golden'
DENSE = Grid(17, 64, 64, stride=1, temporal=1)   # every pixel of every RGB frame


def tokens_that_stay(grid, dx, dy):
    "Which tokens are still in the frame after (dx, dy) tokens: (rows, cols)."
    uv = grid.to_token(grid.centres()) + torch.tensor([dx, dy])
    return ((uv >= 0) & (uv < torch.tensor([grid.cols, grid.rows]))).all(-1)


# the official code

def golden(name):
    with np.load(GOLDEN / f'15_amf__{name}.npz') as z:
        z = {k: z[k] for k in z.files}
    grid, text = Grid(int(z['p_F']), int(z['p_h']), int(z['p_w']), stride=16), int(z['p_text_len'])
    q, k, target = (torch.as_tensor(z[f'in_{n}']).float()[:, text:] for n in ('query', 'key', 'query_target'))
    return z, grid, q, k, target, text


PUBLISHED = FlowReading.published()


@pytest.mark.parametrize('name', 'ab')
@pytest.mark.parametrize('block', [100, 2 ** 22])
def test_published_fields(name, block, monkeypatch):
    "However small the blocks."
    monkeypatch.setattr('vidlens.points.flow.BLOCK', block)
    z, grid, q, k, _, _ = golden(name)
    soft = motion_flow(q, k, grid, 'all', reading=replace(PUBLISHED, temperature=1 / float(z['p_temp']))) / grid.stride
    best = motion_flow(q, k, grid, 'all', reading=FlowReading.published('argmax')) / grid.stride
    torch.testing.assert_close(soft.flatten(1, 2), torch.as_tensor(z['out_flow_soft']), atol=1e-5, rtol=1e-5)
    assert torch.equal(best.flatten(1, 2), torch.as_tensor(z['out_flow_argmax']))


@pytest.mark.parametrize('name', 'ab')
@pytest.mark.parametrize(('key', 'moving'), [('thresh', True), ('all', False)])
def test_published_loss_and_gradient(name, key, moving):
    z, grid, q, k, target, text = golden(name)
    target.requires_grad_()
    reference = motion_flow(q, k, grid, 'all', reading=FlowReading.published('argmax'))
    loss = amf_loss(reference, target, k, grid, moving=moving, reading=replace(PUBLISHED, temperature=1 / float(z['p_temp'])))
    loss.backward()
    assert abs(loss.item() - float(z[f'out_amf_loss_{key}'])) < 1e-5
    want = torch.as_tensor(z[f'out_amf_loss_{key}_grad_query'])
    assert not want[:, :text].any()
    torch.testing.assert_close(target.grad, want[:, text:], atol=1e-5 * want.abs().max().item(), rtol=1e-4)


def test_the_default_differs_from_the_published():
    z, grid, q, k, _, _ = golden('a')
    ours, theirs = (motion_flow(q, k, grid, reading=how) for how in (FlowReading(), PUBLISHED))
    assert (ours - theirs).abs().max() > grid.stride


# planted motion

@pytest.mark.parametrize('shape', [(3, 6, 9), (4, 9, 5), (2, 1, 12), (3, 7, 1)])
@pytest.mark.parametrize('move', [(1, 0), (0, -1), (-1, 1), (2, 0)])
@pytest.mark.parametrize('average', ['weights', 'logits'])
def test_whole_token_motion_is_exact(shape, move, average):
    grid = Grid(*shape, stride=8)
    q = sliding(grid, *move)
    for n, flow in enumerate(motion_flow(q, q, grid, 'first', reading=FlowReading(readout='argmax', average=average))):
        went = torch.tensor(move) * n
        assert (flow[tokens_that_stay(grid, *went)] == went * 8).all()
    back = motion_flow(q, q, grid, [(1, 0)], reading=FlowReading(readout='argmax', average=average))[0]
    stay = tokens_that_stay(grid, -move[0], -move[1])
    assert (back[stay] == -8 * torch.tensor(move)).all()


@pytest.mark.parametrize('shape', [(3, 5, 8), (2, 8, 3)])
@pytest.mark.parametrize('how', [FlowReading(readout='argmax'), FlowReading(temperature=.02),
                                 FlowReading(average='logits', temperature=.02)])
def test_a_still_clip_stays_still_to_the_corners(shape, how):
    grid = Grid(*shape)
    q = sliding(grid, 0, 0)
    assert motion_flow(q, q, grid, 'all', how).abs().max() < 1e-3
    # and where nothing is known, nothing moves
    blank = torch.zeros_like(q)
    assert motion_flow(blank, blank, grid, 'all', how).abs().max() < 1e-4


@pytest.mark.parametrize('average', ['weights', 'logits'])
def test_soft_goes_to_argmax_as_it_cools(average):
    grid = Grid(3, 6, 9)
    q = sliding(grid, 1, -1, norm=2.)
    best, stay = motion_flow(q, q, grid, reading=FlowReading(readout='argmax', average=average)), tokens_that_stay(grid, 1, -1)
    off = [(motion_flow(q, q, grid, 'next', FlowReading('soft', t, None, average)) - best)[:, stay].norm(dim=-1).mean()
           for t in (2., 1., .3, .02)]
    assert off[0] > off[1] > off[2] > off[3] and off[3] < 1e-3


def test_it_is_the_matching_of_every_token():
    grid = Grid(3, 5, 7, stride=8)
    q, k = (torch.randn(2, 4, grid.n, 16, generator=rng(i)) for i in (0, 1))
    uv, _ = read_out(match_cost(q[0], k[0], grid, 0, 2, heads=[1, 3]), grid, 'soft', .7, 1, near=torch.stack(
        [torch.arange(35) % 7, torch.arange(35) // 7], -1).float())
    want = (uv.view(5, 7, 2) - grid.to_token(grid.centres())) * 8
    got = motion_flow(q[0], k[0], grid, [(0, 2)], reading=FlowReading(heads=[1, 3], temperature=.7, window=1))[0]
    torch.testing.assert_close(got, want)
    # several layers: the mean of their maps, of weights and of logits
    for average in ('weights', 'logits'):
        both = motion_flow(list(q), list(k), grid, reading=FlowReading(average=average))
        twice = motion_flow([q[0], q[0]], [k[0], k[0]], grid, reading=FlowReading(average=average))
        torch.testing.assert_close(twice, motion_flow(q[0], k[0], grid, reading=FlowReading(average=average)), atol=1e-4, rtol=1e-4)
        assert not torch.allclose(both, twice)


def test_one_loud_head_outvotes_the_logits_and_not_the_weights():
    grid = Grid(2, 6, 9)
    quiet, loud = sliding(grid, 1, 0, 3, norm=6.), sliding(grid, -1, 0, 1, norm=40.)
    q = torch.cat([quiet, loud])
    stay = tokens_that_stay(grid, 1, 0) & tokens_that_stay(grid, -1, 0)
    weights, logits = (motion_flow(q, q, grid, reading=FlowReading('argmax', average=a))[0][stay] for a in ('weights', 'logits'))
    assert (weights == torch.tensor([16., 0])).all() and (logits == torch.tensor([-16., 0])).all()


class Largest(TorchDispatchMode):
    "The largest tensor that any operation makes."
    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, tuple | list) else [out]:
            if isinstance(t, torch.Tensor):
                self.entries = max(self.entries, t.numel())
        return out


@pytest.mark.parametrize('average', ['weights', 'logits'])
def test_nothing_of_tokens_by_tokens(average, monkeypatch):
    for module in ('flow', 'matching'):
        monkeypatch.setattr(f'vidlens.points.{module}.BLOCK', 2 ** 16)
    grid = Grid(5, 20, 30)
    q = torch.randn(2, grid.n, 8, generator=rng())
    with Largest() as seen:
        motion_flow(q, q, grid, reading=FlowReading(average=average))
    assert seen.entries <= max(2 ** 16, q.numel())


@pytest.mark.parametrize('average', ['weights', 'logits'])
def test_the_gradient_keeps_no_maps(average):
    "Nothing of the size of a map of one pair is held for the way back."
    grid = Grid(4, 10, 12)
    q = torch.randn(2, grid.n, 8, generator=rng()).requires_grad_()
    want, held = torch.ones(16, 10, 12, 2), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: held.append(t.numel()) or t, lambda t: t):
        loss = amf_loss(want, q, q, grid, reading=replace(PUBLISHED, average=average))
    assert max(held) < grid.per_frame ** 2
    loss.backward()
    assert torch.isfinite(q.grad).all() and q.grad.any()


def test_gradient_by_differences():
    grid = Grid(2, 3, 4)
    q = torch.randn(2, grid.n, 4, generator=rng(), dtype=torch.float64).requires_grad_()
    k = torch.randn(2, grid.n, 4, generator=rng(1), dtype=torch.float64).requires_grad_()
    want = motion_flow(q.flip(1), k, grid, 'all', reading=FlowReading(readout='argmax'))
    for average in ('weights', 'logits'):
        grads = torch.autograd.grad(amf_loss(want, q, k, grid, reading=replace(PUBLISHED, average=average)), (q, k))
        for x, grad in zip((q, k), grads):
            way = torch.randn(x.shape, generator=rng(2), dtype=torch.float64)
            ends = [amf_loss(want, *((x + s * way, k) if x is q else (q, x + s * way)), grid,
                             reading=replace(PUBLISHED, average=average))
                    for s in (.01, -.01)]
            assert abs((ends[0] - ends[1]).item() / .02 - (grad * way).sum().item()) < 1e-3


# the camera

@pytest.mark.parametrize('camera', [c for c in CAMERAS if c != 'still'])
def test_the_camera_is_recovered_from_the_true_flow(camera):
    clip = sample(1, 5, Mixture(kind='mixed', cameras=camera, motions=['left', 'up'], schedules='whole')).clip()
    flow = clip.flow[::5]
    maps, object_ = fit_affine(flow, DENSE), clip.masks[0, :-1:5]
    m = torch.cat([clip.camera, torch.tensor([[[0., 0, 1]]]).expand(17, 1, 3)], 1).double()
    true = (m[1:] @ torch.linalg.inv(m[:-1]))[::5, :2].float()
    torch.testing.assert_close(maps, true, atol=1e-3, rtol=0)
    rest = residual_flow(flow, DENSE, maps)
    assert object_.any() and rest[~object_].abs().max() < 1e-3
    own, _, owner = true_flow(clip, DENSE, [(f, f + 1) for f in range(0, 16, 5)], own=True)
    assert (rest - own)[object_ & (owner == 0)].abs().max() < 1e-3
    assert own[owner == 0].norm(dim=-1).mean() > .3
    # the flow splits into the camera's part and the rest, and the plain fit is pulled
    assert residual_flow(flow, DENSE, robust=False)[~object_].norm(dim=-1).mean() > .02


def test_own_motion_is_that_of_the_same_scene_without_the_pan():
    scenes = sample(1, 6, Mixture(kind='mixed', cameras='pan right', motions='down', schedules='whole'))
    panned, still = scenes.clip(), scenes.with_(camera='still').clip()
    k = panned.owner == 0
    for clip in (panned, still):
        rest = residual_flow(clip.flow[8:9], DENSE)[0]
        want = (still.tracks[still.owner == 0][0, 9] - still.tracks[still.owner == 0][0, 8])
        x, y = clip.tracks[k][0, 8].long()
        torch.testing.assert_close(rest[y, x], want, atol=1e-3, rtol=0)


def test_a_still_camera_is_the_identity():
    clip = sample(1, 4, Mixture(kind='two', motions=['right', 'down'], schedules='whole')).clip()
    maps = fit_affine(clip.flow, DENSE)
    assert clip.flow.any() and torch.allclose(maps, torch.eye(2, 3), atol=1e-5)
    assert (residual_flow(clip.flow, DENSE, maps) - clip.flow).abs().max() < 1e-3
    assert torch.allclose(fit_affine(torch.zeros(3, 6, 9, 2), Grid(3, 6, 9)), torch.eye(2, 3), atol=1e-6)


@pytest.mark.parametrize('share', [0., .2, .4, .47])
def test_an_object_on_less_than_half_of_the_frame(share):
    "Even one that fills a whole side of the frame and moves by another affine map."
    grid = Grid(1, 12, 20, stride=8)
    true = torch.tensor([[1.02, -.05, 3.], [.04, .97, -6.]])
    other = torch.tensor([[.9, .2, 11.], [0., 1.1, 4.]])
    xy = grid.centres()
    flow, foreign = (xy @ m[:, :2].T + m[:, 2] - xy for m in (true, other))
    cells = int(share * grid.per_frame)
    columns = torch.arange(grid.per_frame).view(grid.cols, grid.rows).T
    flow = torch.where((columns < cells)[..., None], foreign, flow)
    torch.testing.assert_close(fit_affine(flow, grid), true, atol=1e-4, rtol=0)
    noisy = flow + .2 * torch.randn(flow.shape, generator=rng())
    off = residual_flow(flow, grid, fit_affine(noisy, grid)) - residual_flow(flow, grid, true)
    assert off.norm(dim=-1).mean() < .2


def test_weights_gaps_places_and_batches():
    grid = Grid(1, 8, 12, stride=4)
    shift = torch.zeros(8, 12, 2) + torch.tensor([2., -3.])
    mixed = shift.clone()
    mixed[:, 2:] = 0.
    weight = torch.zeros(8, 12)
    weight[:, :2] = 1.
    moved = torch.tensor([[1., 0, 2], [0, 1, -3]])
    for robust in (True, False):   # the majority, unless the weights say otherwise
        assert torch.allclose(fit_affine(mixed, grid, weight, robust), moved, atol=1e-5)
    assert torch.allclose(fit_affine(mixed, grid), torch.eye(2, 3), atol=1e-5)
    gaps = mixed.clone()
    gaps[:, 2:] = torch.nan
    assert torch.allclose(fit_affine(gaps, grid), moved, atol=1e-5)
    batch = torch.stack([shift, mixed]).expand(3, 2, 8, 12, 2)
    maps = fit_affine(batch, grid)
    assert maps.shape == (3, 2, 2, 3) and residual_flow(batch, grid, maps).shape == batch.shape
    assert torch.allclose(maps[1, 0], moved, atol=1e-5) and torch.allclose(maps[2, 1], torch.eye(2, 3), atol=1e-5)
    some = torch.rand(40, 2, generator=rng()) * 30
    points = some @ torch.tensor([[.1, 0], [0, -.1]]) + 1
    assert torch.allclose(fit_affine(points.numpy(), some), torch.tensor([[1.1, 0, 1], [0, .9, 1]]), atol=1e-4)


def test_tolerance_keeps_steps_of_whole_tokens_together():
    "An argmax flow of a slow pan is 0 on most tokens and a whole token on the rest: the mean is meant."
    grid = Grid(1, 8, 12, stride=8)
    flow = torch.zeros(8, 12, 2)
    flow[(torch.rand(8, 12, generator=rng()) < .3)] = torch.tensor([8., 0])
    strict, wide = (fit_affine(flow, grid, tolerance=t)[:, 2] for t in (.01, 80.))
    assert abs(strict[0]) < 1e-3 and wide[0] > 1


# truth, errors, tracks

@pytest.mark.parametrize('pairs', ['next', 'first', 'all', [(4, 1), (2, 2)]])
def test_true_flow_is_the_path_of_each_token(pairs):
    clip = sample(1, 7, Mixture(kind='mixed', schedules='whole')).clip()
    grid = Grid.of(17, 64, 64, stride=8)
    flow, visible, owner = true_flow(clip, grid, pairs)
    own = true_flow(clip, grid, pairs, own=True)[0]
    named = {'next': [(f, f + 1) for f in range(4)], 'first': [(0, f) for f in range(5)],
             'all': [(a, b) for a in range(5) for b in range(5)]}
    for n, (a, b) in enumerate(named.get(str(pairs), pairs)):
        queries = torch.cat([torch.full((64, 1), 4. * a), grid.centres().flatten(0, 1)], 1)
        tracks, seen, who = clip.track_points(queries)
        assert torch.equal(flow[n].flatten(0, 1), tracks[:, 4 * b] - tracks[:, 4 * a])
        assert torch.equal(visible[n].flatten(), seen[:, 4 * b]) and torch.equal(owner[n].flatten(), who)
    assert own[owner < 0].abs().max() < 1e-3


def test_a_camera_over_a_picture_leaves_nothing():
    clip = pan_over(torch.rand(100, 150, 3, generator=rng()), 'roll clockwise')
    grid = Grid.of(17, 64, 64, stride=8)
    flow, _, owner = true_flow(clip, grid)
    assert (owner == -1).all() and flow.norm(dim=-1).mean() > 1
    assert residual_flow(flow, grid).abs().max() < 1e-3


def test_flow_error_by_hand():
    truth = torch.zeros(2, 3, 2)
    truth[0] = torch.tensor([[4., 0], [0, 3], [0, .5]])
    flow = torch.tensor([[[4., 3], [3, 0], [0, 9]], [[0, 0], [1, 0], [0, 2]]])
    got = flow_error(flow, truth)
    assert torch.allclose(got['error'], torch.tensor([(3 + 18 ** .5 + 8.5) / 3, 1.]))
    assert torch.allclose(got['still'], torch.tensor([7.5 / 3, 0.]))
    assert got['direction'][0] == .5 and got['direction'][1].isnan()
    where = torch.tensor([[True, False, False], [False] * 3])
    got = flow_error(flow, truth, where, moved=.1, within=30)
    assert got['error'][0] == 3 and got['error'][1].isnan() and got['direction'][0] == 0
    # no motion is no direction; opposite ones are wrong up to within = 180
    assert flow_error(0 * truth, truth, moved=.1)['direction'][0] == 0
    assert flow_error(truth, truth, moved=.1)['direction'][0] == 1
    # a NaN that does not count does no harm
    flow[0, 1] = torch.nan
    assert flow_error(flow, truth, where)['error'][0] == 3


def test_chance_of_a_direction():
    flow, truth = torch.randn(2, 50, 400, 2, generator=rng())
    for within in (45., 90., 135.):
        share = flow_error(flow, truth, moved=.01, within=within)['direction'].mean()
        assert abs(share - within / 180) < .02


@pytest.mark.parametrize('camera', ['pan left', 'zoom in', 'roll clockwise'])
def test_tracks_without_the_camera(camera):
    scenes = sample(1, 8, Mixture(kind='mixed', cameras=camera, motions='right', schedules='whole'))
    clip, still = scenes.clip(), scenes.with_(camera='still').clip()
    calm = remove_camera(clip.tracks, clip.camera)
    assert (clip.tracks - clip.tracks[:, :1])[clip.owner < 0].norm(dim=-1).max() > 3
    assert (calm - calm[:, :1])[clip.owner < 0].abs().max() < 1e-3
    queries = still.queries[still.owner == 0]
    if camera == 'pan left':   # frame 0 of the two films is the same but for where the camera starts
        mine = calm[clip.owner == 0][0]
        want = still.track_points(queries)[0][0]
        torch.testing.assert_close(mine - mine[0], want - want[0], atol=1e-3, rtol=0)
    # maps fitted from the flow, of frame 0 to each and chained, and an axis of heads in front
    for pairs in ('first', 'next'):
        maps = fit_affine(true_flow(clip, Grid(17, 8, 8, stride=8, temporal=1), pairs)[0], Grid(17, 8, 8, stride=8))
        torch.testing.assert_close(remove_camera(clip.tracks, maps), calm, atol=.02, rtol=0)
    assert torch.equal(remove_camera(clip.tracks.expand(2, -1, -1, -1), clip.camera)[1], calm)


def test_cameras_that_pan_and_roll_at_once():
    "Maps that do not commute: the order in which they are chained shows."
    grid, t = Grid(5, 6, 8, stride=8, temporal=1), torch.arange(5) * .3
    turn = torch.stack([torch.stack([t.cos(), -t.sin()], -1), torch.stack([t.sin(), t.cos()], -1)], -2)
    camera = torch.cat([turn * (1 + t)[:, None, None], torch.stack([9 * t, 4 * t ** 2], -1)[..., None]], -1)

    def path(queries):
        "Of a background point."
        m = torch.cat([camera, torch.tensor([[[0., 0, 1]]]).expand(5, 1, 3)], 1)
        home = torch.linalg.inv(m)[queries[:, 0].long()] @ torch.cat([queries[:, 1:], 0 * queries[:, :1] + 1], 1)[..., None]
        tracks = (m @ home[:, None])[..., :2, 0]
        return tracks, torch.ones(tracks.shape[:2]).bool(), torch.full((len(queries),), -1)
    clip = SimpleNamespace(video=torch.zeros(5, 48, 64, 3), camera=camera, track_points=path)
    assert true_flow(clip, grid, 'all', own=True)[0].abs().max() < 1e-3
    xy = grid.centres().flatten(0, 1)
    tracks = path(torch.cat([0 * xy[:, :1], xy], 1))[0]
    for maps in (camera, fit_affine(true_flow(clip, grid)[0], grid), fit_affine(true_flow(clip, grid, 'first')[0], grid)):
        torch.testing.assert_close(remove_camera(tracks, maps), xy[:, None].expand(-1, 5, 2), atol=1e-3, rtol=0)


# bad input

G = Grid(4, 3, 5)
Q = torch.randn(2, 60, 8, generator=rng())
FLOW = motion_flow(Q, Q, G)


@pytest.mark.parametrize(('call', 'says'), [
    (lambda: motion_flow(torch.randn(2, 70, 8), torch.randn(2, 70, 8), G), 'cut the text tokens off'),
    (lambda: motion_flow(Q[None], Q[None], G), r'of a batch take one item, q\[i\]'),
    (lambda: motion_flow(Q, Q, G, 'previous'), "use 'next', 'first', 'all' or a list"),
    (lambda: motion_flow(Q, Q, G, [(0, 4)]), 'each 0 to 3'),
    (lambda: motion_flow(Q, Q, G, (0, 1)), r'must be pairs \(from, to\)'),
    (lambda: motion_flow(Q, Q, G, []), 'give at least one'),
    (lambda: motion_flow(Q[:, :15], Q[:, :15], Grid(1, 3, 5)), 'of 1 token frames'),
    (lambda: motion_flow(Q, Q, G, reading=FlowReading(readout='mean')), "readout='mean' is unknown: use 'soft' or 'argmax'"),
    (lambda: motion_flow(Q, Q, G, reading=FlowReading(average='heads')), "average='heads' is unknown: use 'weights' or 'logits'"),
    (lambda: motion_flow(Q, Q, G, reading=FlowReading(temperature=0)), 'temperature=0 must be a number of at least 1e-09'),
    (lambda: motion_flow(Q, Q, G, reading=FlowReading(heads=2)), '0 to 1'),
    (lambda: motion_flow(Q * torch.nan, Q, G), 'holds NaN'),
    (lambda: amf_loss(FLOW, Q, Q, G), 'make it with the same pairs and grid'),
    (lambda: amf_loss(0 * FLOW, Q, Q, G, 'next'), 'use moving=False'),
    (lambda: amf_loss(FLOW * torch.nan, Q, Q, G, 'next'), 'holds NaN'),
    (lambda: fit_affine(FLOW, Grid(4, 5, 3)), r'must be \(\.\.\., 5, 3, 2\)'),
    (lambda: fit_affine(FLOW, torch.rand(4, 2)), r'positions must be \(points, 2\)'),
    (lambda: fit_affine(FLOW[..., :1], G), r'must be \(\.\.\., 3, 5, 2\)'),
    (lambda: fit_affine(FLOW * torch.nan, G), 'there are 0 points'),
    (lambda: fit_affine(torch.rand(1, 9, 2), Grid(1, 1, 9)), 'not on one line'),
    (lambda: fit_affine(FLOW, G, torch.ones(3, 4)), r'its last axis, \(3, 3, 5\)'),
    (lambda: fit_affine(FLOW, G, -torch.ones(3, 3, 5)), 'negative'),
    (lambda: fit_affine(FLOW, G, tolerance=0), 'above 0'),
    (lambda: residual_flow(FLOW, G, torch.eye(2, 3)), r'must be \(3, 2, 3\): fit_affine'),
    (lambda: true_flow(sample(1).clip(), G), r'use Grid\.of'),
    (lambda: flow_error(FLOW, FLOW[:2]), r'give flow\[None\]'),
    (lambda: flow_error(FLOW, FLOW, FLOW[..., 0] > 0, within=200), 'between 0 and 180'),
    (lambda: flow_error(FLOW, FLOW, torch.ones(3, 5).bool()), 'where has shape'),
    (lambda: remove_camera(torch.rand(5, 4, 2), torch.rand(9, 2, 3)), '4 maps'),
    (lambda: remove_camera(torch.rand(5, 4, 2), torch.rand(2, 3)), r'maps \(frames, 2, 3\)'),
    (lambda: remove_camera(torch.rand(5, 4, 2), torch.zeros(4, 2, 3)), 'has no inverse')])
def test_bad_input(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_a_confidence_is_not_yet_a_decision():
    with pytest.raises(TypeError, match='must be bool'):
        flow_error(FLOW, FLOW, torch.ones(3, 3, 5))
