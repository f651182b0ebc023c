"""The seam on stock classes: what is captured is what attention used, and the model is left exactly as it was."""
import gc
import inspect
import math
import re
import weakref

import pytest
import torch
from seam import (FAMILIES, KINDS, LAYERS, LENGTH, attention, blocks, call, combinations, family_of, kept_hooks, leaves_nothing,
                  pipe_of, untouched)

from vidlens.seam import hooks
from vidlens.seam.card import card_of
from vidlens.seam.capturing import capture
from vidlens.seam.choices import Budget, parse_bytes
from vidlens.seam.editing import edit
from vidlens.seam.hooks import CaptureError, quiet, until_enough
from vidlens.seam.run import predict, schedule, step_at
from vidlens.seam.tape import tensors_in
from vidlens.seam.families import tiny

TWO = ['a cat runs', 'two dogs']


@pytest.fixture(params=FAMILIES)
def pipe(request):
    yield from untouched(request.param)


def probes(*_):
    pass


# -- observing alters nothing

@pytest.mark.parametrize('guided', [False, True])
def test_output_is_bit_identical(pipe, guided):
    family = family_of(pipe)
    plain = call(pipe, TWO, guided=guided)
    with capture(pipe, KINDS[family], branch='both') as tape:
        assert torch.equal(plain, call(pipe, TWO, guided=guided))
    branches = {k[3] for k in tape}
    assert branches == ({'cond', 'uncond'} if guided else {'cond'}) and tape.finished
    assert len(tape) == len(KINDS[family].split()) * LAYERS[family] * 2 * len(branches)
    assert all(x.shape[0] == 2 for x in tape.data.values())
    with capture(pipe, 'q k v o', branch='both', probe=probes) as tape:
        assert torch.equal(plain, call(pipe, TWO, guided=guided))
    assert not tape.data and tape.finished


@pytest.mark.parametrize('family', ['wan', 'hunyuanvideo'])
def test_several_videos_of_a_prompt(family):
    pipe = pipe_of(family)
    plain = call(pipe, 'a cat runs', num_videos_per_prompt=2)
    with capture(pipe, 'q hidden', steps=-1) as tape:
        assert torch.equal(plain, call(pipe, 'a cat runs', num_videos_per_prompt=2))
    assert {x.shape[0] for x in tape.data.values()} == {2}


def test_decoded_video_is_bit_identical(pipe):
    plain = call(pipe, output_type='pt', steps=1)
    with capture(pipe, 'q k'):
        assert torch.equal(plain, call(pipe, output_type='pt', steps=1))


def test_kept_tensors_are_copies(pipe):
    kept = []
    with capture(pipe, 'q o', steps=0) as tape:
        call(pipe, steps=1)
    with edit(pipe, 'q', lambda site, q: q.zero_()), capture(pipe, 'q', steps=0, probe=lambda s, q: kept.append(q)):
        call(pipe, steps=1)
    assert all(x.abs().sum() > 0 for x in tape.data.values()) and not kept[0].any()


# -- hooks are removed, whatever happens

class Boom(Exception):
    pass


def boom(error):
    def f(*args, **kwargs):
        raise error
    return f


def inner(pipe, place):
    "A module or object and the name of its method that is made to raise."
    block = blocks(pipe)[1]
    return {'attention': (attention(block).to_q, 'forward'),
            'block': (getattr(block, 'ff', None) or block.ffn, 'forward'),
            'model': (pipe.transformer.norm_out, 'forward'), 'between': (pipe.scheduler, 'step')}[place]


def observed(pipe, case, patch):
    "Run a capture that ends in the way that `case` names."
    kind, _, where = case.partition(' in ')
    if where and kind != 'early exit':
        target, name = inner(pipe, where)
        patch.setattr(target, name, boom({'error': Boom(), 'interrupt': KeyboardInterrupt()}[kind]))
    options = {'probe raises': dict(probe=boom(Boom())), 'probe interrupted': dict(probe=boom(KeyboardInterrupt())),
               'too big': dict(budget='1 KB'), 'bad layer': dict(layers=99), 'bad step': dict(steps=99),
               'bad kind': dict(kinds='q z'), 'bad branch': dict(branch='left'), 'no branch': dict(branch='uncond'),
               'twice': {}}.get(case, {})
    early = until_enough(pipe) if case == 'early exit' else quiet(tiny_other(pipe))
    with capture(pipe, **({'kinds': 'q k', 'layers': [0, 1]} | options)), early:
        call(pipe)
        if case == 'twice':
            call(pipe)


def tiny_other(pipe):
    return pipe_of(next(f for f in FAMILIES if pipe_of(f) is not pipe))


ENDINGS = {'normal': None, 'early exit': None, 'error in attention': Boom, 'error in block': Boom,
           'error in model': Boom,
           'error in between': Boom, 'interrupt in attention': KeyboardInterrupt,
           'interrupt in block': KeyboardInterrupt, 'interrupt in model': KeyboardInterrupt,
           'interrupt in between': KeyboardInterrupt, 'probe raises': Boom,
           'probe interrupted': KeyboardInterrupt, 'too big': CaptureError, 'no branch': CaptureError,
           'twice': CaptureError, 'bad step': ValueError, 'bad layer': ValueError, 'bad kind': ValueError,
           'bad branch': ValueError}


@pytest.mark.parametrize('case', ENDINGS)
def test_hooks_are_removed(pipe, case):
    leaves_nothing(pipe, call, ENDINGS[case], lambda patch: observed(pipe, case, patch))


@pytest.mark.parametrize('error', [Boom, KeyboardInterrupt])
@pytest.mark.parametrize('kind', ['q', 'o', 'mask', 'hidden'])
def test_hooks_of_edits_are_removed(pipe, kind, error):
    plain = call(pipe)
    with pytest.raises(error), capture(pipe, 'q'), edit(pipe, kind, boom(error())):
        call(pipe)
    assert not kept_hooks(pipe) and torch._C._len_torch_function_stack() == 0 and torch.equal(plain, call(pipe))


def test_interrupted_inner_capture_leaves_the_outer_one_working(pipe, monkeypatch):
    plain = call(pipe)
    with capture(pipe, 'q', steps=-1) as tape:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), capture(pipe, 'k'):
            patch.setattr(*inner(pipe, 'attention'), boom(KeyboardInterrupt()))
            call(pipe)
        assert torch.equal(plain, call(pipe))
    assert len(tape) == len(blocks(pipe)) and torch._C._len_torch_function_stack() == 0


def test_hooks_of_the_user_stay(pipe):
    ran = []
    handle = attention(blocks(pipe)[0]).register_forward_hook(lambda m, a, out: ran.append(1))
    with capture(pipe, 'q'):
        call(pipe)
    assert kept_hooks(pipe) == 1 and len(ran) == 2
    handle.remove()


# -- nothing is kept alive

def test_no_leak():
    pipe = tiny('wan')
    with capture(pipe, 'q hidden', steps=0) as tape, edit(pipe, 'k', lambda site, k: k):
        call(pipe, steps=1)
    alive = [weakref.ref(x) for x in tape.data.values()]
    model, tape_alive = weakref.ref(pipe.transformer), weakref.ref(tape)
    del tape
    gc.collect()
    assert tape_alive() is None and not any(r() is not None for r in alive) and model() is not None
    with pytest.raises(CaptureError), capture(pipe, 'q'):
        pass
    del pipe
    gc.collect()
    assert model() is None and not hooks.OPEN_SEAMS


def test_a_view_that_a_probe_returns_keeps_nothing_else_alive():
    pipe = pipe_of('cogvideox')
    for probe in (lambda s, q: q[:, :, 0], lambda s, q: [q[..., :1]], lambda s, q: {'x': (q[0], 3)}):
        with capture(pipe, 'q', layers=0, steps=0, probe=probe) as tape:
            call(pipe, steps=1)
        for x in tensors_in(next(iter(tape.data.values()))):
            assert x.untyped_storage().nbytes() == x.numel() * x.element_size()


# -- captured tensors against a recomputation from the block's own parts

def rotated(x, rope):
    "Pairs of channels as complex numbers, turned by the angles. x: (batch, heads, tokens, channels)."
    cos, sin = (r.reshape(-1, r.shape[-1])[:, i::2] for i, r in enumerate(rope))
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.complex(cos.double(), sin.double())).flatten(-2).float()


def heads_of(x, n):
    return x.unflatten(2, (n, -1)).transpose(1, 2)


def recomputed(attn, given):
    "q, k, v, o of one attention call, from its inputs."
    x, words = given['hidden_states'], given.get('encoder_hidden_states')
    rope, mask, n = given.get('image_rotary_emb', given.get('rotary_emb')), given.get('attention_mask'), attn.heads
    across = type(attn).__name__ == 'WanAttention'   # it normalises over all heads at once
    cross, added = across and words is not None, getattr(attn, 'add_q_proj', None) is not None

    def qkv(seq, source, names, norms, turn):
        q, k, v = (getattr(attn, name)(s) for name, s in zip(names, (seq, source, source)))
        if not across:
            q, k, v = (heads_of(t, n) for t in (q, k, v))
        q, k = (norm(t) if norm is not None else t for norm, t in zip((getattr(attn, m) for m in norms), (q, k)))
        if across:
            q, k, v = (heads_of(t, n) for t in (q, k, v))
        if turn is not None:
            q, k = (torch.cat([t[:, :, :turn.start], rotated(t[:, :, turn], rope), t[:, :, turn.stop:]], 2)
                    for t in (q, k))
        return q, k, v

    own = ('to_q', 'to_k', 'to_v'), ('norm_q', 'norm_k')
    if across:
        q, k, v = qkv(x, words if cross else x, *own, slice(0, x.shape[1]) if rope is not None else None)
    elif added:   # text beside the video, with weights of its own, no rotation
        parts = (qkv(x, x, *own, slice(0, x.shape[1])),
                 qkv(words, words, ('add_q_proj', 'add_k_proj', 'add_v_proj'), ('norm_added_q', 'norm_added_k'), None))
        q, k, v = (torch.cat(pair, 2) for pair in zip(*parts))
    else:
        first = 'CogVideoX' in type(attn.processor).__name__
        seq = torch.cat([words, x] if first else [x, words], 1)
        start = words.shape[1] if first else 0
        q, k, v = qkv(seq, seq, *own, slice(start, start + x.shape[1]) if rope is not None else None)
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** .5
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
    return dict(q=q, k=k, v=v, o=logits.softmax(-1) @ v)


@pytest.mark.parametrize('family', FAMILIES)
def test_captured_is_recomputed(family):
    pipe, seen, undo = pipe_of(family), {}, []
    names = dict.fromkeys(blocks(pipe), ['attn1', 'attn2'] if family == 'wan' else ['attn', 'attn1'])
    for layer, (block, attns) in enumerate(names.items()):
        for group, attn in [('x' * (a == 'attn2'), getattr(block, a)) for a in attns if hasattr(block, a)]:
            sig = inspect.signature(attn.forward if family == 'wan' else attn.processor.__call__)
            def keep(m, args, kwargs, key=(group, layer, attn), sig=sig):
                names = [p for p in sig.parameters if p != 'attn']
                seen.setdefault(key, dict(zip(names, args)) | kwargs)
            undo.append(attn.register_forward_pre_hook(keep, with_kwargs=True))
    with capture(pipe, KINDS[family].replace(' hidden', ''), steps=0) as tape:
        call(pipe, ['a cat runs', 'two'])
    for handle in undo:
        handle.remove()
    assert len(seen) == (6 if family == 'wan' else LAYERS[family])
    with torch.no_grad():
        for (group, layer, attn), given in seen.items():
            for kind, want in recomputed(attn, given).items():
                got = tape.get(group + kind, layer, tokens='all')
                valid = slice(None)
                if family == 'hunyuanvideo' and kind == 'o':   # rows of padding are nobody's
                    valid = slice(0, tape.grid.n)
                assert torch.allclose(got[:, :, valid], want[:, :, valid], atol=1e-5), (group + kind, layer)


@pytest.mark.parametrize('family', FAMILIES)
def test_hidden_is_the_video_stream_of_a_block(family):
    pipe, seen, undo = pipe_of(family), {}, []
    for layer, block in enumerate(blocks(pipe)):
        def keep(m, args, out, layer=layer):
            seen.setdefault(layer, (out[0] if isinstance(out, tuple) else out).clone())
        undo.append(block.register_forward_hook(keep))
    with capture(pipe, 'hidden', steps=0) as tape:
        call(pipe)
    for handle in undo:
        handle.remove()
    assert all(torch.equal(tape.get('hidden', i), x) and x.shape[1] == tape.grid.n for i, x in seen.items())


# -- cond and uncond

@pytest.mark.parametrize('family', FAMILIES)
def test_branches_are_told_apart(family):
    pipe = pipe_of(family)
    kinds = 'q k o' + ' xk' * (family == 'wan')
    for branch, prompt in (('uncond', 'blur'), ('cond', 'a cat runs')):
        with capture(pipe, kinds, steps=0, branch=branch) as guided:
            call(pipe, guided=True, steps=1)
        with capture(pipe, kinds, steps=0) as alone:
            call(pipe, prompt, steps=1)
        assert {k[3] for k in guided} == {branch}
        for (kind, layer, *_), x in alone.data.items():
            assert torch.allclose(guided.get(kind, layer, 0, branch, 'all'), x, atol=1e-5), (kind, layer, branch)
    assert not torch.allclose(guided.get('o', 2), guided_of(pipe, 'uncond').get('o', 2), atol=1e-4)


def guided_of(pipe, branch):
    with capture(pipe, 'o', branch=branch, steps=0) as tape:
        call(pipe, guided=True, steps=1)
    return tape


@pytest.mark.parametrize('family', ['cogvideox', 'wan'])
def test_the_empty_prompt_is_the_default_negative(family):
    pipe = pipe_of(family)
    with capture(pipe, 'q', steps=0, branch='uncond') as guided:
        call(pipe, guided=True, steps=1, negative_prompt=None)
    with capture(pipe, 'q', steps=0) as alone:
        call(pipe, '', steps=1)
    assert all(torch.allclose(*(tape.get('q', i, tokens='all') for tape in (guided, alone)), atol=1e-5) for i in range(3))


def test_guidance_that_falls_to_one_on_the_way_keeps_its_pair():
    "CogVideoX's dynamic guidance changes the very number that says whether there is guidance."
    pipe = pipe_of('cogvideox')

    def fall(p, i, t, kept):
        p._guidance_scale = 1.0
        return {}

    with capture(pipe, 'q', branch='both') as tape:
        call(pipe, guided=True, callback_on_step_end=fall)
    assert {k[2:] for k in tape} == {(s, b) for s in (0, 1) for b in ('cond', 'uncond')}
    assert {x.shape[0] for x in tape.data.values()} == {1}


def test_a_branch_that_nothing_tells_is_an_error(pipe):
    x, given = some_latents(pipe)
    told = dict(hidden_states=x, timestep=torch.tensor([500]), **given, return_dict=False)
    with torch.no_grad():
        with pytest.raises(CaptureError, match="'cond' cannot be told apart.*cache_context.'cond'"), capture(pipe):
            pipe.transformer(**told)
        with capture(pipe, branch='all') as tape:
            pipe.transformer(**told)
        with capture(pipe) as named, pipe.transformer.cache_context('cond'):
            pipe.transformer(**told)
    assert {k[3] for k in tape} == {'all'} and {k[3] for k in named} == {'cond'}


def some_latents(pipe, rows=1):
    card = card_of(pipe)
    shape = dict(b=rows, c=pipe.transformer.config.in_channels, f=2, h=4, w=4)
    x = torch.randn([shape[a] for a in card.axes], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        grid = card.grid_of_latents(pipe, tuple(x.shape))
        return x, card.conditions(pipe, ['a cat runs'] * rows, grid, LENGTH[family_of(pipe)])


# -- steps

@pytest.mark.parametrize('steps, found', [
    (-1, {3}), (0, {0}), ([0, -2], {0, 2}), (slice(1, 3), {1, 2}), (range(2), {0, 1}), (slice(-2, None), {2, 3}),
    (None, {0, 1, 2, 3}), (iter([1, 3]), {1, 3})])
def test_steps(steps, found):
    pipe = pipe_of('wan')
    with capture(pipe, 'q', layers=[0, -1], steps=steps) as tape:
        call(pipe, steps=4)
    assert {k[2] for k in tape} == found == set(tape.times) and {k[1] for k in tape} == {0, 2} and tape.num_inference_steps == 4


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('guided', [False, True])
def test_times_are_the_schedulers_own(family, guided):
    pipe = pipe_of(family)
    with capture(pipe, 'q', probe=probes, branch='both') as tape:
        call(pipe, steps=3, guided=guided)
    sch = pipe.scheduler
    for i, t in enumerate(sch.timesteps):
        flow = family != 'cogvideox'
        share = float(sch.sigmas[i]) if flow else math.sqrt(1 - float(sch.alphas_cumprod[int(t)]))
        assert tape.times[i][0] == float(t) and abs(tape.times[i][1] - share) < 1e-6
    assert sorted(tape.times) == [0, 1, 2]
    assert all(abs(p.t - tape.times[p.index][0]) < 1e-3 and abs(p.s - tape.times[p.index][1]) < 1e-6
               for p in schedule(pipe, 3))


def test_two_runs_in_one_capture(pipe):
    seen = []
    with capture(pipe, 'q', layers=0, probe=lambda site, q: seen.append(site.step)):
        call(pipe, steps=2)
        call(pipe, steps=3)
        call(pipe, steps=1)
    assert seen == [0, 1, 0, 1, 2, 0]
    with pytest.raises(CaptureError, match='ran twice inside one capture.*one capture per run'), capture(pipe, 'q'):
        call(pipe)
        call(pipe)


def test_predict_tells_its_step(pipe):
    x, given = some_latents(pipe)
    at = step_at(pipe, 7, num_inference_steps=10)
    with capture(pipe, 'q', layers=0, steps=7) as tape:
        predict(pipe, x, at, given, 10)
    assert list(tape.times) == [7] and tape.num_inference_steps == 10 and abs(tape.times[7][1] - at.s) < 1e-6


# -- nesting

def test_nested_captures(pipe):
    with capture(pipe, 'q k', layers=0) as outer:
        with capture(pipe, 'q', layers=[0, 1], steps=-1) as within:
            call(pipe)
    assert {k[2] for k in outer} == {0, 1} and {k[2] for k in within} == {1}
    assert torch.equal(outer.get('q', 0, 1), within.get('q', 0))


@pytest.mark.parametrize('capture_outside', [True, False])
@pytest.mark.parametrize('kind', ['q', 'o', 'hidden'])
def test_captures_see_what_the_model_goes_on_with(pipe, kind, capture_outside):
    one, two = capture(pipe, kind, layers=1, steps=0), edit(pipe, kind, lambda site, x: x * 0 + 2, layers=1)
    tape = one.tape
    with (one if capture_outside else two), (two if capture_outside else one):
        call(pipe, steps=1)
    assert (tape.get(kind, 1, tokens='all') == 2).all()


# -- editing

@pytest.mark.parametrize('family, kind', combinations(FAMILIES, ['q', 'k', 'v', 'o']))
def test_edits_change_what_was_chosen_and_nothing_else(family, kind):
    pipe = pipe_of(family)
    options = dict(kinds='q k v o', steps=[0, 1], branch='both')
    with capture(pipe, **options) as plain:
        call(pipe, TWO, guided=True)
    with edit(pipe, kind, lambda site, x: x + 1, layers=1, heads=1, steps=1, branch='uncond'), \
            capture(pipe, **options) as tape:
        call(pipe, TWO, guided=True)
    for site, x in plain.data.items():
        name, layer, step, branch = site
        same = torch.isclose(tape.data[site], x, atol=1e-6, rtol=0)
        if step == 0 or branch == 'cond' or layer == 0:
            assert torch.equal(tape.data[site], x), site
        elif layer == 1 and name == kind:
            assert torch.equal(tape.data[site][:, 0], x[:, 0]) and not same[:, 1].any(), site
        elif layer == 1 and name != 'o':
            assert torch.equal(tape.data[site], x), site
    assert not torch.equal(tape.get('q', 2, 1, 'uncond'), plain.get('q', 2, 1, 'uncond'))


@pytest.mark.parametrize('family', FAMILIES)
def test_a_mask_is_a_masked_softmax(family):
    pipe = pipe_of(family)
    grid = card_of(pipe).grid(pipe, 5, 32, 32)

    def next_only(site, mask):
        assert mask.dtype == torch.bool
        mask[..., site.video, site.video] = torch.ones(grid.n, grid.n).tril().bool()
        return mask

    with edit(pipe, 'mask', next_only, layers=1, heads=[0], steps=0), \
            capture(pipe, 'q k v o', layers=1, steps=0) as tape:
        call(pipe, steps=1)
    q, k, v, o = (tape.get(n, 1, tokens='all')[:, 0] for n in 'qkvo')
    call_mask = torch.ones(q.shape[1], k.shape[1]).bool()
    video = slice(tape.text, None) if tape.text_first else slice(0, grid.n)
    call_mask[video, video] = torch.ones(grid.n, grid.n).tril().bool()
    if family == 'hunyuanvideo':
        call_mask[:, grid.n:] &= ~card_of(pipe).tokens(pipe, 'a cat runs', LENGTH[family]).pad
    want = (q @ k.mT / q.shape[-1] ** .5).masked_fill(~call_mask, -torch.inf).softmax(-1) @ v
    assert torch.allclose(o[:, video], want[:, video], atol=1e-5)


def test_an_edit_of_hidden_goes_on(pipe):
    with edit(pipe, 'hidden', lambda site, x: x * 0, layers=0), \
            capture(pipe, 'hidden', layers=[0, 1], steps=0) as tape:
        changed = call(pipe, steps=1)
    assert not tape.get('hidden', 0).any() and not torch.equal(changed, call(pipe, steps=1))


def test_edits_in_place_and_wrong_answers(pipe):
    with edit(pipe, 'v', lambda site, v: v * 0, layers=0):
        one = call(pipe, steps=1)

    def in_place(site, v):
        v.zero_()

    with edit(pipe, 'v', in_place, layers=0):
        assert torch.equal(one, call(pipe, steps=1))
    for answer in (lambda s, q: q[:, :, :2], lambda s, q: (q, q), lambda s, q: 3.):
        with pytest.raises(ValueError, match='edit of q in layer 0: f was given .* same shapes'), \
                edit(pipe, 'q', answer):
            call(pipe)


@pytest.mark.parametrize('kind', ['q', 'q k', 'o', 'hidden', 'mask'])
@pytest.mark.parametrize('heads', [None, 0])
def test_an_edit_that_forgets_to_return_is_no_finding(pipe, kind, heads):
    def forgets(site, *tensors):
        for x in tensors:
            x.clone().zero_()

    with pytest.raises(ValueError, match=f'edit of {kind}: f returned nothing and changed nothing: return the tensor'), \
            edit(pipe, kind, forgets, layers=1, heads=heads):
        call(pipe)

    def in_place(site, *tensors):
        if site.step == 1:
            tensors[0].copy_(tensors[0])     # of the same values: it was written to, which is enough

    with edit(pipe, kind, in_place, layers=1, heads=heads):
        call(pipe, steps=2)


def test_functions_that_do_not_take_the_tensors_are_refused_at_once(pipe):
    for verb, kinds, given, said in [
            (edit, 'q k', lambda site, q: q, r'edit q k: f takes \(site, q\), .* 2 tensors: def f\(site, q, k\)'),
            (edit, 'o', lambda o: o, r'edit o: f takes \(o\), .* site and 1 tensor: def f\(site, o\)'),
            (edit, 'q', lambda site, q, k: q, 'def f.site, q.'), (edit, 'mask', lambda: None, 'def f.site, mask.'),
            (capture, 'q k', lambda q, k: q, r'capture q k: probe takes \(q, k\), .*def probe\(site, q, k\)')]:
        with pytest.raises(TypeError, match=said):
            verb(pipe, kinds, **{'f' if verb is edit else 'probe': given})
    for fine in (lambda site, q, more=1: q, lambda *all: all[1], max):     # of `max` nobody knows
        edit(pipe, 'q', fine)


@pytest.mark.parametrize('family', ['cogvideox', 'wan'])
def test_attention_of_the_whole_model_needs_all_tokens(family):
    "All tokens give back o; the video's alone, a probe's default, do so only where text is not attended to beside them."
    pipe, found = pipe_of(family), {}
    for tokens in ('all', 'video'):
        def again(site, q, k, v, o):
            return float(((q @ k.mT / q.shape[-1] ** .5).softmax(-1) @ v - o).abs().max())

        with capture(pipe, 'q k v o', layers=1, probe=again, tokens=None if tokens == 'video' else tokens) as tape:
            call(pipe, steps=1)
        found[tokens] = tape['q k v o', 1]
    assert found['all'] < 1e-5 and (found['video'] < 1e-5) == (family == 'wan')


def test_an_edit_that_never_ran_says_so(pipe):
    with pytest.raises(CaptureError, match='nothing was edited, of q: the model did not run'), edit(pipe, 'q', probes):
        pass
    with pytest.raises(CaptureError, match='nothing was edited.*guidance on'), \
            edit(pipe, 'q', probes, branch='uncond'):
        call(pipe)


# -- nothing seen

@pytest.mark.parametrize('kinds', ['q k', 'hidden', 'q hidden'])
def test_nothing_ran(pipe, kinds):
    with pytest.raises(CaptureError, match='did not run inside the block. Call the pipeline within'), \
            capture(pipe, kinds):
        pass
    with pytest.raises(CaptureError, match=r"branch cond none .*branch \('uncond'\).*guidance"), \
            capture(pipe, kinds, branch='uncond'):
        call(pipe)
    x, given = some_latents(pipe)
    with pytest.raises(CaptureError, match=r'steps \(\[5\]\)'), capture(pipe, kinds, steps=5):
        predict(pipe, x, step_at(pipe, 7, num_inference_steps=10), given, 10)


class Plain:
    "A processor without scaled_dot_product_attention, as other attention backends are."

    def __call__(self, attn, hidden_states, encoder_hidden_states, attention_mask=None, image_rotary_emb=None):
        return hidden_states, encoder_hidden_states


@pytest.mark.parametrize('kinds', ['q k', 'q hidden'])
def test_another_attention_backend_is_named(kinds, monkeypatch):
    from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

    def other(query, key, value, **_):
        return torch.einsum('bqhc,bkhc->bhqk', query, key).softmax(-1).matmul(value.transpose(1, 2)).transpose(1, 2)

    with monkeypatch.context() as patch:
        patch.setitem(_AttentionBackendRegistry._backends, AttentionBackendName.FLEX, other)
        known = _AttentionBackendRegistry._supported_arg_names
        patch.setitem(known, AttentionBackendName.FLEX, {'query', 'key', 'value'})
        for block in blocks(pipe_of('wan')):
            for attn in (block.attn1, block.attn2):
                patch.setattr(attn.processor, '_attention_backend', AttentionBackendName.FLEX)
        named = "attention ran 6 times, but never .*'flex'.*set_attention_backend.'native'"
        with pytest.raises(CaptureError, match=named), capture(pipe_of('wan'), kinds):
            call(pipe_of('wan'))
    pipe = tiny('cogvideox')
    pipe.transformer.set_attn_processor(Plain())
    said = 'attention ran 6 times, but never.*its processor, Plain, does without'
    with pytest.raises(CaptureError, match=said), capture(pipe, kinds):
        call(pipe)


def test_what_is_native_is_not_advised(pipe, monkeypatch):
    "Attention that an error stopped, and the error caught: not for another backend."
    monkeypatch.setattr(attention(blocks(pipe)[0]).to_q, 'forward', boom(Boom()))
    with pytest.raises(CaptureError, match='attention ran 1 times.*though its backend is the native one: an error') as e, \
            capture(pipe, 'q k'):
        with pytest.raises(Boom):
            call(pipe)
    assert 'set_attention_backend' not in str(e.value)


def test_compiled_models_are_refused():
    pipe = tiny('wan')
    whole = pipe.transformer
    pipe.transformer = torch.compile(whole)
    with pytest.raises(CaptureError, match=r'compiled.*pipe.transformer = pipe.transformer._orig_mod'), capture(pipe):
        pass
    pipe.transformer = whole
    whole.blocks[1].compile()
    with pytest.raises(CaptureError, match=r'pipe.transformer.blocks.1 .*compiled.*leave out .compile'), capture(pipe):
        pass
    assert not kept_hooks(pipe) and not hooks.OPEN_SEAMS


# -- early exit

def test_early_exit_skips_later_blocks(pipe):
    ran, x, given = [], *some_latents(pipe)
    undo = [b.register_forward_pre_hook(lambda m, a, i=i: ran.append(i)) for i, b in enumerate(blocks(pipe))]
    at = step_at(pipe, 3, num_inference_steps=10)
    with capture(pipe, 'q', layers=1) as tape, edit(pipe, 'q', lambda s, q: q, layers=[0, 1]), until_enough(pipe):
        predict(pipe, x, at, given, 10)
    assert ran == [0, 1] and tape.finished and len(tape) == 1
    ran.clear()
    with edit(pipe, 'q', lambda s, q: q, layers=0), until_enough(pipe):
        assert predict(pipe, x, at, given, 10) is not None
    assert ran == list(range(len(blocks(pipe))))
    for handle in undo:
        handle.remove()


def test_quiet_forwards_are_not_shown(pipe):
    with capture(pipe, 'q', layers=0, steps=0) as tape:
        with quiet(pipe):
            call(pipe, steps=1)
        assert not tape.data
        call(pipe, steps=1)
    assert len(tape) == 1


# -- budget

def product(message):
    "The bytes that a refusal's arithmetic comes to."
    terms = re.search(r'would keep (.*) = ', message)[1].split(' + ')
    return sum(math.prod(int(n) for n in re.findall(r'(?:^| x )(\d+) ', term)) for term in terms)


@pytest.mark.parametrize('family, options', combinations(FAMILIES, [
    {}, dict(kinds='q k v o', layers=[0, -1], steps=-1), dict(kinds='hidden'), dict(kinds='o hidden', heads=1, branch='both'),
    dict(kinds='q', tokens='video'), dict(kinds='k', tokens='text', steps=[0, 1]), dict(kinds='q', dtype='float16'),
    dict(kinds='all', branch='uncond')]), ids=str)
def test_what_is_predicted_is_kept(family, options):
    pipe = pipe_of(family)
    options = options | (dict(kinds=KINDS[family]) if options.get('kinds') == 'all' else {})
    count = []
    undo = blocks(pipe)[0].register_forward_pre_hook(lambda m, a: count.append(1))
    form = {k: v for k, v in options.items() if k == 'dtype'}
    options = {k: v for k, v in options.items() if k != 'dtype'}
    ways_out = r'''(?s)above the budget.*layers=.*steps=.*heads=.*probe=.*budget=("|Budget\(size=')\d+ MiB'''
    with pytest.raises(CaptureError, match=ways_out) as e, capture(pipe, budget=Budget(1, **form) if form else 1, **options):
        call(pipe, TWO, guided=True)
    undo.remove()
    assert not count
    with capture(pipe, budget=Budget(**form), **options) as tape:
        call(pipe, TWO, guided=True)
    assert tape.nbytes == product(str(e.value)) > 0
    with capture(pipe, budget=Budget(tape.nbytes, **form), **options):
        call(pipe, TWO, guided=True)


@pytest.mark.parametrize('family', FAMILIES)
def test_what_is_predicted_is_kept_in_bfloat16(family):
    pipe = tiny(family).to(torch.bfloat16)
    with pytest.raises(CaptureError) as e, capture(pipe, KINDS[family], budget=1):
        call(pipe)
    with capture(pipe, KINDS[family]) as tape:
        call(pipe)
    assert tape.nbytes == product(str(e.value)) and {x.dtype for x in tape.data.values()} == {torch.bfloat16}


def test_one_forward_is_counted_as_one(pipe):
    x, given = some_latents(pipe)
    at = step_at(pipe, 30, num_inference_steps=50)
    with capture(pipe, 'q') as tape, until_enough(pipe):
        predict(pipe, x, at, given, 50)
    with capture(pipe, 'q', budget=tape.nbytes), until_enough(pipe):
        predict(pipe, x, at, given, 50)
    with pytest.raises(CaptureError, match='x 50 steps x'), capture(pipe, 'q', budget=tape.nbytes):
        predict(pipe, x, at, given, 50)


def test_a_probe_that_keeps_too_much_is_stopped(pipe):
    with pytest.raises(CaptureError, match=r'were kept, above the budget of .*budget="\d+ MiB"'), \
            capture(pipe, 'q', budget='1 KB', probe=lambda site, q: q):
        call(pipe)


@pytest.mark.parametrize('size, found', [
    (1000, 1000), ('1000', 1000), ('2 GiB', 2 << 30), ('2GiB', 2 << 30), ('1.5 kb', 1500), ('500 MB', 5 * 10**8),
    (' 1 tib ', 1 << 40), (2.5, 2), ('1e3', 1000), ('7 B', 7)])
def test_parse_bytes(size, found):
    assert parse_bytes(size) == found


@pytest.mark.parametrize('size', ['lots', '', '2 G', 'GiB', -1, 0, '0 MB', 'nan', float('nan'), float('inf'), None, []])
def test_parse_bytes_refuses(size):
    with pytest.raises(ValueError, match=r"budget=.*('2 GiB'|above 0)"):
        parse_bytes(size)


# -- options

def test_heads_tokens_dtype_device(pipe):
    options = dict(heads=-1, tokens='video', budget=Budget(dtype='float16', device='cpu'))
    with capture(pipe, 'q', steps=0) as full, capture(pipe, 'q', steps=0, **options) as part:
        call(pipe, steps=1)
    x, y = full.get('q', 1), part.get('q', 1)
    assert y.dtype == torch.float16 and torch.equal(x[:, 1:].half(), y) and y.shape[2] == full.grid.n
    assert full.grid.unflatten(x).shape[2:5] == full.grid.shape


@pytest.mark.parametrize('family', ['cogvideox', 'hunyuanvideo'])
def test_text_tokens(family):
    pipe = pipe_of(family)
    with capture(pipe, 'k', steps=0) as full, capture(pipe, 'k', steps=0, tokens='text') as words:
        call(pipe, steps=1)
    assert torch.equal(full.get('k', 1, tokens='text'), words.get('k', 1, tokens='text'))
    assert words.get('k', 1, tokens='text').shape[2] == LENGTH[family] == full.text
    with pytest.raises(ValueError, match="kept for the text tokens only.*tokens='all'"):
        words.get('k', 1)


def test_gradients_flow_through_what_is_kept(pipe):
    x, given = some_latents(pipe)
    x.requires_grad_(True)
    at = step_at(pipe, 5, num_inference_steps=10)
    for keep in (True, False):
        with capture(pipe, 'q', layers=1, budget=Budget(grad=keep)) as tape, until_enough(pipe):
            predict(pipe, x, at, given, 10)
        assert tape.get('q', 1).requires_grad is keep
        if keep:
            g, = torch.autograd.grad(tape.get('q', 1).square().sum(), x)
            assert g.abs().sum() > 0


def test_conditions_are_those_of_the_pipeline(pipe):
    "What a forward of our own is given is what the pipeline gives."
    seen = {}

    def keep(m, args, kwargs):
        seen.update({k: v for k, v in kwargs.items() if v is not None})

    undo = pipe.transformer.register_forward_pre_hook(keep, with_kwargs=True)
    call(pipe, steps=1)
    undo.remove()
    card, shape = card_of(pipe), tuple(seen['hidden_states'].shape)
    given = card.conditions(pipe, ['a cat runs'], card.grid_of_latents(pipe, shape), LENGTH[family_of(pipe)])
    for name, x in given.items():
        pairs = zip(x, seen[name]) if isinstance(x, tuple) else [(x, seen[name])]
        assert all(torch.allclose(a.float(), b.float(), atol=1e-6) for a, b in pairs), name
