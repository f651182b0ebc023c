"""Losses of motion control: published numbers through named options, planted motion, gradients, clear errors."""
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from planted import rng

from vidlens.motion.channels import ChannelStats, channel_curves, choose_channels, motion_features, remove_content
from vidlens.core.grid import Grid
from vidlens.motion.losses import (DIRECTIONS, displacement_of, marginal_loss, motion_loss, motion_stats, point_loss,
                                   sample_features, synthesise)

GOLDEN = Path(__file__).parent / 'golden'
GRID = Grid(5, 6, 8, stride=8)


def load(name):
    return {k: torch.from_numpy(v.astype(np.float32) if v.dtype == np.float16 else v) if v.ndim else v.item()
            for k, v in np.load(GOLDEN / f'{name}.npz', allow_pickle=False).items()}


def clip(x):
    "(frames, channels, rows, cols) -> (frames, rows, cols, channels)"
    return x.movedim(1, -1)


def close(a, b, tol=1e-5):
    a, b = torch.as_tensor(a).double(), torch.as_tensor(b).double()
    assert a.shape == b.shape and (a - b).abs().max() <= tol * b.abs().max()


# -- published numbers

@pytest.fixture(params=['single', 'two_masks'])
def control(request):
    return load(f'14_motion_control_loss__{request.param}')


def released(z, features):
    "The released loss: means of regions, a mean square, times a weight, summed over regions."
    total, (lo, hi) = 0., (z['p_ref_crop_lo'], z['p_ref_crop_hi'])
    for i, mask in enumerate(z['in_masks']):
        channels = z[f'in_motion_channels_{i}']
        curve = motion_features(clip(z[f'in_reference_features_{i}']), channels)[:, lo:hi, lo:hi].mean((1, 2))
        total = total + motion_loss(motion_features(features, channels), curve, mask, per='mean', weight=z['p_weight'])
    return total


def test_14_loss_and_gradient(control):
    x = clip(control['in_features']).requires_grad_()
    loss = released(control, x)
    close(loss.detach(), control['out_loss'])
    loss.backward()
    close(x.grad.movedim(-1, 1), control['out_grad_features'], 1e-4)


def test_14_latents(control):
    "Through the toy network, and only inside the union of the masks."
    z = control
    latents = z['in_latents'].clone().requires_grad_()
    frames = F.conv2d(latents[0].movedim(1, 0), z['in_toy_conv_weight'], padding=1)
    x = torch.tanh(torch.einsum('gf,fchw->gchw', z['in_toy_temporal_matrix'], frames))
    close(x.detach(), z['in_features'], 1e-3)
    released(z, clip(x)).backward()
    close(latents.grad, z['out_grad_latents_unmasked'], 1e-3)
    masked = latents.grad * z['in_masks'].any(0)
    close(masked, z['out_grad_latents_masked'], 1e-3)
    close(latents.detach() - z['p_update_step'] * masked, z['out_latents_updated'], 1e-4)


def test_16_ditflow():
    z = load('16_extra_ditflow_moft')
    ref, target = clip(z['in_features_ref']), clip(z['in_features_target']).requires_grad_()
    channels = choose_channels(ChannelStats().add(remove_content(ref)).pca(), keep=z['p_prop_motion'], minimum=1)
    loss = motion_loss(motion_features(target, channels), motion_features(ref, channels), distance='cosine')
    close(loss.detach(), z['out_loss'])
    loss.backward()
    close(target.grad.movedim(-1, 1), z['out_grad_target'], 1e-4)


# -- the definitions, by hand

def random(*shape, seed=0):
    return torch.randn(*shape, generator=rng(seed))


def test_point_by_hand():
    m, ref, mask = random(5, 6, 8, 3), random(5, 6, 8, 3, seed=1), random(5, 6, 8, seed=2) > 0
    want = sum(float((m[f, y, x] - ref[f, y, x]).norm()) for f, y, x in mask.nonzero().tolist()) / int(mask.sum())
    close(motion_loss(m, ref, mask), want)
    curve = ref.mean((1, 2))
    close(motion_loss(m, curve, mask), motion_loss(m, curve[:, None, None].expand_as(m), mask))
    close(motion_loss(m, ref, weight=3.), 3 * motion_loss(m, ref))
    close(motion_loss(m, ref, distance='square'), (m - ref).square().mean())


@pytest.mark.parametrize('per', ['point', 'mean'])
def test_frames_that_count(per):
    m, ref = random(5, 6, 8, 3).requires_grad_(), random(5, 6, 8, 3, seed=1)
    some = motion_loss(m, ref, per=per, frames=range(2))
    some.backward()
    assert not m.grad[2:].any() and m.grad[:2].any()
    close(some.detach(), motion_loss(m[:2].detach(), ref[:2], per=per))
    close(motion_loss(m.detach(), ref, per=per, frames=slice(None, 2)), some.detach())


def test_region_that_is_not_there_in_a_frame():
    m, ref, mask = random(5, 6, 8, 3), random(5, 6, 8, 3, seed=1), torch.zeros(5, 6, 8, dtype=torch.bool)
    mask[1:3, 2:4, 2:4] = True
    close(motion_loss(m, ref, mask, per='mean'), motion_loss(m[1:3], ref[1:3], mask[1:3], per='mean'))
    with pytest.raises(ValueError, match='empty in all frames'):
        motion_loss(m, ref, mask, frames=[0, 4])


def test_no_nan_where_the_target_is_met():
    m = random(5, 6, 8, 3).requires_grad_()
    motion_loss(m, m.detach().clone()).backward()
    assert not m.grad.any()


def test_marginal_is_the_mean_loss_of_all_channels():
    x, ref, mask = random(5, 6, 8, 4), random(5, 6, 8, 4, seed=1), random(6, 8, seed=2) > 0
    means = motion_loss(remove_content(x), remove_content(ref), mask, per='mean')
    close(marginal_loss(x, ref, mask), 2 * means)
    a, b = (y[:, mask].mean(1) for y in (x, ref))
    pairs = sum(float(((a[i] - a[j]) - (b[i] - b[j])).square().sum()) for i in range(5) for j in range(5))
    close(marginal_loss(x, ref, mask, reduce='sum'), pairs)
    close(marginal_loss(x, ref), marginal_loss(x, ref.mean((1, 2))))


def test_points_by_hand():
    x = random(5, 6, 8, 4).requires_grad_()
    tracks = torch.tensor([[[12., 20.]] * 5, [[20., 28.]] * 5])
    tracks[0, :, 0] += 8 * torch.arange(5)
    loss = point_loss(x, tracks, GRID)
    at = x.detach()
    want = sum(float((at[f, 2, 1 + f] - at[0, 2, 1]).norm()) + float((at[f, 3, 2] - at[0, 3, 2]).norm()) for f in range(1, 5))
    close(loss.detach(), want / 8)
    close(point_loss(x, tracks, GRID, reduce='sum').detach(), want)
    loss.backward()
    assert not x.grad[0].any() and x.grad[1:].any()     # frame 0 is held fixed
    seen = torch.zeros(2, 5, dtype=torch.bool)
    seen[1, 2] = True
    close(point_loss(at, tracks, GRID, seen), (at[2, 3, 2] - at[0, 3, 2]).norm())


def test_between_tokens():
    x = random(5, 6, 8, 4)
    half = sample_features(x, torch.tensor([[[16., 20.]] * 5]), GRID)[0]
    close(half, (x[:, 2, 1] + x[:, 2, 2]) / 2)
    close(sample_features(x, torch.tensor([[[-9., 20.]] * 5]), GRID)[0], x[:, 2, 0])


# -- statistics and references

def planted(n=32, noise=.05, seed=0):
    g = rng(seed)
    response, ways = torch.zeros(2, 10), torch.randn(n, 2, generator=g)
    response[0, :3], response[1, 3:5] = torch.tensor([.5, -.3, .4]), torch.tensor([.6, -.2])
    u = torch.stack([displacement_of(w, GRID.times()) for w in ways])
    curves = u @ response + torch.randn(n, 1, 10, generator=g) * 3 + noise * torch.randn(n, 5, 10, generator=g)
    return response, u, curves


def test_statistics_find_what_was_planted():
    response, u, curves = planted()
    stats = motion_stats(curves, u)
    assert (stats.response - response).abs().max() < .02 and stats.facts['fit'] > .98
    some = motion_stats(curves, u, channels=[4, 0])
    close(some.response, stats.response[:, [4, 0]], 1e-4)
    curve = remove_content((u[0] @ response)[:, None, None])
    decoded = stats.read(curve)[:, 0, 0]
    assert (decoded - (u[0] - u[0].mean(0))).abs().max() < .1 * u[0].abs().max()
    assert motion_stats(curves, random(32, 5, 2, seed=3)).facts['fit'] < .5    # ways that are not theirs


@pytest.mark.parametrize('name', DIRECTIONS)
def test_synthesised_references_have_the_target_direction(name):
    response, u, curves = planted()
    stats = motion_stats(curves, u)
    target = displacement_of(name, GRID.times(), speed=.5)
    for how in ('response', 'range'):
        made = synthesise(stats, target, how)
        want = (target - target.mean(0)) @ response
        if name == 'still':
            assert not made.abs().max() > 1e-5
        else:
            moving = response[int(DIRECTIONS[name][0] == 0)].abs() > 0
            assert (F.cosine_similarity(made[:, moving], want[:, moving], dim=0) > .95).all()
        assert made.mean(0).abs().max() < 1e-5


def test_speed_and_turns():
    response, u, curves = planted()
    stats = motion_stats(curves, u)
    slow, fast = (synthesise(stats, displacement_of('right', GRID.times(), s)) for s in (.5, 1.))
    close(fast, 2 * slow)
    close(synthesise(stats, displacement_of('right', GRID.times(), .5), 'range'),
          synthesise(stats, displacement_of('right', GRID.times(), 1.), 'range'))
    back = displacement_of([[1, 0], [1, 0], [-1, 0], [-1, 0]], GRID.times())
    assert back[:, 0].tolist() == [0, 4, 8, 4, 0]
    for how in ('response', 'range'):
        assert int(synthesise(stats, back, how)[:, 0].argmax()) == 2
    range_ = synthesise(stats, back, 'range')[:, 0]
    close(range_.max() - range_.min(), stats.high[0] - stats.low[0])


# -- bad input

M = random(5, 6, 8, 3)


@pytest.mark.parametrize('given,found', [
    (dict(reference=M[:4]), 'as many frames'), (dict(reference=M[..., :2]), 'same channels'),
    (dict(reference=M[:, :3]), '5 frames, 6, 8, 3'), (dict(reference=M * torch.nan), 'NaN'),
    (dict(mask=torch.zeros(6, 8)), 'empty'), (dict(mask=torch.ones(8, 6)), r'\(8, 6\).*average it'),
    (dict(per='all'), "'point' or 'mean'"), (dict(distance='l2'), 'cosine'), (dict(frames=[9]), '0 to 4'),
    (dict(frames=[]), '0 to 4')])
def test_motion_loss_errors(given, found):
    with pytest.raises(ValueError, match=found):
        motion_loss(M, **{'reference': M, **given})


def test_other_errors():
    response, u, curves = planted(6)
    stats = motion_stats(curves, u)
    tracks = torch.zeros(2, 5, 2)
    for call, found in [
            (lambda: marginal_loss(M, M[:3]), 'same frames'), (lambda: marginal_loss(M, M, reduce='max'), "'sum'"),
            (lambda: point_loss(M, tracks[:, :3], GRID), '5 token frames'), (lambda: point_loss(M[:3], tracks, GRID), 'grid'),
            (lambda: point_loss(M, tracks * torch.nan, GRID), 'finite'),
            (lambda: point_loss(M, tracks, GRID, torch.zeros(2, 5)), 'seen'),
            (lambda: point_loss(M, tracks, GRID, reduce='max'), "'sum'"),
            (lambda: motion_stats(curves[:1], u[:1]), 'at least two'),
            (lambda: motion_stats(curves, u[:, :4]), 'same frames'),
            (lambda: motion_stats(curves, u * 0), 'nothing moves'),
            (lambda: motion_stats(curves * torch.nan, u), 'NaN'),
            (lambda: motion_stats(curves, u, channels=[10]), 'out of range'),
            (lambda: stats.read(M), '10'), (lambda: displacement_of('north', GRID.times()), "'right'"),
            (lambda: displacement_of((1, 2, 3), GRID.times()), r'\(dx, dy\)'), (lambda: synthesise(stats, u[0], 'line'), "'range'"),
            (lambda: synthesise(stats, u[0, :1]), 'displacement_of')]:
        with pytest.raises(ValueError, match=found):
            call()


def test_courses_of_real_features():
    x = random(4, 5, 6, 8, 10)
    stats = motion_stats([channel_curves(f, content='kept') for f in x], random(4, 5, 2, seed=4), channels=range(4))
    assert len(stats) == 4 and stats.read(motion_features(x[0], stats.index)).shape == (5, 6, 8, 2)
