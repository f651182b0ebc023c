"""AnimateDiff's UNet behind its card: folded frames, temporal attention and UNet blocks, against plain torch hooks."""
import math
import re

import pytest
import torch
from seam import combinations, kept_hooks, leaves_nothing, state

from vidlens.seam import hooks
from vidlens.seam.choices import Budget
from vidlens.seam.card import card_of, noise_level, sites, text_length
from vidlens.seam.families import tiny
from vidlens.seam.capturing import capture
from vidlens.seam.editing import edit
from vidlens.seam.hooks import CaptureError, announce, until_enough
from vidlens.seam.loading import load, randomise
from vidlens.seam.run import (conditions, decode, default_size, encode, fit_video, generate, invert, predict, renoise,
                              schedule, step_at, text_of)
from vidlens.seam.tape import Tape

TWO = ['a cat', 'two dogs']
ALL = 'q k v o xq xk xv xo tq tk tv to hidden'
SPATIAL, TEMPORAL, UP = 4, 6, 'up_blocks.1'   # layers at half size: attention in a frame and over time


@pytest.fixture(scope='module')
def made():
    return tiny('animatediff')


@pytest.fixture
def pipe(made):
    before = state(made)
    yield made
    assert state(made) == before and not hooks.OPEN_SEAMS and 'progress_bar' not in vars(made)


def call(pipe, prompts='a cat', steps=2, guided=False, size=(16, 16), frames=3, **more):
    "Latents of a run by the pipeline's own call."
    n = 1 if isinstance(prompts, str) else len(prompts)
    given = dict(guidance_scale=4., negative_prompt='blur' if n == 1 else ['blur'] * n) if guided else dict(guidance_scale=1.)
    generators = [torch.Generator().manual_seed(i) for i in range(n)]
    given |= dict(num_inference_steps=steps, num_frames=frames, height=size[0], width=size[1], output_type='latent',
                  generator=generators)
    return pipe(prompts, **(given | more)).frames


def some_latents(pipe, rows=1):
    x = torch.randn(rows, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return x, conditions(pipe, 'a cat', x)


def real(frames, side=16):
    x = torch.rand(1, 3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(x, (frames, side, side), mode='trilinear')[0].movedim(0, -1).clamp(0, 1)


def module(pipe, path):
    return pipe.unet.get_submodule(path)


# -- the table of sites

def test_sites_are_the_models_modules_in_the_order_they_run(pipe):
    rows, ran = sites(pipe), []
    undo = [module(pipe, r['path']).register_forward_hook(lambda m, a, out, p=r['path']: ran.append(p)) for r in rows]
    call(pipe, steps=1)
    for handle in undo:
        handle.remove()
    assert ran == [r['path'] for r in rows] and [r['layer'] for r in rows] == list(range(len(rows)))
    everything = [n for n, m in pipe.unet.named_modules() if type(m).__name__ == 'Attention' and not n.endswith('attn2')]
    assert sorted(r['path'] for r in rows if r['path'].endswith('attn1')) == sorted(everything)
    for r in rows:
        m = module(pipe, r['path'])
        want = ('hidden' if 'attn' not in r['path'] else 'tq tk tv to' + ' hidden' * r['path'].endswith('attn2')
                if 'motion' in r['path'] else 'q k v o xq xk xv xo hidden')
        assert r['kinds'] == want and (r['heads'] is None) == ('attn' not in r['path'])
        assert r['channels'] * (r['heads'] or 1) == (m.to_q.out_features if r['heads'] else m.resnets[-1].out_channels)
    assert {r['path']: r['stride'] for r in rows}[UP] == 8 and rows[0]['stride'] == 4


def test_layers_by_path(pipe):
    card, table = card_of(pipe), {r['path']: r['layer'] for r in sites(pipe)}
    assert all(card.layer(pipe.unet, path) == layer for path, layer in table.items())
    with capture(pipe, 'hidden q', layers=[UP, 'down_blocks.1.attentions.0.transformer_blocks.0']) as tape:
        call(pipe, steps=1)
    assert sorted(k[:2] for k in tape) == [('hidden', SPATIAL), ('hidden', table[UP]), ('q', SPATIAL)]
    with pytest.raises(ValueError, match=r"layers='up_blocks.9' is no layer.*0 to 44.*sites\(pipe\)"):
        capture(pipe, 'hidden', layers='up_blocks.9')


@pytest.mark.parametrize('options, message', [
    (dict(kinds='q', layers=TEMPORAL), r'layer 6 .*motion_modules.* shows tq tk tv to hidden, not q: that is in layers 0, 4'),
    (dict(kinds='q', layers=[SPATIAL, UP]), r'layer 30 \(up_blocks.1\) shows hidden, not q'),
    (dict(kinds='q tq', layers=SPATIAL), 'layer 4 .* not tq: that is in layers 1, 2'),
    (dict(kinds='hidden', layers=1), 'layer 1 .* shows tq tk tv to, not hidden'),
    (dict(kinds='q z'), "'z' does not exist on AnimateDiff: choose among q k v o xq .* tq tk tv to hidden"),
    (dict(kinds='q', layers=99), 'there are 45 layers, 0 to 44'), (dict(kinds='q', heads=2), 'there are 2 heads'),
    (dict(kinds='hidden', layers=UP, heads=0), 'the chosen layers have 0 heads')])
def test_what_is_not_there_is_refused(pipe, options, message):
    with pytest.raises(ValueError, match=message):
        capture(pipe, **options)


def test_ranges_take_the_layers_that_show_the_kind(pipe):
    with capture(pipe, 'tq', layers=range(8), steps=0) as some, capture(pipe, 'q', steps=0) as every:
        call(pipe, steps=1)
    assert [k[1] for k in some] == [1, 2, 5, 6] and [k[1] for k in every] == [0, 4, 8, 15, 24, 27, 31, 34, 38, 41]


# -- observing alters nothing

@pytest.mark.parametrize('guided', [False, True])
def test_output_is_bit_identical(pipe, guided):
    plain = call(pipe, TWO, guided=guided)
    with capture(pipe, ALL, branch='both') as tape:
        assert torch.equal(plain, call(pipe, TWO, guided=guided))
    branches = {k[3] for k in tape}
    assert branches == ({'cond', 'uncond'} if guided else {'cond'}) and tape.finished
    assert len(tape) == sum(len(r['kinds'].split()) for r in sites(pipe)) * 2 * len(branches)
    assert all(x.shape[0] == 2 for x in tape.data.values())
    seen = []
    with capture(pipe, 'tq tk hidden', probe=lambda site, *x: seen.append((site.layer, site.grid, x[0].shape))):
        assert torch.equal(plain, call(pipe, TWO, guided=guided))
    assert seen and all(shape[-2] == grid.n and grid == tape.grid_of(layer) for layer, grid, shape in seen)


class Boom(Exception):
    pass


def boom(error):
    def f(*args, **kwargs):
        raise error
    return f


def observed(pipe, case, patch):
    kind, _, where = case.partition(' in ')
    if where:
        target = {'attention': module(pipe, sites(pipe)[5]['path']).to_q, 'block': module(pipe, 'up_blocks.0.resnets.0'),
                  'model': pipe.unet.conv_out, 'between': pipe.scheduler}[where]
        name = 'step' if where == 'between' else 'forward'
        patch.setattr(target, name, boom({'error': Boom(), 'interrupt': KeyboardInterrupt()}[kind]))
    options = {'probe raises': dict(probe=boom(Boom())), 'too big': dict(budget='1 KB'), 'bad layer': dict(layers=99),
               'no such kind here': dict(layers=3), 'no branch': dict(branch='uncond')}.get(case, {})
    with capture(pipe, **({'kinds': 'q tk hidden'} | options)), edit(pipe, 'tq', lambda site, q: q):
        call(pipe)
        if case == 'twice':
            call(pipe)


ENDINGS = {'normal': None, 'error in attention': Boom, 'interrupt in attention': KeyboardInterrupt, 'error in block': Boom,
           'interrupt in model': KeyboardInterrupt, 'error in between': Boom, 'probe raises': Boom, 'too big': CaptureError,
           'no branch': CaptureError, 'twice': CaptureError, 'bad layer': ValueError, 'no such kind here': ValueError}


@pytest.mark.parametrize('case', ENDINGS)
def test_hooks_are_removed(pipe, case):
    leaves_nothing(pipe, call, ENDINGS[case], lambda patch: observed(pipe, case, patch))
    assert 'progress_bar' not in vars(pipe)


# -- captured tensors against plain hooks

def heads_of(x, n):
    return x.unflatten(2, (n, -1)).transpose(1, 2)


@pytest.mark.parametrize('guided', [False, True])
def test_captured_is_recomputed(pipe, guided):
    "q, k, v from the modules' inputs; places are compared one by one, in the order that a transformer would have them."
    given, undo = {}, []
    for r in sites(pipe):
        paths = {r['path'], r['path'].replace('attn1', 'attn2')} if 'motion' not in r['path'] else {r['path']}
        for path in paths if r['heads'] else ():
            def keep(m, args, kwargs, key=(r['layer'], path)):
                given[key] = args[0], kwargs.get('encoder_hidden_states')
            undo.append(module(pipe, path).register_forward_pre_hook(keep, with_kwargs=True))
    with capture(pipe, ALL, steps=0) as tape:
        call(pipe, TWO, guided=guided, steps=1)
    for handle in undo:
        handle.remove()
    with torch.no_grad():
        for (layer, path), (x, words) in given.items():
            attn, grid = module(pipe, path), tape.grid_of(layer)
            q, k, v = (heads_of(f(y), 2) for f, y in ((attn.to_q, x), *((f, x if words is None else words)
                                                                          for f in (attn.to_k, attn.to_v))))
            o = (q @ k.mT / q.shape[-1] ** .5).softmax(-1) @ v
            group, n = 't' if 'motion' in path else 'x' if 'attn2' in path else '', grid.per_frame
            for kind, want in zip('qkvo', (q, k, v, o)):
                got, each = tape.get(group + kind, layer), want.shape[0] // (4 if guided else 2)
                want = want[-2 * each:]   # the conditional rows are last
                for b in range(2):
                    for i in range(each):
                        row = want[b * each + i]
                        here = slice(i, None, n) if group == 't' else slice(i * n, (i + 1) * n)
                        here = slice(None) if group + kind in ('xk', 'xv') else here
                        assert torch.allclose(got[b][:, here], row, atol=1e-5), (group + kind, layer)


def test_attention_over_time_is_that_of_the_captured_tensors(pipe):
    with capture(pipe, 'tq tk tv to', layers=[TEMPORAL, TEMPORAL - 1], steps=0) as tape:
        call(pipe, TWO)
    for layer in (TEMPORAL - 1, TEMPORAL):
        q, k, v, o = (tape.grid_of(layer).unflatten(tape.get(n, layer)).movedim(2, -2) for n in ('tq', 'tk', 'tv', 'to'))
        assert q.shape[:5] == (2, 2, *tape.grid_of(layer).shape[1:], 3)
        assert torch.allclose((q @ k.mT / q.shape[-1] ** .5).softmax(-1) @ v, o, atol=1e-5)


@pytest.mark.parametrize('size', [(16, 16), (40, 24)])
def test_hidden_of_a_unet_block_is_its_output(pipe, size):
    "Odd sizes too: 10 x 6 becomes 5 x 3, 3 x 2, 2 x 1 on the way down, and comes back."
    seen, undo, rows = {}, [], sites(pipe)
    for r in rows:
        if r['heads'] is None:
            undo.append(module(pipe, r['path']).register_forward_hook(
                lambda m, a, out, key=r['layer']: seen.update({key: (out[0] if isinstance(out, tuple) else out).clone()})))
    with capture(pipe, 'hidden', steps=0) as tape:
        call(pipe, TWO, guided=True, steps=1, size=size)
    for handle in undo:
        handle.remove()
    assert len(seen) == 9 and card_of(pipe).layer(pipe.unet, UP) in seen
    for layer, raw in seen.items():
        got = tape.grid_of(layer).unflatten(tape.get('hidden', layer))   # (batch, frames, rows, cols, channels)
        assert torch.equal(got.flatten(0, 1), raw[6:].permute(0, 2, 3, 1)), rows[layer]['path']


def test_hidden_of_a_transformer_block_is_its_output(pipe):
    seen, undo, blocks = {}, [], card_of(pipe).blocks(pipe.unet)
    for layer in (SPATIAL, TEMPORAL):
        undo.append(blocks[layer][1].register_forward_hook(lambda m, a, out, key=layer: seen.update({key: out.clone()})))
    with capture(pipe, 'hidden', layers=[SPATIAL, TEMPORAL], steps=0) as tape:
        call(pipe, steps=1)
    for handle in undo:
        handle.remove()
    assert torch.equal(tape.get('hidden', SPATIAL)[0], seen[SPATIAL].flatten(0, 1))
    assert torch.equal(tape.get('hidden', TEMPORAL)[0], seen[TEMPORAL].transpose(0, 1).flatten(0, 1))


# -- branches

def test_branches_are_told_apart(pipe):
    for branch, prompt in (('uncond', 'blur'), ('cond', 'a cat')):
        with capture(pipe, 'q xk tq hidden', steps=0, branch=branch) as guided:
            call(pipe, guided=True, steps=1)
        with capture(pipe, 'q xk tq hidden', steps=0) as alone:
            call(pipe, prompt, steps=1)
        assert {k[3] for k in guided} == {branch}
        for (kind, layer, *_), x in alone.data.items():
            assert torch.allclose(guided.get(kind, layer), x, atol=1e-4), (kind, layer, branch)
    with capture(pipe, 'xk', layers=SPATIAL, steps=0, branch='both') as tape:
        call(pipe, guided=True)
    assert not torch.allclose(*tape.data.values(), atol=1e-4)


@pytest.mark.parametrize('guided', [False, True])
def test_a_forward_outside_a_run_is_no_guess(pipe, guided):
    "What the last run did says nothing of a forward of one's own."
    call(pipe, guided=guided, steps=1)
    x, given = some_latents(pipe, 2)
    told = dict(sample=x, timestep=torch.tensor(500), **given)
    with torch.no_grad():
        with pytest.raises(CaptureError, match=r"'cond' cannot be told apart.*hooks.announce\(pipe, 'cond'\)"), capture(pipe):
            pipe.unet(**told)
        with capture(pipe, branch='all') as every:
            pipe.unet(**told)
        with capture(pipe, branch='uncond') as named, announce(pipe, 'uncond'):
            pipe.unet(**told)
    assert {k[3] for k in every} == {'all'} and {k[3] for k in named} == {'uncond'}
    assert all(x.shape[0] == 2 for x in named.data.values())


def test_another_pipeline_on_the_same_model_is_no_guess(pipe):
    other = type(pipe)(**pipe.components)
    other.set_progress_bar_config(disable=True)
    with pytest.raises(CaptureError, match='call the pipeline that was given to capture'), capture(pipe):
        call(other, steps=1)
    with capture(other, 'tq', layers=TEMPORAL) as tape:
        call(other, steps=1)
    assert len(tape) == 1


def test_the_bar_is_the_pipelines_own(pipe, capsys):
    pipe.set_progress_bar_config(disable=False)
    with capture(pipe, 'q', steps=0):
        call(pipe)
    pipe.set_progress_bar_config(disable=True)
    assert '2/2' in capsys.readouterr().err


# -- steps

def test_steps_and_times(pipe):
    with capture(pipe, 'tq', layers=[1, -2], steps=[0, -1]) as tape:
        call(pipe, steps=4)
    assert {k[2] for k in tape} == {0, 3} == set(tape.times) and {k[1] for k in tape} == {1, 43} and tape.num_inference_steps == 4
    for i, t in enumerate(pipe.scheduler.timesteps):
        if i in tape.times:
            share = math.sqrt(1 - float(pipe.scheduler.alphas_cumprod[int(t)]))
            assert tape.times[i][0] == float(t) and abs(tape.times[i][1] - share) < 1e-6
    plan = schedule(pipe, 4)
    assert [p.t for p in plan] == pipe.scheduler.timesteps.tolist() and noise_level(pipe.scheduler, plan[0].t) == plan[0].s


# -- early exit and gradients

def test_early_exit_skips_what_comes_later(pipe):
    ran, (x, given), at = [], some_latents(pipe), step_at(pipe, 3, num_inference_steps=10)
    undo = [m.register_forward_pre_hook(lambda m, a, p=p: ran.append(p)) for p, m in pipe.unet.named_modules()
            if re.fullmatch(r'(down|up)_blocks\.\d|mid_block', p)]
    for kinds, layer, last in (('hidden', UP, UP), ('q', SPATIAL, 'down_blocks.1'), ('tq', TEMPORAL - 1, 'down_blocks.1')):
        ran.clear()
        with capture(pipe, kinds, layers=layer) as tape, until_enough(pipe):
            predict(pipe, x, at, given, 10)
        assert ran[-1] == last and tape.finished and len(tape) == 1 and list(tape.times) == [3]
    for handle in undo:
        handle.remove()
    assert not kept_hooks(pipe)


def test_gradients_flow_from_the_motion_features(pipe):
    x, given = some_latents(pipe)
    x.requires_grad_(True)
    with capture(pipe, 'hidden tk', layers=[UP, TEMPORAL], budget=Budget(grad=True)) as tape, until_enough(pipe):
        predict(pipe, x, step_at(pipe, 5, num_inference_steps=10), given, 10)
    for key in tape:
        g, = torch.autograd.grad(tape.data[key].square().sum(), x, retain_graph=True)
        assert g.abs().sum() > 0


# -- budget

def product(message):
    terms = re.search(r'would keep (.*) = ', message)[1].split(' + ')
    return sum(math.prod(int(n) for n in re.findall(r'(?:^| x )(\d+) ', term)) for term in terms)


@pytest.mark.parametrize('options', [
    dict(kinds=ALL), dict(kinds='q k v o', layers=[0, 4], steps=-1), dict(kinds='hidden', layers=UP),
    dict(kinds='hidden tq', heads=1, branch='both'), dict(kinds='xk xo', dtype='float16'), dict(kinds=ALL, branch='uncond')],
    ids=str)
def test_what_is_predicted_is_kept(pipe, options):
    form = {k: v for k, v in options.items() if k == 'dtype'}
    options = {k: v for k, v in options.items() if k != 'dtype'}
    ways_out = r'''(?s)above the budget.*layers=.*steps=.*heads=.*probe=.*budget=("|Budget\(size=')\d+ MiB'''
    with pytest.raises(CaptureError, match=ways_out) as e, capture(pipe, budget=Budget(1, **form) if form else 1, **options):
        call(pipe, TWO, guided=True)
    with capture(pipe, budget=Budget(**form), **options) as tape:
        call(pipe, TWO, guided=True)
    assert tape.nbytes == product(str(e.value)) > 0
    with capture(pipe, budget=Budget(tape.nbytes, **form), **options):
        call(pipe, TWO, guided=True)


def test_bfloat16():
    pipe = tiny('animatediff').to(torch.bfloat16)
    with pytest.raises(CaptureError) as e, capture(pipe, ALL, budget=1):
        call(pipe, steps=1)
    with capture(pipe, ALL) as tape:
        call(pipe, steps=1)
    assert tape.nbytes == product(str(e.value)) and {x.dtype for x in tape.data.values()} == {torch.bfloat16}


# -- editing, against plain hooks that do the same

def by_hand(pipe, kind, layer, f):
    "The same edit without the seam."
    path = sites(pipe)[layer]['path']
    if kind == 'hidden':
        block = card_of(pipe).blocks(pipe.unet)[layer][1]
        swap = lambda m, a, out: f(out) if not isinstance(out, tuple) else (f(out[0]), (*out[1][:-1], f(out[0])))
        return block.register_forward_hook(swap)
    attn = module(pipe, path.replace('attn1', 'attn2') if kind[0] == 'x' else path)
    if kind[-1] == 'o':
        return attn.to_out[0].register_forward_pre_hook(lambda m, a: (f(a[0]),))
    return getattr(attn, f'to_{kind[-1]}').register_forward_hook(lambda m, a, out: f(out))


@pytest.mark.parametrize('kind, layer', [
    *combinations(['q', 'k', 'v', 'o', 'xq', 'xk', 'xv', 'xo'], [SPATIAL]), *combinations(['tq', 'tk', 'tv', 'to'], [TEMPORAL]),
    *combinations(['hidden'], [SPATIAL, TEMPORAL, 3, 18, 30])])
def test_edits_are_what_plain_hooks_do(pipe, kind, layer):
    plain, half = call(pipe, TWO, steps=1), lambda x: x * .5 + .25
    with edit(pipe, kind, lambda site, x: half(x), layers=layer):
        edited = call(pipe, TWO, steps=1)
    handle = by_hand(pipe, kind, layer, half)
    same = call(pipe, TWO, steps=1)
    handle.remove()
    assert torch.allclose(edited, same, atol=1e-5) and not torch.allclose(edited, plain, atol=1e-6)
    with edit(pipe, kind, lambda site, x: x, layers=layer):
        assert torch.allclose(call(pipe, TWO, steps=1), plain, atol=1e-6)


@pytest.mark.parametrize('kind, layer', [('q', SPATIAL), ('tq', TEMPORAL), ('xk', SPATIAL), ('hidden', 3)])
def test_edits_change_what_was_chosen_and_nothing_else(pipe, kind, layer):
    options = dict(kinds=kind, steps=[0, 1], branch='both')
    with capture(pipe, **options) as plain:
        call(pipe, TWO, guided=True)
    heads = {} if kind == 'hidden' else dict(heads=1)
    with edit(pipe, kind, lambda site, x: x + 1, layers=layer, steps=1, branch='uncond', **heads), capture(pipe, **options) as tape:
        call(pipe, TWO, guided=True)
    for site, x in plain.data.items():
        if site[2] == 0 or site[3] == 'cond' or site[1] < layer:
            assert torch.equal(tape.data[site], x), site
        elif site[1] == layer:
            added = tape.data[site] - x
            assert torch.allclose(added[:, 1:], torch.ones(()), atol=1e-5)
            assert kind == 'hidden' or not added[:, 0].any()


@pytest.mark.parametrize('kind, layer, n', [('mask', SPATIAL, 4), ('tmask', TEMPORAL, 3)])
def test_a_mask_is_a_masked_softmax(pipe, kind, layer, n):
    seen, g = [], 't' * (kind[0] == 't')

    def past_only(site, mask):
        seen.append(tuple(mask.shape))
        mask &= torch.ones(n, n).tril().bool()

    with edit(pipe, kind, past_only, layers=layer, heads=[0], steps=0), \
            capture(pipe, [g + k for k in 'qkvo'], layers=layer, steps=0) as tape:
        call(pipe, TWO, steps=1)
    assert seen == [(2, 1, {'mask': 3, 'tmask': 4}[kind], n, n)]
    q, k, v, o = (tape.grid_of(layer).unflatten(tape.get(g + i, layer)).flatten(3, 4) for i in 'qkvo')
    if g:
        q, k, v, o = (x.transpose(2, 3) for x in (q, k, v, o))
    logits = q @ k.mT / q.shape[-1] ** .5
    logits[:, 0] = logits[:, 0].masked_fill(~torch.ones(n, n).tril().bool(), -torch.inf)
    assert torch.allclose(logits.softmax(-1) @ v, o, atol=1e-5)


# -- text

def test_text_slots_of_clip(pipe):
    text = text_of(pipe, 'A cat saw cats')
    assert len(text) == text_length(pipe) == 77 and text.pieces[0] == '<|startoftext|>'
    n = 1 + len('acatsawcats')
    assert text.pad.tolist() == [i > n for i in range(77)] and text.pieces[n] == text.pieces[n + 1] == '<|endoftext|>'

    def spelt(slots):
        return ''.join(text.pieces[i] for i in slots).replace('</w>', '')

    assert spelt(text.slots('a')) == 'a' and text.slots('a') == [1]
    assert spelt(text.slots('cat')) == 'cat' and spelt(text.slots('cats')) == 'cats' and spelt(text.slots('a cat')) == 'acat'
    for absent in ('ca', 'dog', 'ats'):
        with pytest.raises(ValueError, match='choose among A, cat, saw, cats'):
            text.slots(absent)
    assert not text_of(pipe, 'a' * 75).pad.any() and text_of(pipe, 'Größe 3 <b>').pad.any()
    with pytest.raises(ValueError, match='more than the 77 tokens that the model reads'):
        text_of(pipe, 'word ' * 40)


def test_conditions_are_those_of_the_pipeline(pipe):
    seen = {}
    undo = pipe.unet.register_forward_pre_hook(lambda m, a, k: seen.update(x=a[0], **k), with_kwargs=True)
    call(pipe, TWO, steps=1)
    undo.remove()
    card = card_of(pipe)
    given = card.conditions(pipe, TWO, card.grid_of_latents(pipe, tuple(seen['x'].shape)))
    assert torch.equal(given['encoder_hidden_states'], seen['encoder_hidden_states'])
    assert card.grid_of_latents(pipe, tuple(seen['x'].shape)) == card.grid(pipe, 3, 16, 16)


def test_a_text_of_its_own_for_each_frame(pipe):
    "As with prompts that travel: the slots of all frames are shown, and an edit reaches each."
    x, _ = some_latents(pipe)
    words = torch.randn(3, 77, 16, generator=torch.Generator().manual_seed(1))
    given, at = dict(encoder_hidden_states=words), step_at(pipe, 5, num_inference_steps=10)
    attn = module(pipe, sites(pipe)[SPATIAL]['path'].replace('attn1', 'attn2'))
    with capture(pipe, 'xq xk xv xo', layers=SPATIAL) as tape, announce(pipe, 'cond'):
        plain = predict(pipe, x, at, given, 10)
    k = tape.get('xk', SPATIAL, tokens='text').unflatten(2, (3, 77))
    for i in range(3):
        assert torch.allclose(k[0, :, i], heads_of(attn.to_k(words[i:i + 1]), 2)[0], atol=1e-5)
    with capture(pipe, 'xq xk xv xo', layers=SPATIAL, budget=tape.nbytes), edit(pipe, 'xk', lambda s, k: k, layers=SPATIAL), \
            until_enough(pipe):
        predict(pipe, x, at, given, 10)
    with edit(pipe, 'xk', lambda s, k: k, layers=SPATIAL):
        assert torch.allclose(predict(pipe, x, at, given, 10), plain, atol=1e-6)


# -- the ways to drive it

def test_generate_is_the_pipelines_own_call(pipe):
    options = dict(num_inference_steps=2, frames=3, size=(16, 16))
    own = pipe('a cat', num_inference_steps=2, num_frames=3, height=16, width=16, output_type='pt',
               generator=torch.Generator().manual_seed(5)).frames[0].movedim(1, -1)
    alone = generate(pipe, 'a cat', seed=5, **options)
    assert torch.equal(alone.video, own.clamp(0, 1)) and alone.facts['guidance'] == 7.5
    batch = generate(pipe, TWO, seed=5, **options)
    assert [s.seed for s in batch] == [5, 6] and torch.allclose(batch[0].video, alone.video, atol=1e-4)
    twice = generate(pipe, 'a cat', seed=5, num_videos_per_prompt=2, guidance=1, on_step=lambda *_: None, **options)
    assert len(twice) == 2 and not torch.equal(twice[0].video, twice[1].video)
    assert default_size(pipe) == (16, 32, 32)
    with pytest.raises(ValueError, match='33 frames, but the motion modules know 32: use 32 or less'):
        generate(pipe, 'a cat', frames=33)
    with pytest.raises(ValueError, match='height is 18 px.*use 16 or 20'):
        generate(pipe, 'a cat', size=(18, 16))


def test_latents_are_those_of_the_image_vae(pipe):
    video = real(11)
    z = encode(pipe, video)
    assert z.shape == (1, 4, 11, 4, 4) and torch.equal(z, encode(pipe, video, 'frames'))
    with torch.no_grad():
        for i in (0, 10):
            one = pipe.vae.encode(video[i].movedim(-1, 0)[None] * 2 - 1).latent_dist.mean * pipe.vae.config.scaling_factor
            assert torch.allclose(z[:, :, i], one, atol=1e-5)
    latents, shown = call(pipe, steps=1), call(pipe, steps=1, output_type='pt')[0].movedim(1, -1)
    assert torch.allclose(decode(pipe, latents), shown.clamp(0, 1), atol=1e-5)
    for frames, found in ((50, 16), (16, 16), (5, 5), (1, 1)):
        assert fit_video(pipe, torch.rand(frames, 20, 30, 3)).shape == (found, 32, 32, 3)


@pytest.mark.parametrize('where', [dict(step=-4, num_inference_steps=10), dict(sigma=.5)])
def test_renoise_blends(pipe, where):
    with capture(pipe, 'hidden', layers=UP, branch='both') as tape:
        found = renoise(pipe, real(3), 'a cat', seed=7, **where)
    noise = torch.randn(found.latents.shape, generator=torch.Generator().manual_seed(7))
    assert torch.equal(found.noisy, found.step.a * found.latents + found.step.s * noise) and found.prediction is None
    assert found.grid == tape.grid and {k[2:] for k in tape} == {(found.step.index, 'cond')}
    assert abs(tape.times[found.step.index][1] - found.step.s) < 1e-6
    whole = renoise(pipe, real(3), 'a cat', seed=7, full=True, **where)
    with torch.no_grad():
        plain = pipe.unet(whole.noisy, int(whole.step.t), **conditions(pipe, 'a cat', whole.latents)).sample
    assert torch.equal(whole.prediction, plain) and not kept_hooks(pipe)


def test_inversion_leads_back(pipe):
    "And the way back is the stock DDIM scheduler's own."
    z, given = some_latents(pipe)
    with capture(pipe, 'hidden', layers=UP) as tape:
        found = invert(pipe, z, 'a cat', num_inference_steps=6, refine=4)
    assert found.error < .1 and sorted(k[2] for k in tape) == list(range(6)) and found.video.shape == (3, 16, 16, 3)
    assert found.error < .3 * invert(pipe, z, 'a cat', num_inference_steps=6, refine=0).error
    x = found.noise
    pipe.scheduler.set_timesteps(6)
    for p, t in zip(schedule(pipe, 6), pipe.scheduler.timesteps):
        x = pipe.scheduler.step(predict(pipe, x, p, given, 6), t, x, eta=0., return_dict=False)[0]
    assert abs(float((x - z).norm() / z.norm()) - found.error) < 1e-3


def test_a_saved_pipeline_loads_again_and_has_a_twin(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / 'ad')
    again = load(tmp_path / 'ad', device='cpu')
    again.set_progress_bar_config(disable=True)
    assert torch.equal(call(again, steps=1), call(pipe, steps=1)) and text_of(again, 'a cat') is not None
    randomise(again, seed=1)
    own, drawn = pipe.unet.state_dict(), again.unet.state_dict()
    assert any(not torch.equal(x, drawn[k]) for k, x in own.items())


def test_tapes_keep_the_grids(pipe, tmp_path):
    with capture(pipe, 'tq hidden', layers=[TEMPORAL, UP, 0], steps=0) as tape:
        call(pipe, steps=1)
    again = Tape.load(tape.save(tmp_path / 'one.tape'))
    assert again.grids == tape.grids and again.grid_of(-1) == tape.grid_of(44) == tape.grid and again.times == tape.times
    grid = again.grid_of(TEMPORAL)
    assert (grid.stride, grid.shape, grid.temporal, grid.causal) == (8, (3, 2, 2), 1, False)
    assert (grid.height, grid.width, grid.video_frames) == (16, 16, 3)


# -- what is beside the stock pipeline

def test_sparse_control(pipe):
    "An image is animated: the control net runs beside the UNet, and only the UNet is seen."
    from diffusers import AnimateDiffSparseControlNetPipeline, SparseControlNetModel

    torch.manual_seed(0)
    control = SparseControlNetModel(
        block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=16,
        num_attention_heads=2, motion_num_attention_heads=2, conditioning_channels=3, use_simplified_condition_embedding=False,
        conditioning_embedding_out_channels=(4, 8, 8)).eval()
    for p in control.parameters():
        p.data += .05 * torch.randn_like(p)   # its outputs start at zero
    parts = {k: v for k, v in pipe.components.items() if k not in ('image_encoder', 'feature_extractor')}
    sparse = AnimateDiffSparseControlNetPipeline(**parts, controlnet=control)
    sparse.set_progress_bar_config(disable=True)
    picture = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    options = dict(num_inference_steps=2, frames=3, size=(16, 16), conditioning_frames=picture, controlnet_frame_indices=[0])
    plain = generate(sparse, 'a cat', **options)
    with capture(sparse, ALL, branch='both') as tape:
        assert torch.equal(generate(sparse, 'a cat', **options).video, plain.video)
    assert {k[3] for k in tape} == {'cond', 'uncond'} and len(tape) == 4 * sum(len(r['kinds'].split()) for r in sites(sparse))
    other = generate(sparse, 'a cat', **(options | dict(conditioning_frames=1 - picture)))
    assert not torch.equal(other.video, plain.video)


def test_other_processors_are_named():
    from diffusers.models.attention_processor import AttnProcessor

    pipe = tiny('animatediff')
    pipe.unet.set_attn_processor(AttnProcessor())
    n = sum('tq' in r['kinds'] for r in sites(pipe))
    with pytest.raises(CaptureError, match=f'attention ran {n} times, but never .*AttnProcessor.*set_attn_processor'), \
            capture(pipe, 'tq'):
        call(pipe, steps=1)
    pipe.unet.up_blocks[1].compile()
    with pytest.raises(CaptureError, match=r'pipe.unet.up_blocks.1 .*compiled'), capture(pipe, 'q'):
        pass


def test_guidance_across_frames_is_refused(pipe):
    "There is no attention across places and frames to perturb: without this, it would do nothing."
    from vidlens.motion.cag import CAG

    with pytest.raises(CaptureError, match='CAG replaces attention over all of the video, but layer 0 of this AnimateDiff'), \
            CAG(pipe, layers=0):
        call(pipe, steps=1)


def test_sequences_of_another_length_are_named(pipe):
    "As FreeNoise's windows over time, or merged tokens."
    stack = card_of(pipe).blocks(pipe.unet)[TEMPORAL][2]
    with pytest.raises(ValueError, match=r'down_blocks.1.motion.*: 2 tokens in a sequence, where the grid .* has 3: FreeNoise'):
        stack.fold(torch.zeros(4, 2, 2, 4), card_of(pipe).grid(pipe, 3, 8, 8))
