"""Motion control: what is asked for, gradients against finite differences, families, hooks gone, clear errors."""
import functools
import math

import pytest
import torch
from planted import rng
from seam import FAMILIES, state, untouched

from vidlens.motion import steering
from vidlens.seam import hooks
from vidlens.seam.card import card_of, model_of, sites
from vidlens.seam.families import tiny
from vidlens.core.grid import Grid
from vidlens.seam.capturing import capture
from vidlens.seam.editing import edit
from vidlens.motion.losses import MotionStats
from vidlens.seam.run import generate, predict
from vidlens.core.results import load_result
from vidlens.core.tables import BestSite
from vidlens.motion.regions import Drag, MotionReference, Region, warped
from vidlens.motion.steering import Guide, Steered, control, measure_stats, motion_of

GRID = Grid(5, 8, 8, stride=8)
BOX = Region('right', (4, 8, 16, 24))


@functools.cache
def animatediff():
    return tiny('animatediff')


def lent(family):
    "A tiny pipeline that must be left as it was; those of UNets are not among the families of `seam`."
    if family != 'animatediff':
        yield from untouched(family)
        return
    made = animatediff()
    before = state(made)
    yield made
    assert state(made) == before and not hooks.OPEN_SEAMS and 'progress_bar' not in vars(made)


@pytest.fixture(params=[*FAMILIES, 'animatediff'])
def pipe(request):
    yield from lent(request.param)


@pytest.fixture(params=['cogvideox', 'animatediff'])
def kinds(request):
    "A transformer, and a UNet."
    yield from lent(request.param)


@pytest.fixture
def unet():
    yield from lent('animatediff')


@pytest.fixture
def cog():
    yield from untouched('cogvideox')


def steer(pipe, regions=BOX, prompt='a cat runs', num_inference_steps=3, steps=(1,), drags=(), site=None, on_step=None, **more):
    "A short guided run; what is no option of `Guide` is one of `generate`."
    how = {k: more.pop(k) for k in list(more) if k in Guide.__dataclass_fields__}
    return control(pipe, prompt, regions, drags=drags, num_inference_steps=num_inference_steps, site=site, on_step=on_step,
                   guide=Guide(steps=list(steps), **how), generation=dict(frames=9, size=(32, 32), guidance=1.) | more)


# -- what is asked for

def test_regions_go_along():
    r = Region('down', (8, 16, 24, 40), speed=.5)
    u, mask = r.displacement(GRID), r.mask(GRID)
    assert u[:, 1].tolist() == [0, 2, 4, 6, 8] and not u[:, 0].any()
    assert mask.shape == (5, 64, 64) and mask[0, 16:40, 8:24].all() and mask[0].sum() == mask[4].sum() == 24 * 16
    assert mask[4, 24:48, 8:24].all()
    stays = Region('down', (8, 16, 24, 40), speed=.5, follow=False).mask(GRID)
    assert torch.equal(stays[0], stays[4])
    assert Region('down').mask(GRID).all()


def test_the_camera_moves_the_picture_the_other_way():
    assert torch.equal(Region('pan up', speed=1.).displacement(GRID), Region('down', speed=1.).displacement(GRID))


def test_masks_of_rgb_frames():
    m = torch.zeros(17, 64, 64, dtype=torch.bool)
    m[0, 0, 0] = m[6, 5, 5] = True
    found = Region('up', m).mask(GRID)
    assert found[0].nonzero().tolist() == [[0, 0]] and found[2].nonzero().tolist() == [[5, 5]] and not found[[1, 3, 4]].any()


def test_drags():
    d = Drag((8, 8), (40, 24))
    assert d.track(GRID)[2].tolist() == [24., 16.] and d.mask(GRID)[3, 8, 8] and not d.mask(GRID)[3, 60, 8]
    path = torch.tensor([[8., 8], [8, 12], [8, 16], [8, 20], [8, 24]])
    assert torch.equal(Drag((8, 8), path=path).track(GRID), path)


def test_warped():
    video = torch.rand(5, 16, 24, 3, generator=rng()) * .1 + .2
    video[:, 4:8, 4:8] = torch.tensor([1., 0, 0])
    mask, u = torch.zeros(1, 16, 24, dtype=torch.bool), torch.arange(5)[None, :, None] * torch.tensor([3., 1])
    mask[0, 4:8, 4:8] = True
    out = warped(video, mask, u)
    for f in range(5):
        assert torch.equal(out[f, 4 + f:8 + f, 4 + 3 * f:8 + 3 * f], video[0, 4:8, 4:8])
    assert out[4, 4:8, 4:8].amax() < .4 and torch.equal(out[:, 12:, :4], video[:, 12:, :4])
    whole = warped(video, torch.ones_like(mask), u)
    assert torch.equal(whole[2, 2:, 6:], video[2, :-2, :-6])


# -- one step of guidance

def guide_of(pipe, **more):
    "The guide of a run, taken before its first step."
    taken = []

    class Enough(Exception):
        pass

    def take(self, z, at):
        taken.append((self, z.clone(), at))
        raise Enough

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steering._Guidance, '__call__', take)
        with pytest.raises(Enough):
            steer(pipe, **more)
    return taken[0]


@pytest.mark.parametrize('how', [dict(), dict(loss='smm'), dict(loss='amf'), dict(regions=(), drags=Drag((8, 8), (20, 20)))],
                         ids=str)
def test_gradient_is_the_slope(kinds, how):
    how = dict(how)
    regions = how.pop('regions', BOX)
    guide, z, at = guide_of(kinds, regions=regions, **how, **({'drag_steps': [1]} if 'drags' in how else {}))
    if guide.target is not None:
        guide.seen = guide._look_at(guide.target, at)
    grad, values = guide._gradient(z, at, None)
    step = torch.randn(z.shape, generator=rng(1)) * 1e-2
    if 'drags' in how:      # frame 0 is held fixed, so it has no slope
        step.select(card_of(kinds).axes.index('f'), 0)[:] = 0
    ends = [guide._gradient(z + s * step, at, None)[1]['loss'] for s in (-1, 1)]
    slope = (grad * step).sum()
    if 'drags' in how:
        assert math.isfinite(float(slope)) and grad.any()
    else:
        assert abs((ends[1] - ends[0]) / 2 - float(slope)) < .05 * abs(float(slope)) + 1e-5 and values['loss'] > 0


def test_checkpointing_finds_the_same_gradient(pipe):
    guide, z, at = guide_of(pipe)
    guide.seen = guide._look_at(guide.target, at)
    plain, _ = guide._gradient(z, at, None)
    guide.checkpoint = True
    again, _ = guide._gradient(z, at, None)
    assert torch.allclose(plain, again, atol=1e-6 * float(plain.abs().max()) + 1e-12) and plain.any()
    assert not model_of(pipe).is_gradient_checkpointing


def test_checkpointing_with_shared_keys(kinds):
    guide, z, at = guide_of(kinds, share_kv='gradient')
    guide.seen, shared = guide._look_at(guide.target, at), guide.kv.at(at)
    plain, _ = guide._gradient(z + .1, at, shared)
    alone, _ = guide._gradient(z + .1, at, None)
    guide.checkpoint = True
    again, _ = guide._gradient(z + .1, at, shared)
    assert torch.allclose(plain, again, atol=1e-6 * float(plain.abs().max()))
    assert not torch.allclose(plain, alone, atol=1e-3 * float(plain.abs().max()))


def test_shared_keys_of_itself_change_nothing(pipe):
    "Where the steered latents are still the unguided ones, so are keys and values."
    guide, z, at = guide_of(pipe, share_kv='gradient')
    guide.seen = guide._look_at(guide.target, at)
    shared, alone = (guide._gradient(z, at, s)[1]['loss'] for s in (guide.kv.at(at), None))
    assert abs(shared - alone) < 1e-5 * alone


# -- whole runs

def test_it_goes_down_and_only_inside(pipe):
    losses, steps = [], []
    out = steer(pipe, repeats=3, rate=.02, on_repeat=losses.append, on_step=lambda i, n: steps.append((i, n)))
    assert [t['repeat'] for t in losses] == [0, 1, 2] and out.losses == losses and {t['step'] for t in losses} == {1}
    assert losses[-1]['loss'] < losses[0]['loss']
    n = 2 * out.facts['num_inference_steps']      # of the unguided run and then of the guided one
    assert steps == [(i + 1, n) for i in range(n)]
    assert out.video.shape == out.unguided.shape == (9, 32, 32, 3) and not torch.equal(out.video, out.unguided)
    frames = 9 if card_of(pipe).images else 3
    assert out.masks.shape == (1, frames, 32, 32) and out.change.shape == (2,) and out.facts['guided'] == [1]


def test_what_is_left_alone(pipe):
    "Latents change where the region comes by, in the frames asked for, by about `rate` a repeat; nothing else does."
    guide, z, at = guide_of(pipe, first_frames=1)
    moved = (guide(z, at) - z).movedim(card_of(pipe).axes.index('f'), 0)   # frames first, places last
    inside = BOX.mask(Grid(2, 4, 4, stride=8)).any(0)
    small = torch.nn.functional.adaptive_max_pool2d(inside.float()[None], z.shape[-2:])[0] > 0
    assert moved[0][..., small].any() and not moved[0][..., ~small].any() and not moved[1:].any()
    assert abs(float(moved[0][..., small].square().mean().sqrt()) - guide.guide.rate * 2) < guide.guide.rate * 2
    assert torch.equal(z, guide_of(pipe, first_frames=1)[1])


def test_checkpointing_makes_the_same_video(pipe):
    plain, again = (steer(pipe, repeats=2, checkpoint=c) for c in (False, True))
    assert (plain.video - again.video).abs().max() < 1e-4 and again.facts['checkpoint']


def test_no_rate_no_change(pipe):
    "The guided run is the pipeline's own, bit for bit, when the latents are moved by nothing."
    for more in (dict(), dict(checkpoint=True, share_kv='gradient')):
        out = steer(pipe, rate=0., steps=(0, 1, 2), guidance=None, repeats=1, **more)
        assert torch.equal(out.video, out.unguided)


@pytest.mark.parametrize('share', ['gradient', 'both'])
def test_sharing_runs(pipe, share):
    out = steer(pipe, share_kv=share, repeats=1, guidance=3.)
    assert torch.isfinite(out.video).all() and out.facts['share_kv'] == share


def test_sharing_both_without_guidance_changes_nothing(kinds):
    out = steer(kinds, rate=0., share_kv='both')
    assert (out.video - out.unguided).abs().max() < 1e-4


def test_several_regions_points_and_the_camera(kinds):
    out = steer(kinds, [BOX, Region((0, -1.), (16, 8, 28, 24)), Region('pan left')], drags=[Drag((8, 8), (8, 20))], drag_steps=[2],
                repeats=2)
    assert [set(t) for t in out.losses] == [{'step', 'repeat', 'motion', 'loss'}] * 2 + [{'step', 'repeat', 'drag', 'loss'}] * 2
    assert out.masks.shape[0] == out.displacements.shape[0] == len(out.requested) == 4


def test_released_settings(cog):
    stats = MotionStats(torch.arange(32), -torch.ones(32), torch.ones(32), torch.randn(2, 32, generator=rng()),
                        torch.randn(32, 2, generator=rng(1)))
    for how in (dict(reference='range', per='mean', channels=[3, 5], normalise=False, rate=.5), dict(loss='readout'),
                dict(reference='response', channels=range(8)), dict(loss='smm', reference='response')):
        out = steer(cog, stats=stats, repeats=1, **how)
        assert out.losses[0]['loss'] > 0


def test_a_clip_as_reference(cog):
    clip = torch.rand(9, 32, 32, 3, generator=rng())
    whole = motion_of(cog, clip, num_inference_steps=3, refine=None)
    curve = motion_of(cog, clip, BOX.where, num_inference_steps=3, refine=0)
    assert whole.m.shape == (3, 4, 4, 32) and whole.error is None and whole.m.mean(0).abs().max() < 1e-5
    assert curve.m.shape == (3, 32) and curve.error > 0 and 'error' in repr(curve)
    for loss in ('moft', 'smm'):
        assert steer(cog, Region(curve, BOX.where), loss=loss, repeats=1).losses[0]['loss'] > 0
    assert steer(cog, Region(whole), repeats=1).losses[0]['loss'] > 0
    with pytest.raises(ValueError, match='4 token frames'):
        steer(cog, Region(MotionReference(torch.zeros(4, 32), 0, 0), BOX.where))


def test_vanilla_features(kinds):
    "With content kept, what is compared holds the mean over frames; the guidance is another one."
    bare, full = (steer(kinds, repeats=1, content=c, channels=range(8)) for c in ('removed', 'kept'))
    assert full.losses[0]['loss'] != bare.losses[0]['loss'] and full.facts['content'] == 'kept'
    clip = torch.rand(9, 32, 32, 3, generator=rng())
    ref = motion_of(kinds, clip, num_inference_steps=3, refine=None)
    kept = ref.of('kept')
    assert kept.mean(0).abs().max() > .01 and torch.allclose(kept - kept.mean(0), ref.m, atol=1e-5)
    guide, z, at = guide_of(kinds, regions=Region(ref), content='kept', channels=range(8))
    looked = guide._look_at(z, at)
    want = (looked[..., :8] - kept[..., :8]).norm(dim=-1).mean()
    found = steering._region_loss(guide, guide.regions[0], looked, [], grid_like(looked, guide.grid))
    assert abs(float(found) - float(want)) < 1e-4
    bare, full = (steer(kinds, Region(ref), content=c, channels=range(8), repeats=1).losses for c in ('removed', 'kept'))
    assert bare != full       # one reference serves both
    for how in (dict(reference='range'), dict(loss='smm'), dict(loss='amf')):
        with pytest.raises(ValueError, match='compares features of clips'):
            steer(kinds, content='kept', **how)


def grid_like(x, grid):
    return Grid(*x.shape[:3], stride=grid.height // x.shape[1])


def test_captures_of_the_user_see_the_pipeline_only(cog):
    seen, edited = [], []
    with capture(cog, 'q', layers=0, probe=lambda site, q: seen.append(site.step)):
        with edit(cog, 'o', lambda site, o: edited.append(site.step) or o, layers=0):
            steer(cog, repeats=2)
    assert seen == [0, 1, 2] * 2 and len(edited) > 6


def test_hooks_gone_whatever_is_raised(pipe):
    class Stop(Exception):
        pass

    def stop(where):
        def tell(*_):
            raise Stop
        return {where: tell}

    for more in (dict(), dict(checkpoint=True), dict(share_kv='both')):
        for where in ('on_repeat', 'on_step'):
            with pytest.raises(Stop):
                steer(pipe, **stop(where), **more)
            assert not hooks.OPEN_SEAMS


# -- UNets

UP = 'up_blocks.1'


def test_the_published_layer_of_a_unet(unet):
    up = next(r['layer'] for r in sites(unet) if r['path'] == UP)
    by_itself, by_path, by_number = (steer(unet, repeats=1, **how) for how in (dict(), dict(layer=UP), dict(layer=up)))
    assert by_itself.facts['layer'] == up and by_itself.facts['guided'] == [1]
    assert torch.equal(by_itself.video, by_path.video) and by_path.losses == by_number.losses == by_itself.losses
    attends = steer(unet, repeats=1, loss='amf').facts['layer']
    assert attends < up and 'q' in sites(unet)[attends]['kinds'].split()
    with pytest.raises(ValueError, match=r"layers='up_blocks.7' is no layer"):
        steer(unet, layer='up_blocks.7')
    with pytest.raises(ValueError, match='shows tq tk tv to, not hidden'):
        steer(unet, layer=1)


@pytest.mark.parametrize('path', ['mid_block', 'up_blocks.0', UP, 'up_blocks.2'])
def test_every_layer_has_its_own_grid(unet, path):
    "Also one whose last row of tokens hangs over the edge of the picture (40 px in tokens of 16)."
    for how in (dict(), dict(drags=Drag((8, 8), (16, 30)), drag_layer=path, drag_steps=[1]), dict(reference='range')):
        n = sites(unet)[card_of(unet).layer(unet.unet, path)]['channels']
        stats = MotionStats(torch.arange(n), -torch.ones(n), torch.ones(n), torch.randn(2, n, generator=rng()),
                            torch.randn(n, 2, generator=rng(1)))
        out = steer(unet, Region('down', (4, 8, 16, 40)), layer=path, size=(40, 24), repeats=2, rate=.02, stats=stats, **how)
        assert out.losses[1]['loss'] < out.losses[0]['loss'] and out.masks.shape == (1 + ('drags' in how), 9, 40, 24)


def test_features_are_those_of_a_plain_hook(unet):
    "What the guide compares is the output of the UNet block, frame by frame, of the row with the prompt."
    guide, z, at = guide_of(unet, guidance=4.)
    seen = []
    handle = unet.unet.up_blocks[1].register_forward_hook(lambda m, a, out: seen.append(out))
    found = guide._look_at(guide.target, at)
    handle.remove()
    assert torch.equal(seen[0].movedim(1, -1), found) and found.shape == (9, 4, 4, 16)


def test_references_of_a_unet(unet):
    stats = measure_stats(unet, UP, 1, 3, n=4, size=(9, 32, 32))
    assert len(stats) == 16 and stats.facts['layer'] == card_of(unet).layer(unet.unet, UP)
    clip = torch.rand(9, 32, 32, 3, generator=rng())
    whole = motion_of(unet, clip, num_inference_steps=3, refine=None)
    curve = motion_of(unet, clip, BOX.where, num_inference_steps=3, refine=0)
    assert whole.m.shape == (9, 4, 4, 16) and curve.m.shape == (9, 16) and curve.error > 0
    for region, how in ((BOX, dict(stats=stats, reference='range', per='mean', channels=[3, 5], normalise=False, rate=.5)),
                        (Region('pan up'), dict(reference='response')), (Region(whole), {}), (Region(curve, BOX.where), {})):
        assert steer(unet, region, repeats=1, **({'stats': stats} | how)).losses[0]['loss'] > 0


def sparse_of(unet):
    from diffusers import AnimateDiffSparseControlNetPipeline, SparseControlNetModel

    torch.manual_seed(0)
    net = SparseControlNetModel(
        block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=16,
        num_attention_heads=2, motion_num_attention_heads=2, conditioning_channels=3, use_simplified_condition_embedding=False,
        conditioning_embedding_out_channels=(4, 8, 8)).eval().requires_grad_(False)
    for p in net.parameters():
        p.data += .05 * torch.randn_like(p)   # its outputs start at zero
    parts = {k: v for k, v in unet.components.items() if k not in ('image_encoder', 'feature_extractor')}
    made = AnimateDiffSparseControlNetPipeline(**parts, controlnet=net)
    made.set_progress_bar_config(disable=True)
    return made


def test_an_image_is_animated(unet):
    "SparseCtrl: the forward beside the run is what the run itself does, its control net included."
    pipe = sparse_of(unet)
    before = state(pipe)
    image = dict(conditioning_frames=torch.rand(1, 3, 32, 32, generator=rng()), controlnet_frame_indices=[0])
    guide, z, at = guide_of(pipe, guidance=3., **image)
    with capture(pipe, 'hidden', layers=UP, steps=1) as tape:
        generate(pipe, 'a cat runs', 0, 3, guidance=3., frames=9, size=(32, 32), **image)
    with capture(pipe, 'hidden', layers=UP) as alone, torch.no_grad():
        predict(pipe, z, at, guide.given(z, at), 3)
    with capture(pipe, 'hidden', layers=UP) as without, torch.no_grad():
        predict(pipe, z, at, guide.given.text, 3)
    layer = card_of(pipe).layer(pipe.unet, UP)
    run, ours, bare = (t.get('hidden', layer) for t in (tape, alone, without))
    assert (run - ours).abs().max() < 1e-4 * run.abs().max() < (run - bare).abs().max()
    out = steer(pipe, repeats=2, share_kv='both', rate=.02, **image)
    assert not torch.equal(out.video, out.unguided) and out.losses[1]['loss'] < out.losses[0]['loss']
    still = steer(pipe, rate=0., guidance=3., **image)
    assert torch.equal(still.video, still.unguided) and state(pipe) == before


def test_pipelines_that_do_not_fit(unet):
    from diffusers import AnimateDiffPipeline, EulerDiscreteScheduler

    parts = {k: v for k, v in unet.components.items() if k != 'scheduler'}
    other = AnimateDiffPipeline(**parts, scheduler=EulerDiscreteScheduler.from_config(unet.scheduler.config))
    with pytest.raises(ValueError, match='EulerDiscreteScheduler scales.*DDIMScheduler'):
        steer(other)
    other = AnimateDiffPipeline(**parts, scheduler=unet.scheduler)
    other.enable_free_init(num_iters=2)
    with pytest.raises(ValueError, match='disable_free_init'):
        steer(other)
    other.disable_free_init()
    other.controlnet = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match='Linear.*SparseControlNetModel only'):
        steer(other)


def test_on_the_world():
    pipe = next(untouched('cogvideox'))
    stats = measure_stats(pipe, 1, 1, 3, n=4, size=(9, 32, 32))
    assert len(stats) == 32 and stats.facts['layer'] == 1 and measure_stats(pipe, 1, 1, 3, n=4, size=(9, 32, 32)) is stats
    camera = measure_stats(pipe, 1, 1, 3, camera=True, n=4, size=(9, 32, 32))
    assert camera.facts['camera'] and not torch.equal(camera.response, stats.response)


def test_measured_motion():
    ground, thing = torch.rand(64, 64, 3, generator=rng()) * .2, torch.rand(20, 20, 3, generator=rng(1))
    still, video = ground.repeat(17, 1, 1, 1), ground.repeat(17, 1, 1, 1)
    for f in range(17):
        still[f, 20:40, 10:30], video[f, 20:40, 10 + f:30 + f] = thing, thing
    region = Region('right', (10, 20, 30, 40), speed=1.)
    out = Steered(video, still, torch.zeros(1), [region], region.mask(GRID)[None], region.displacement(GRID)[None], [], {})
    row, = out.measured()
    assert (row['moved'] - torch.tensor([1., 0])).abs().max() < .1 and row['before'].abs().max() < .1 and row['as_requested']
    assert not Steered(still, video, torch.zeros(1), [region], out.masks, out.displacements, [], {}).measured()[0]['as_requested']
    inside, outside = out.change
    assert inside > 5 * outside
    unseen = torch.zeros(17, 64, 64, 3)
    row, = Steered(unseen, unseen, torch.zeros(1), [region], out.masks, out.displacements, [], {}).measured()
    assert row['moved'].isnan().all() and row['as_requested'] is None


# -- bad input

@pytest.mark.parametrize('regions,found', [
    (Region('right', (4, 4, 40, 8)), '32x32 px'), (Region([(1., 0)] * 7), r'3 token frames'),
    (Region('right', (8, 4, 4, 8)), 'x0 < x1'), (Region('right', torch.zeros(32, 32)), 'empty'),
    (Region('right', torch.ones(16, 16)), r'\(16, 16\).*9 frames of 32x32'),
    (Region('pan right', (4, 4, 8, 8)), 'leave the box out'), (Region((1, 2, 3), (4, 4, 8, 8)), r'\(dx, dy\)'),
    ((), 'nothing is requested')])
def test_regions_that_do_not_fit(cog, regions, found):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ValueError, match=found):
        patch.setattr(steering, 'generate', lambda *args, **run: pytest.fail('the model ran'))
        steer(cog, regions)


@pytest.mark.parametrize('make,found', [
    (lambda: Region('north', (4, 4, 8, 8)), "'north' is unknown: use 'right'"), (lambda: Region('pan sideways'), "'sideways'"),
    (lambda: Region('right', speed=0), r"speed=0 px .*above 0.*Region\('still', box\)"),
    (lambda: Region('right', speed=math.nan), 'speed=nan'), (lambda: Region('right', speed=math.inf), 'speed=inf'),
    (lambda: Drag((32, 32)), r'Drag\(\(32, 32\)\) has no end: give one')])
def test_what_moves_nothing_is_refused_as_it_is_made(make, found):
    with pytest.raises(ValueError, match=found):
        make()


def test_steps_by_the_pipelines_own_name(cog):
    says = 'num_inference_steps is an argument of control, not of generation: .*num_inference_steps=3'
    with pytest.raises(TypeError, match=says):
        control(cog, 'a cat runs', BOX, generation=dict(num_inference_steps=3))


def test_two_latent_frames_in_a_token():
    "The guide's latents are those of the pipeline's own run, with what it puts in front of the first."
    made = tiny('cogvideox')
    torch.manual_seed(0)
    made.transformer = type(made.transformer).from_config({**made.transformer.config, 'patch_size_t': 2, 'patch_bias': False,
                                                           'sample_frames': 17, '_use_default_values': []}).eval()
    for how in (dict(), dict(loss='amf', share_kv='both')):
        out = steer(made, frames=17, **how)
        assert out.latents.shape == (1, 6, 4, 8, 8) and out.masks.shape[1] == 3 and out.losses and out.change[0] > 0
        assert out.video.shape == out.unguided.shape == (17, 32, 32, 3)


@pytest.mark.parametrize('how,found', [
    (dict(loss='l2'), "'moft'"), (dict(content='none'), "'kept'"), (dict(reference='x'), "'warped'"),
    (dict(share_kv='all'), "'both'"),
    (dict(rate=math.nan), 'rate=nan must be a number'),
    (dict(repeats=0), 'at least 1'), (dict(layer=9), '3 layer'), (dict(steps=[7]), '3 steps'),
    (dict(channels=[99]), 'out of range'),
    (dict(first_frames=9), '1 to 3'), (dict(drags=Drag((8, 8), (99, 8))), '32x32'), (dict(latents=1), 'its own latents')])
def test_options_that_do_not_fit(cog, how, found):
    with pytest.raises(ValueError, match=found):
        steer(cog, **how)


def test_gradients_that_are_not_finite(cog):
    def broken(site, x):
        return x * math.nan if torch.is_grad_enabled() else x

    with edit(cog, 'hidden', broken, layers=0, steps=[1]):
        with pytest.raises(ValueError, match='NaN or infinite'):
            steer(cog)


def test_a_site_gives_the_layer(cog):
    site = BestSite(1, 2, 3)
    assert steer(cog, site=site, repeats=1).facts['layer'] == 1
    assert motion_of(cog, torch.rand(9, 32, 32, 3), site=site, refine=None).step == 2
    with pytest.raises(ValueError, match='leave out layers'):
        steer(cog, site=site, layer=2)


def test_results_survive_a_file(cog, tmp_path):
    clip = torch.rand(9, 32, 32, 3, generator=rng())
    ref = motion_of(cog, clip, BOX.where, num_inference_steps=3, refine=None)
    out = steer(cog, [Region(ref, BOX.where), Region('down')], repeats=1, drags=Drag((8, 8), (20, 20)), drag_steps=[1])
    back = load_result(out.save(tmp_path / 'out.safetensors'))
    assert torch.equal(back.video, out.video) and back.losses == out.losses and back.facts == out.facts
    assert torch.equal(back.requested[0].motion.m, ref.m) and back.requested[1:] == out.requested[1:]
    assert list(out.to_dataframe()) == ['step', 'repeat', 'motion', 'drag', 'loss'] and len(out.to_dataframe()) == 1
    assert out.to_xarray().masks.shape == out.masks.shape and ref.to_xarray().m.shape == ref.m.shape and '\n' not in repr(out)
    stats = measure_stats(cog, 1, 1, 3, n=4, size=(9, 32, 32))
    again = load_result(stats.save(tmp_path / 's.safetensors'))
    assert torch.equal(again.response, stats.response) and repr(again) == repr(stats)


def test_published_values(cog):
    guide = Guide.published(num_inference_steps=25)
    assert list(guide.steps) == list(range(3, 12)) and (guide.repeats, guide.rate, guide.normalise) == (2, .5, False)
    assert (guide.reference, guide.per, guide.content) == ('range', 'point', 'removed')
    assert (guide.first_frames, guide.share_kv) == (8, 'both')


def test_other_things_that_are_no_region(cog):
    with pytest.raises(TypeError, match='Region or Drag'):
        steer(cog, ['right'])
    with pytest.raises(ValueError, match="refine='noise' must be a whole number"):
        motion_of(cog, torch.rand(5, 32, 32, 3), refine='noise')
    with pytest.raises(ValueError, match='regions'):
        warped(torch.rand(5, 8, 8, 3), torch.ones(8, 8).bool(), torch.zeros(1, 5, 2))
    with pytest.raises(ValueError, match='too few'):
        measure_stats(cog, n=2)
