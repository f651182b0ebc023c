"""Free words beside a run: the published concept stream, block by block, and a run that stays what it is."""
import pytest
import torch
import torch.nn.functional as F
from seam import call, kept_hooks, leaves_nothing, pipe_of
from test_golden_maps import NAMES, close, grid_of, load
from torch.overrides import TorchFunctionMode

from vidlens.seam.card import card_of
from vidlens.seam.concepts import PATHS, Concepts, _attend, concept_stream, encode_concepts
from vidlens.seam.families import tiny
from vidlens.seam.capturing import capture
from vidlens.seam.hooks import CaptureError
from vidlens.words.heads import HeadChoice, select_heads, separability
from vidlens.words.maps import Contrast, concept_attention_map, concept_maps, cross_attention_map, surrogate

WORDS = ['cat', 'a dog runs', '']


# -- the published block

class Seen(TorchFunctionMode):
    "Keeps what goes in and out of attention."
    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is F.scaled_dot_product_attention:
            given = dict(zip(('query', 'key', 'value'), args)) | (kwargs or {})
            self.calls.append((given['query'], given['key'], given['value'], out))
        return out


def weights(z):
    return {k.removeprefix('in_weight::'): v for k, v in z.items() if k.startswith('in_weight::')}


def block_of(z, case):
    from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
    from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformerBlock
    from diffusers.models.transformers.transformer_wan import WanTransformerBlock

    heads, d = z['p_heads'], z['p_head_dim']
    w = weights(z)
    if case == 'hunyuan':
        block = HunyuanVideoTransformerBlock(heads, d, w['ff.net.2.weight'].shape[1] / (heads * d))
    elif case == 'wan':
        block = WanTransformerBlock(heads * d, w['ffn.net.2.weight'].shape[1], heads, cross_attn_norm=True)
    else:
        block = CogVideoXBlock(heads * d, heads, d, z['in_temb'].shape[1], ff_inner_dim=w['ff.net.2.weight'].shape[1],
                               attention_bias='attn1.to_q.bias' in w)
    block.load_state_dict(w)
    return block.eval()


def run_block(z, case):
    "The block's own outputs, and q, k, v, o of its attention to the text."
    block, rope = block_of(z, case), (z['in_rope_cos'], z['in_rope_sin']) if 'in_rope_cos' in z else None
    with torch.no_grad(), Seen() as seen:
        if case == 'wan':
            out = block(z['in_hidden_states'], z['in_encoder_hidden_states'], z['in_temb'], rope)
        elif case == 'hunyuan':
            out = block(z['in_hidden_states'], z['in_encoder_hidden_states'], z['in_temb'], z['in_attention_mask'].bool(), rope)
        else:
            out = block(z['in_hidden_states'], z['in_encoder_hidden_states'], z['in_temb'], rope)
    return block, out, [x if x.shape[1] == z['p_heads'] else x.transpose(1, 2) for x in seen.calls[-1]]


def check_maps(z, q, o, keys, concept_out):
    "Heads and the four published maps of the batch row that they are read from."
    grid = grid_of(z)
    assert torch.equal(surrogate(q, keys, grid), z['out_token_index_heads_texts_frames'])
    by = NAMES[z['p_sep_score']]
    scores = separability(o, grid, degenerate='published')[by]
    close(scores, z['out_head_scores'])
    heads = select_heads(scores, HeadChoice(z['p_topk'], by))
    assert heads.tolist() == z['out_selected_heads'].tolist()
    close(concept_maps(q, o, keys, grid, heads, contrast=Contrast('slots')).flatten(1), z['out_map_sel_imap'], 1e-3)
    close(concept_maps(q, o, keys, grid, contrast=Contrast('slots'), reduce='sum').flatten(1), z['out_map_imap'], 1e-3)
    if concept_out is not None:
        close(concept_attention_map(concept_out, o, grid).flatten(1), z['out_map_concept_attention_maps'])


@pytest.mark.parametrize('case', ['cogvideox_rope', 'cogvideox_norope_prompt', 'hunyuan'])
def test_11_stream_through_a_stock_block(case):
    z = load(f'11_block__{case}')
    block, (hidden, text), (q, k, v, o) = run_block(z, case)
    close(hidden, z['out_hidden_states']), close(text, z['out_encoder_hidden_states'])
    row, n = z['p_saliency_batch_index'], z['p_text_len']
    video = slice(0, -n) if case == 'hunyuan' else slice(n, None)
    path, c = PATHS[type(block).__name__], z['in_concept_hidden_states']
    with torch.no_grad():
        qkv, rest = path.begin(block, c, z['in_temb'])
        out = _attend(qkv, k[:, :, video], v[:, :, video], None)      # all together, as published
        c = path.end(block, c, out.transpose(1, 2).flatten(2), rest)
    close(c, z['out_concept_hidden_states_fixed' if case == 'hunyuan' else 'out_concept_hidden_states'])
    keys = qkv[1] if z['p_qk_matching_target'] == 'concepts' else k[:, :, slice(-n, None) if case == 'hunyuan' else slice(n)]
    check_maps(z, q[row][:, video], o[row][:, video], keys[row], out[row])
    asked = z['p_qk_matching_target'] == 'concepts'
    published = cross_attention_map(q[row][:, video], qkv[1][row], grid_of(z), scale=1.)
    if asked:
        close(published.flatten(1), z['out_map_cross_attention_maps'])


def test_11_block_of_wan():
    z = load('11_block__wan')
    _, hidden, (q, k, _, o) = run_block(z, 'wan')
    close(hidden, z['out_hidden_states'])
    check_maps(z, q[0], o[0], k[0], None)
    twice = cross_attention_map(q[0], k[0], grid_of(z), scale=1 / z['p_head_dim'], softmax='slots')
    close(twice.flatten(1), z['out_map_cross_attention_maps'])


# -- beside a run

@pytest.fixture(params=['cogvideox', 'wan', 'hunyuanvideo'])
def pipe(request):
    return pipe_of(request.param)


def kinds_of(pipe):
    return {'ck', 'cv'} if card_of(pipe).text == 'cross' else {'cq', 'ck', 'cv', 'co'}


@pytest.mark.parametrize('guided', [False, True])
def test_output_is_bit_identical(pipe, guided):
    plain = call(pipe, guided=guided)
    with concept_stream(pipe, WORDS, branch='both') as tape:
        assert torch.equal(plain, call(pipe, guided=guided))
    assert {k[0] for k in tape} == kinds_of(pipe) and tape.finished and not kept_hooks(pipe)
    made = encode_concepts(pipe, WORDS)
    assert all(x.shape[2] == len(made.owner) and x.isfinite().all() for x in tape.data.values())
    assert {k[2] for k in tape} == {0, 1} and len({k[3] for k in tape}) == 1 + guided


def test_a_concept_does_not_depend_on_others(pipe):
    with concept_stream(pipe, 'cat') as alone:
        call(pipe)
    with concept_stream(pipe, WORDS) as beside:
        call(pipe)
    own, kind = beside.facts['concepts']['spans'][0], 'ck' if card_of(pipe).text == 'cross' else 'co'
    for key in (k for k in alone if k[0] == kind):
        torch.testing.assert_close(beside.data[key][:, :, own], alone.data[key], rtol=1e-4, atol=1e-5)
    if kind == 'ck':        # where text has its own attention, concepts never meet
        with pytest.raises(ValueError, match='so that no word attends to another: leave it out'):
            concept_stream(pipe, WORDS, together=True)
        return
    with concept_stream(pipe, WORDS, together=True) as crowd:
        call(pipe)
    last = max(k for k in alone if k[0] == kind)
    assert not torch.allclose(crowd.data[last][:, :, own], alone.data[last], atol=1e-4)


def test_rows_of_a_batch_are_apart(pipe):
    with concept_stream(pipe, ['cat']) as two:
        call(pipe, ['a cat runs', 'two dogs'])
    for row, prompt in enumerate(['a cat runs', 'two dogs']):
        with concept_stream(pipe, ['cat']) as one:
            call(pipe, prompt, seed=row)
        for key, x in one.data.items():
            got = two.data[key] if len(two.data[key]) == 1 else two.data[key][row:row + 1]
            torch.testing.assert_close(got, x, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('family', ['cogvideox', 'wan'])
def test_the_prompts_own_word_as_a_concept(family):
    """In the first layer, before it met anything, a concept's key is the key of the same word said as a prompt.

    (HunyuanVideo's refiner has mixed the words of a prompt by then.)"""
    pipe = pipe_of(family)
    kind, text = ('xk', None) if card_of(pipe).text == 'cross' else ('k', 'text')
    with capture(pipe, kind, layers=0, steps=0) as tape, concept_stream(pipe, 'cat', layers=0, steps=0) as beside:
        call(pipe, 'cat', max_sequence_length=card_of(pipe).tokens(pipe, 'cat').pad.shape[0])
    keys = tape.get(kind, 0, tokens='text') if text else tape.get(kind, 0)
    slot = card_of(pipe).tokens(pipe, 'cat').slots('cat')
    torch.testing.assert_close(beside.get('ck', 0), keys[:, :, slot], rtol=1e-4, atol=1e-5)


def test_layers_and_steps(pipe):
    with concept_stream(pipe, ['cat'], layers=1, steps=-1) as some:
        call(pipe)
    with concept_stream(pipe, ['cat']) as all_of_it:
        call(pipe)
    assert {k[1:3] for k in some} == {(1, 1)}
    assert all(torch.equal(x, all_of_it.data[k]) for k, x in some.data.items())


def test_probe_sees_the_video_too(pipe):
    shown = {}
    cross = card_of(pipe).text == 'cross'
    def probe(site, *x): shown[site.key] = x
    seen = capture(pipe, 'xq xo' if cross else 'q o', tokens='video', layers=1, steps=0)
    with seen as tape, concept_stream(pipe, ['cat'], layers=1, steps=0, probe=probe) as nothing:
        call(pipe)
    (q, o, ck, co), = shown.values()
    assert len(nothing) == 0 and torch.equal(q, tape.get('xq' if cross else 'q', 1)) and (co is None) == cross
    assert torch.equal(o, tape.get('xo' if cross else 'o', 1)) and ck.shape[2] == len(encode_concepts(pipe, 'cat').owner)


class Boom(Exception):
    pass


def raised(*args, **kwargs):
    raise Boom


@pytest.mark.parametrize('case', ['normal', 'probe raises', 'model raises'])
def test_hooks_are_removed(pipe, case):
    def ran(patch):
        if case == 'model raises':
            patch.setattr(pipe.scheduler, 'step', raised)
        with concept_stream(pipe, WORDS, probe=raised if case == 'probe raises' else None):
            call(pipe)
    leaves_nothing(pipe, call, None if case == 'normal' else Boom, ran)


def test_a_unet_has_keys_of_concepts():
    pipe = tiny('animatediff')
    from test_unet import call as run
    plain = run(pipe)
    with concept_stream(pipe, ['cat', '']) as tape, capture(pipe, 'xk xq') as seen:
        assert torch.equal(plain, run(pipe))
    assert {k[0] for k in tape} == {'ck', 'cv'} and {k[1] for k in tape} == {k[1] for k in seen}
    assert all(x.shape[1] == seen.get('xk', k[1], k[2]).shape[1] for k, x in tape.data.items())


@pytest.mark.parametrize('given, says', [
    (dict(words=[]), 'at least one'), (dict(words=['cat', 'cat']), 'each once'), (dict(words=' '), 'blank'),
    (dict(words='cat', layers=99), 'outside this run'), (dict(words='cat', steps=[]), 'steps'),
    (dict(words='cat', branch='left'), 'branch')])
def test_bad_input(pipe, given, says):
    with pytest.raises(ValueError, match=says), concept_stream(pipe, **given):
        call(pipe)
    assert not kept_hooks(pipe)


def test_single_blocks_have_no_text_half():
    pipe = pipe_of('hunyuanvideo')
    with pytest.raises(ValueError, match='choose layers up to 1'):
        concept_stream(pipe, 'cat', layers=3)
    with pytest.raises(CaptureError, match='did not run'), concept_stream(pipe, 'cat'):
        pass


def test_a_word_that_is_cut_off():
    pipe = pipe_of('wan')
    made = encode_concepts(pipe, ['cat'])
    assert isinstance(made, Concepts) and made.spans == [list(range(len(made.owner)))] and made.text.isfinite().all()
    with pytest.raises(ValueError, match='not in the prompt'):
        encode_concepts(pipe, ['cat ' * 600])
