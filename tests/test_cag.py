"""Cross-attention guidance: attention against dense tables, runs against three branches by hand, hooks gone."""
import math
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from seam import FAMILIES, LAYERS, attention, blocks, call, combinations, family_of, kept_hooks, pipe_of, untouched

from vidlens import world
from vidlens.seam import hooks
from vidlens.seam.card import card_of
from vidlens.seam.families import tiny
from vidlens.motion.cag import CAG, Movement, movement, own_frame_attention
from vidlens.seam.capturing import capture
from vidlens.seam.editing import edit
from vidlens.seam.hooks import CaptureError, quiet, until_enough
from vidlens.seam.run import generate, renoise

SCALE = {'cogvideox': 4.0, 'wan': 4.0, 'hunyuanvideo': 3.0}   # of classifier-free guidance, see seam.call


@pytest.fixture(params=FAMILIES)
def pipe(request):
    yield from untouched(request.param)


# -- attention of tensors

def sees(n, video, frames):
    "(queries, keys) bool: what a token may attend to."
    at = torch.full((n,), -1)
    at[video] = torch.arange(frames).repeat_interleave(len(at[video]) // frames)
    return (at == at[:, None]) | (at < 0) | (at < 0)[:, None]


def dense(q, k, v, seen, renormalise, mask=None, scale=None):
    logits = (q @ k.transpose(-1, -2)) * (q.shape[-1] ** -.5 if scale is None else scale)
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
    weights = logits.masked_fill(~seen, -torch.inf).softmax(-1) if renormalise else logits.softmax(-1) * seen
    return weights @ v


PLACES = {'first': slice(3, 15), 'last': slice(0, 12), 'both': slice(2, 14), 'none': slice(None)}


def qkv(place, seed=0, lead=(2, 3)):
    torch.manual_seed(seed)
    return torch.randn(3, *lead, 12 if place == 'none' else 15, 8)


@pytest.mark.parametrize('place,renormalise,frames', combinations(PLACES, [True, False], [1, 3, 12]))
def test_against_a_table_of_all_weights(place, renormalise, frames):
    q, k, v = qkv(place)
    want = dense(q, k, v, sees(q.shape[2], PLACES[place], frames), renormalise)
    got = own_frame_attention(q, k, v, frames, PLACES[place], renormalise=renormalise)
    assert torch.allclose(got, want, atol=1e-6) and got.shape == q.shape
    q, k, v = qkv(place, lead=(3,))
    got = own_frame_attention(q, k, v, frames, PLACES[place], renormalise=renormalise, scale=.9)
    assert torch.allclose(got, dense(q, k, v, sees(q.shape[1], PLACES[place], frames), renormalise, scale=.9), atol=1e-6)


@pytest.mark.parametrize('renormalise,kind', combinations([True, False], ['keys', 'rows', 'heads', 'added', 'table']))
def test_masks(renormalise, kind):
    q, k, v = qkv('last')
    pad = torch.ones(2, 1, 1, 15, dtype=torch.bool)
    pad[0, ..., 13:] = False
    rows = pad.expand(2, 1, 15, 15).clone()
    rows[:, :, 2:5, 6] = False
    by_head = rows.repeat(1, 3, 1, 1)
    by_head[:, 1, :, 12] = False
    mask = {'keys': pad, 'rows': rows, 'heads': by_head, 'added': torch.randn(2, 3, 15, 15),
            'table': rows[0, 0]}[kind]
    seen = sees(15, PLACES['last'], 3)
    want = dense(q, k, v, seen, renormalise, mask)
    assert torch.allclose(own_frame_attention(q, k, v, 3, PLACES['last'], renormalise=renormalise, mask=mask), want,
                          atol=1e-6)
    some = own_frame_attention(q, k, v, 3, PLACES['last'], renormalise=renormalise, mask=mask, heads=[2, 0])
    whole = dense(q, k, v, torch.ones_like(seen), True, mask)
    assert torch.allclose(some[:, [0, 2]], want[:, [0, 2]], atol=1e-6)
    assert torch.allclose(some[:, 1], whole[:, 1], atol=1e-6)


@pytest.mark.parametrize('renormalise', [True, False])
def test_other_frames_do_not_reach_a_frame(renormalise):
    q, k, v = qkv('first')
    video = PLACES['first']
    before = own_frame_attention(q, k, v, 3, video, renormalise=renormalise)
    v2 = v.clone()
    v2[..., 3:7, :] += 10   # the values of frame 0
    after = own_frame_attention(q, k, v2, 3, video, renormalise=renormalise)
    assert torch.equal(before[..., 7:, :], after[..., 7:, :]) and not torch.equal(before[..., 3:7, :], after[..., 3:7, :])
    assert not torch.equal(before[..., :3, :], after[..., :3, :])   # text still sees all
    plain = F.scaled_dot_product_attention(q, k, v)
    assert torch.allclose(before[..., :3, :], plain[..., :3, :], atol=1e-6)
    assert torch.allclose(own_frame_attention(q, k, v, 1, video, renormalise=renormalise), plain, atol=1e-6)


def test_no_table_of_all_tokens(monkeypatch):
    "Attention is asked for one frame's queries at a time, and renormalised for the keys that count only."
    shapes, real = [], F.scaled_dot_product_attention

    def spy(q, k, v, mask=None, **more):
        shapes.append((q.shape[-2], k.shape[-2], mask))
        return real(q, k, v, mask, **more)

    monkeypatch.setattr(F, 'scaled_dot_product_attention', spy)
    own_frame_attention(*qkv('first'), 4, PLACES['first'])
    assert shapes == [(3, 6, None)] * 4 + [(3, 15, None)]


def test_gradients_flow():
    q, k, v = (x.requires_grad_() for x in qkv('first').clone().unbind())
    own_frame_attention(q, k, v, 3, PLACES['first'], heads=[1]).square().sum().backward()
    assert all(x.grad.isfinite().all() and x.grad.abs().sum() > 0 for x in (q, k, v))


@pytest.mark.parametrize('frames,video,keys', [(5, slice(3, 15), 15), (0, slice(None), 15), (3, slice(15, 15), 15),
                                              (3, slice(None), 14)])
def test_wrong_shapes(frames, video, keys):
    q, k, v = qkv('first')
    with pytest.raises(ValueError, match='as many tokens in each frame'):
        own_frame_attention(q, k[..., :keys, :], v[..., :keys, :], frames, video)


# -- runs against three branches by hand

@contextmanager
def dense_in(pipe, layers, heads, renormalise):
    "Attention of these layers by tables of all weights, for as long as the block is open."
    on, real, grid = [], F.scaled_dot_product_attention, card_of(pipe).grid(pipe, 5, 32, 32)
    first = card_of(pipe).text == 'first'

    def attend(query, key, value, attn_mask=None, **more):
        q, k, v = query, key, value
        n, full = q.shape[2], real(q, k, v, attn_mask, **more)
        if not on:
            return full
        video = slice(n - grid.n, n) if first else slice(0, grid.n)
        mask = attn_mask if attn_mask is None or attn_mask.dtype == torch.bool else attn_mask.float()
        own = dense(q, k, v, sees(n, video, grid.frames), renormalise, mask)
        some = list(range(q.shape[1])) if heads is None else heads
        full[:, some] = own[:, some]
        return full

    chosen = [attention(blocks(pipe)[i]) for i in layers]
    undo = [f for m in chosen for f in (m.register_forward_pre_hook(lambda m, a: on.append(1)),
                                        m.register_forward_hook(lambda m, a, out: on.clear()))]
    F.scaled_dot_product_attention = attend
    try:
        yield
    finally:
        F.scaled_dot_product_attention = real
        for handle in undo:
            handle.remove()


def by_hand(pipe, patch, scale, layers, steps=(0, 1), heads=None, renormalise=True, guided=False, rows=1):
    "Latents of a run in which each forward's output is made of three branches."
    model, s, seen = pipe.transformer, SCALE[family_of(pipe)], []
    forward, batched = model.forward, card_of(pipe).batched

    def perturbed(given):
        with dense_in(pipe, layers, heads, renormalise):
            return forward(**given)[0]

    def three(**given):
        out = forward(**given)[0]
        if guided and not batched and len(seen) % 2:    # the second call of a pair: such that s makes eps of both
            seen.append(1)
            c, p = three.last
            eps = out + s * (c - out) + (0 if p is None else scale * (c - p))
            return ((eps - s * c) / (1 - s),)
        step = len(seen) // (2 if guided and not batched else 1)
        seen.append(1)
        if guided and batched:
            u, c = out.chunk(2)
            p = perturbed({k: x[rows:] if isinstance(x, torch.Tensor) else x for k, x in given.items()})
            eps = u + s * (c - u) + (scale * (c - p) if step in steps else 0)
            return (torch.cat([eps, eps]),)
        p = perturbed(given) if step in steps else None
        if guided:
            three.last = out, p
            return (out,)
        return (out if p is None else out + scale * (out - p),)

    with patch.context() as here:
        here.setattr(model, 'forward', three)
        return call(pipe, ['a cat runs', 'two dogs'][:rows], guided=guided)


CASES = [dict(layers=[1]), dict(layers=[0, -1], renormalise=False), dict(layers=[2], heads=[1], scale=-.5),
         dict(layers=[1], steps=[1])]


@pytest.mark.parametrize('guided', [False, True])
@pytest.mark.parametrize('case', CASES, ids=str)
def test_three_branches_by_hand(pipe, monkeypatch, case, guided):
    case = {'scale': 1.5} | case
    rows = 2 if case['layers'] == [1] else 1
    want = by_hand(pipe, monkeypatch, guided=guided, rows=rows, **case)
    plain = call(pipe, ['a cat runs', 'two dogs'][:rows], guided=guided)
    with CAG(pipe, **case):
        got = call(pipe, ['a cat runs', 'two dogs'][:rows], guided=guided)
    moved = (want - plain).abs().max()
    assert (got - want).abs().max() < 1e-2 * moved and (got - want).abs().max() < 2e-4, (moved, (got - want).abs().max())


def test_edits_are_part_of_the_model_that_is_perturbed(monkeypatch):
    pipe = pipe_of('cogvideox')

    def double(site, x):
        return 2 * x

    for kind in ('q', 'o', 'hidden'):
        with edit(pipe, kind, double, layers=1):
            want = by_hand(pipe, monkeypatch, 1.0, [1]) if kind == 'hidden' else by_hand_edited(pipe, monkeypatch)
        for first in (True, False):
            ways = [lambda kind=kind: edit(pipe, kind, double, layers=1), lambda: CAG(pipe, layers=1)]
            with ways[not first](), ways[first]():
                got = call(pipe, steps=1 + (kind == 'hidden'))
            assert torch.allclose(got, want, atol=1e-5), (kind, first)


def by_hand_edited(pipe, patch):
    "One step without guidance, where the forward runs twice within the open edit."
    model, real = pipe.transformer, pipe.transformer.forward
    attend, seen = hooks._Seam.attend, []

    def own(self, group, layer, func, args, kwargs):
        def dense_one(query, key, value, **more):
            n, call = query.shape[2], self.call
            return dense(query, key, value, sees(n, call.video, call.grid.frames), True)
        return attend(self, group, layer, dense_one if layer == 1 and seen else func, (), dict(zip(
            ('query', 'key', 'value', 'attn_mask', 'dropout_p', 'is_causal'), args)) | kwargs)

    def twice(**given):
        c = real(**given)[0]
        seen.append(1)
        return (2 * c - real(**given)[0],)

    with patch.context() as here:
        here.setattr(model, 'forward', twice)
        here.setattr(hooks._Seam, 'attend', own)
        return call(pipe, steps=1)


# -- what leaves the run as it was

@pytest.mark.parametrize('guided', [False, True])
@pytest.mark.parametrize('options', [dict(scale=0), dict(scale=0.0, steps=1), dict(steps=[]), dict(steps=range(0))], ids=str)
def test_nothing_asked_is_bit_identical(pipe, options, guided):
    plain = call(pipe, guided=guided)
    with CAG(pipe, layers=1, **options):
        assert torch.equal(plain, call(pipe, guided=guided))


def test_steps_before_the_schedule_are_plain(pipe):
    kept = {}

    def keep(name):
        def f(p, i, t, given):
            kept[name, i] = given['latents'].clone()
            return {}
        return f

    for guided in (False, True):
        call(pipe, steps=3, guided=guided, callback_on_step_end=keep('plain'))
        with CAG(pipe, layers=[0, 1], steps=-1):
            call(pipe, steps=3, guided=guided, callback_on_step_end=keep('cag'))
        equal = [torch.equal(kept['plain', i], kept['cag', i]) for i in range(3)]
        assert equal == [True, True, False]


def test_forwards(pipe):
    "One more in each guided step, of the conditional rows only."
    seen = []
    handle = pipe.transformer.register_forward_pre_hook(
        lambda m, a, given: seen.append(len(given['hidden_states'])), with_kwargs=True)
    with CAG(pipe, layers=1, steps=slice(1, None)):
        call(pipe, ['a cat runs', 'two dogs'], steps=3, guided=True)
    handle.remove()
    assert seen == ([4, 4, 2, 4, 2] if card_of(pipe).batched else [2, 2, 2, 2, 2, 2, 2, 2])


def test_a_dict_of_heads(pipe):
    with CAG(pipe, layers={0: 1, -1: None}):
        one = call(pipe)
    for layers, heads, same in (([0, LAYERS[family_of(pipe)] - 1], None, False), ([0], [1], False)):
        with CAG(pipe, layers=layers, heads=heads):
            assert torch.equal(one, call(pipe)) == same
    with CAG(pipe, layers={0: [0, 1], -1: [0, 1]}):
        both = call(pipe)
    with CAG(pipe, layers=[0, -1]):
        assert torch.allclose(both, call(pipe), atol=1e-5)


def test_wan_with_two_denoisers():
    pipe = tiny('wan')
    pipe.transformer_2 = tiny('wan', seed=1).transformer
    pipe.register_to_config(boundary_ratio=.5)
    try:
        assert pipe.config.boundary_ratio == .5
        plain = call(pipe, steps=4, guided=True)
        for steps in (0, -1):
            with CAG(pipe, layers=1, steps=steps):
                assert not torch.equal(plain, call(pipe, steps=4, guided=True))
    finally:
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in (pipe.transformer, pipe.transformer_2))


# -- beside captures

@pytest.mark.parametrize('first', [True, False])
def test_captures_do_not_see_the_extra_forward(pipe, first):
    ways = [lambda: capture(pipe, 'q o hidden', branch='both'), lambda: CAG(pipe, layers=[0, 1])]
    with CAG(pipe, layers=[0, 1]):
        guided = call(pipe, guided=True)
    with ways[not first]() as a, ways[first]() as b:
        assert torch.equal(guided, call(pipe, guided=True))
    tape = a if isinstance(b, CAG) else b
    assert tape.finished and len(tape) == 3 * LAYERS[family_of(pipe)] * 2 * 2
    with capture(pipe, 'q o hidden', branch='both', steps=0) as plain:
        call(pipe, guided=True)
    assert all(torch.equal(tape.data[key], x) for key, x in plain.data.items())   # step 0 reads before any guidance


def test_early_exit_and_quiet():
    pipe = pipe_of('cogvideox')
    z = torch.randn(1, 2, 4, 4, 4)
    with CAG(pipe, layers=0) as cag:
        with capture(pipe, 'q', layers=0) as tape:      # the forward ends early, so there is nothing to guide
            renoise(pipe, z, 'a cat', step=1, num_inference_steps=4)
        assert tape.finished and not cag.seen['']
        with until_enough(pipe):
            renoise(pipe, z, 'a cat', step=1, num_inference_steps=4)
        ran = cag.seen['']
        assert ran
        with quiet(pipe):
            call(pipe)
        assert cag.seen[''] == ran


@pytest.mark.parametrize('family', FAMILIES)
def test_caches_of_diffusers_keep_the_extra_forward_apart(family):
    from diffusers import FirstBlockCacheConfig

    pipe = tiny(family)
    with CAG(pipe, layers=0):
        want = call(pipe, guided=True)
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.0))     # a cache that is looked at, never used
    with CAG(pipe, layers=0):
        assert torch.equal(want, call(pipe, guided=True))


# -- hooks are gone

class Boom(Exception):
    pass


@pytest.mark.parametrize('error', [Boom, KeyboardInterrupt])
@pytest.mark.parametrize('when', ['main', 'extra', 'attention', 'between'])
def test_hooks_are_removed(pipe, monkeypatch, when, error):
    plain, ran = call(pipe), []

    def boom(*args, **kwargs):
        raise error

    def later(real):
        def f(*args, **kwargs):
            ran.append(1)
            return real(*args, **kwargs) if len(ran) == 1 else boom()
        return f

    with monkeypatch.context() as patch, pytest.raises(error), capture(pipe, 'q'), CAG(pipe, layers=1):
        if when == 'between':
            patch.setattr(pipe.scheduler, 'step', boom)
        elif when == 'attention':
            patch.setattr('vidlens.motion.cag._own_frames', boom)
        else:
            target = attention(blocks(pipe)[1]).to_q
            patch.setattr(target, 'forward', boom if when == 'main' else later(target.forward))
        call(pipe)
    assert not kept_hooks(pipe) and torch._C._len_torch_function_stack() == 0 and not hooks.OPEN_SEAMS
    assert torch.equal(plain, call(pipe))


def test_an_outer_capture_outlives_it(pipe):
    plain = call(pipe)
    with capture(pipe, 'q') as tape:
        with pytest.raises(Boom), CAG(pipe, layers=1):
            raise Boom
        assert torch.equal(plain, call(pipe))
    assert tape.finished


# -- errors

@pytest.mark.parametrize('options,words', [
    (dict(layers=9), 'layers=9 is outside this run: there are 3 layers'), (dict(layers=-4), '-3 to -1'),
    (dict(layers=[]), 'no number at all'), (dict(layers={}), 'no number at all'), (dict(layers={7: 0}), 'outside this run'),
    (dict(layers={1: 5}), 'heads=5 is outside this run'), (dict(layers=1, heads=2), 'there are 2 heads'),
    (dict(layers='transformer_blocks.9'), 'is no layer'), (dict(layers={1: 0}, heads=0), 'leave heads out'),
    (dict(layers=1, scale='1'), 'scale=.* must be a number'), (dict(layers=1, scale=math.nan), 'must be a number'),
    (dict(layers=1, scale=True), 'must be a number'), (dict(layers=1, steps='last'), 'steps=')], ids=str)
def test_wrong_options(options, words):
    with pytest.raises(ValueError, match=words):
        CAG(pipe_of('cogvideox'), **options)


def test_what_cannot_be_guided():
    pipe = pipe_of('cogvideox')
    with pytest.raises(ValueError, match='outside this run'), CAG(pipe, layers=1, steps=7):
        call(pipe)
    with pytest.raises(CaptureError, match='did not run'), CAG(pipe, layers=1):
        pass
    with pytest.raises(CaptureError, match='is open on this pipeline'), CAG(pipe, layers=1), CAG(pipe, layers=2):
        pass
    with pytest.raises(CaptureError, match='the branch of guidance of this forward is not known'), CAG(pipe, layers=1):
        given = dict(hidden_states=torch.randn(2, 2, 4, 4, 4), encoder_hidden_states=torch.randn(2, 16, 16),
                     timestep=torch.tensor([3, 3]))
        pipe.transformer(**given)
    assert not kept_hooks(pipe) and not hooks.OPEN_SEAMS


def test_uncond_first_is_refused():
    pipe = pipe_of('wan')
    x, words = torch.randn(1, 16, 2, 4, 4), torch.randn(1, 24, 16)
    with pytest.raises(CaptureError, match='runs cond first'), CAG(pipe, layers=1), torch.no_grad():
        with pipe.transformer.cache_context('uncond'):
            pipe.transformer(x, torch.tensor([3]), words)
    assert not kept_hooks(pipe)


def test_other_attention_backends_are_told():
    pipe = tiny('cogvideox')
    for block in pipe.transformer.transformer_blocks:
        block.attn1.processor = own_processor(block.attn1.processor)
    with pytest.raises(CaptureError, match='never through scaled_dot_product_attention'), CAG(pipe, layers=1):
        call(pipe)


def own_processor(stock):
    class Processor:
        def __call__(self, attn, hidden_states, encoder_hidden_states, **more):
            return hidden_states, encoder_hidden_states
    return Processor()


def test_both_kinds_of_output():
    pipe = pipe_of('cogvideox')
    given = dict(hidden_states=torch.randn(1, 2, 4, 8, 8), encoder_hidden_states=torch.randn(1, 16, 16),
                 timestep=torch.tensor([3]), image_rotary_emb=pipe._prepare_rotary_positional_embeddings(32, 32, 2, 'cpu'))
    with CAG(pipe, layers=1), torch.no_grad(), pipe.transformer.cache_context('cond'):
        made = pipe.transformer(**given)
        assert torch.equal(made.sample, pipe.transformer(**given, return_dict=False)[0])
    with torch.no_grad():
        assert type(made) is type(pipe.transformer(**given)) and not torch.equal(made.sample, pipe.transformer(**given)[0])


def test_through_generate():
    pipe = pipe_of('wan')
    ask = dict(num_inference_steps=2, frames=5, size=(32, 32), guidance=4.0)
    with CAG(pipe, layers=-1, scale=3.0):
        one = generate(pipe, 'a cat runs', **ask)
    assert one.video.shape == (5, 32, 32, 3) and not torch.equal(one.video, generate(pipe, 'a cat runs', **ask).video)


# -- measures

def clips(n=4):
    return world.sample(n, 3, world.Mixture('single', ['left', 'right', 'up', 'down', 'up left'])).render()[0]


def test_a_frozen_video_does_not_win():
    v, g = clips(), torch.Generator().manual_seed(0)
    frozen = v[:, :1].expand_as(v)
    shimmer = (frozen + .02 * torch.randn(v.shape, generator=g)).clamp(0, 1)
    flicker = (frozen * (1 + .2 * torch.rand(len(v), 17, 1, 1, 1, generator=g))).clamp(0, 1)
    slow = v[:, torch.linspace(0, 8, 17).long()]
    cases = dict(true=v, slow=slow, half=(v + frozen) / 2, flicker=flicker, shimmer=shimmer, frozen=frozen)
    found = {name: [movement(x) for x in videos] for name, videos in cases.items()}
    explained, amount, left = ({name: sum(getattr(m, k) for m in ms) / len(ms) for name, ms in found.items()}
                               for k in ('explained', 'amount', 'left'))
    assert list(explained) == sorted(explained, key=explained.get, reverse=True)
    assert explained['true'] > .75 and explained['shimmer'] < .05 and explained['frozen'] == 0
    assert left['frozen'] == 0 == amount['frozen'] and amount['shimmer'] < .01
    assert amount['slow'] < .7 * amount['true'] and amount['flicker'] < .5 * amount['true']


def test_amount_is_in_pixels():
    g = torch.Generator().manual_seed(1)
    wide = F.interpolate(torch.rand(1, 3, 40, 60, generator=g), scale_factor=4, mode='bicubic')[0].movedim(0, -1).clamp(0, 1)
    for dx in (1, 2, 3):
        video = torch.stack([wide[:64, i * dx:i * dx + 64] for i in range(6)])
        m = movement(video)
        assert abs(m.amount - dx) < .1 * dx and m.explained > .97
        assert abs(movement(video[::2], reach=8).amount - 2 * dx) < .2 * dx
        assert abs(movement(video, lag=2, reach=8).amount - dx) < .1 * dx
    big = torch.stack([wide[:128, 3 * i:3 * i + 96] for i in range(6)])
    assert abs(movement(big).amount - 3) < .3   # looked at in two thirds of the size


@pytest.mark.parametrize('options', [dict(lag=0), dict(lag=17), dict(block=65), dict(block=0), dict(reach=-1)], ids=str)
def test_movement_of_what_has_none(options):
    with pytest.raises(ValueError, match='lag must be'):
        movement(clips(1)[0], **options)


def test_explained_is_a_share():
    assert Movement(0., 0., 0.).explained == 0 and Movement(1., .1, .2).explained == 0
    assert .99 < Movement(1., .5, 0.).explained <= 1
