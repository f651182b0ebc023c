"""IMAP's published numbers, through named options."""
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vidlens.core.grid import Grid
from vidlens.words.heads import HeadChoice, select_heads, separability
from vidlens.words.maps import (Contrast, aggregate, concept_attention_map, concept_maps, cross_attention_map, gram_col,
                                surrogate)

GOLDEN = Path(__file__).parent / 'golden'
NAMES = {'CHI': 'chi', 'Fisher': 'fisher', 'DBI': 'dbi'}


def load(name):
    return {k: torch.from_numpy(v.astype(np.float32) if v.dtype == np.float16 else v) if v.ndim else v.item()
            for k, v in np.load(GOLDEN / f'{name}.npz', allow_pickle=False).items()}


def close(a, b, tol=1e-5):
    assert a.shape == b.shape
    assert ((a.double() - b.double()).abs() <= 1e-4 * b.double().abs() + tol * b.double().abs().max()).all()


def grid_of(z):
    return Grid(z['p_F'], z['p_h'], z['p_w'])


def hidden(z):
    n = z['p_text_len']
    cut = slice(0, -n) if z.get('p_text_seq_back') else slice(n, None)
    return z['in_hidden'][:, cut]


def published_scores(z):
    return separability(hidden(z), grid_of(z), degenerate='published')


@pytest.mark.parametrize('case', ['back', 'front', 'subsampled'])
def test_07_scores(case):
    z = load(f'07_select_head__{case}')
    for name, by in NAMES.items():
        close(published_scores(z)[by], z[f'out_score_{name}'])
        close(separability(hidden(z), grid_of(z))[by], z[f'out_score_{name}'])   # the default agrees where all is well


def test_07_degenerate():
    z = load('07_select_head__degenerate')
    s, right = published_scores(z), separability(hidden(z), grid_of(z))
    close(s['chi'], z['out_score_CHI'])
    close(s['dbi'], z['out_score_DBI'])
    ours, theirs = s['fisher'].double(), z['out_score_Fisher']
    close(ours[[0, 1, 3]], theirs[[0, 1, 3]])
    assert .1 < ours[2] / theirs[2] < 10
    for name, by in NAMES.items():
        assert select_heads(s[by], HeadChoice(2, by)).tolist() == z[f'out_heads_{name}_top2'].tolist()
        assert right[by][1:3].isnan().all()
        assert select_heads(right[by], HeadChoice(2, by)).tolist() == [0, 3]


@pytest.mark.parametrize('case', ['back', 'front', 'subsampled'])
def test_07_heads(case):
    z, seen = load(f'07_select_head__{case}'), 0
    for name, by in NAMES.items():
        s, options = published_scores(z)[by], dict(strict=False)
        for key, want in z.items():
            if not key.startswith(f'out_heads_{name}_'):
                continue
            what, seen = key.removeprefix(f'out_heads_{name}_'), seen + 1
            if what.startswith('threshold'):   # published order: by head number
                at = z[f'p_{what.removesuffix("_custom").replace("threshold_default", "default_threshold")}_{name}']
                got = sorted(select_heads(s, HeadChoice(None, by, at), **options).tolist())
            else:
                k, skip = [int(v) for v in what.removeprefix('topk').split('_except')] if 'topk' in what else (2, 0)
                got = select_heads(s, HeadChoice(k, by, skip=skip), **options).tolist()
            assert got == want.tolist(), key
    assert seen == (3 if case == 'subsampled' else 30)


@pytest.mark.parametrize('case', ['a', 'b'])
def test_08_surrogate(case):
    z = load(f'08_select_visual_token__{case}')
    q, k, grid = z['in_image_query'], z['in_text_key'], grid_of(z)
    assert torch.equal(surrogate(q, k, grid), z['out_index_heads_texts_frames'])
    twice = cross_attention_map(q, k, grid, scale=1 / q.shape[-1], reduce=None)
    close(twice.flatten(2), z['out_returned_logits_heads_texts_patches'])


CASES = ['cogvideox_concepts', 'cogvideox_prompt', 'hunyuan_concepts', 'wan_prompt']


def outputs(z):
    "Attention outputs of the video and of the concepts, recomputed from q, k, v."
    q, scale = z['in_image_query'], z['p_sdpa_scale']
    if 'in_image_key' not in z:
        return F.scaled_dot_product_attention(q, z['in_text_key'], z['in_text_value'], scale=scale), None
    o = F.scaled_dot_product_attention(q, torch.cat([z['in_text_key'], z['in_image_key']], 1),
                                       torch.cat([z['in_text_value'], z['in_image_value']], 1), scale=scale)
    c = F.scaled_dot_product_attention(z['in_concept_query'], torch.cat([z['in_concept_key'], z['in_image_key']], 1),
                                       torch.cat([z['in_concept_value'], z['in_image_value']], 1), scale=scale)
    return o, c


@pytest.mark.parametrize('case', CASES)
def test_09_maps(case):
    z = load(f'09_imap_maps__{case}')
    grid, q = grid_of(z), z['in_image_query']
    key = z['in_concept_key'] if z['p_qk_matching_target'] == 'concepts' else z['in_text_key']
    o, _ = outputs(z)
    close(o, z['out_attn_out_visual'])
    index = surrogate(q, key, grid)
    assert torch.equal(index, z['out_token_index_heads_texts_frames'])
    close(gram_col(o, index, grid), z['out_gram_raw_heads_texts_frames_patches'])
    by = NAMES[z['p_sep_score']]
    scores = separability(o, grid, degenerate='published')[by]
    close(scores, z['out_head_scores'])
    heads = select_heads(scores, HeadChoice(z['p_topk'], by))
    assert heads.tolist() == z['out_selected_heads'].tolist()
    each = concept_maps(q, o, key, grid, contrast=Contrast('slots'), reduce=None)
    close(each.flatten(2), z['out_imap_per_head_zscored'], 1e-3)
    selected = concept_maps(q, o, key, grid, heads, Contrast('slots'))
    close(selected.flatten(1), z['out_map_sel_imap'], 1e-3)
    every = concept_maps(q, o, key, grid, contrast=Contrast('slots'), reduce='sum')
    close(every.flatten(1), z['out_map_imap'], 1e-3)


@pytest.mark.parametrize('case', CASES)
def test_09_baselines(case):
    z = load(f'09_imap_maps__{case}')
    grid, q = grid_of(z), z['in_image_query']
    o, o_concept = outputs(z)
    if o_concept is None:   # Wan: logits scaled twice, softmax over the texts
        cross = cross_attention_map(q, z['in_text_key'], grid, scale=1 / q.shape[-1], softmax='slots')
    else:
        cross = cross_attention_map(q, z['in_concept_key'], grid, scale=1.)
        close(o_concept, z['out_attn_out_concept'])
        close(concept_attention_map(o_concept, o, grid).flatten(1), z['out_map_concept_attention_maps'])
    close(cross.flatten(1), z['out_map_cross_attention_maps'])


AGGREGATED = ['cogvideox_concepts', 'cogvideox_concepts_nosoftmax', 'cogvideox_concepts_single', 'cogvideox_prompt',
              'hunyuan_concepts', 'wan_prompt']


def aggregated(z, key):
    "Raw maps on their grid, and the published choice of layers, words and steps for this key."
    own = key.endswith('_layers')    # its layers are those chosen for IMAP
    maps = z[f'in_raw__{key.removesuffix("_layers")}'].unflatten(-1, grid_of(z).shape)
    of_prompt = z['p_model'] == 'wan' or 'imap' in key and z['p_qk_matching_target'] == 'prompt'
    wanted = z['p_wanted_steps'].tolist()
    return maps, dict(layers=z['p_imap_layer' if own else 'p_layers'],
                      words=range(z['p_n_tokens' if of_prompt else 'p_n_concepts']),
                      steps=[i for i, s in enumerate(z['p_collected_steps'].tolist()) if s in wanted])


def same(a, b):
    assert a.shape == b.shape and (a - b).abs().max() <= 1e-6 * b.abs().max()


def keys_of(z):
    return [k.removeprefix('out_final__') for k in z if k.startswith('out_final__')]


@pytest.mark.parametrize('case', AGGREGATED)
def test_10_aggregate(case):
    z = load(f'10_aggregate__{case}')
    for key in keys_of(z):
        maps, choice = aggregated(z, key)
        got = aggregate(maps, **choice, softmax=None if z['p_except_softmax'] else 'published')
        same(got, z[f'out_final__{key}'])
    assert len(keys_of(z)) == (6 if z['p_model'] == 'wan' else 8)


@pytest.mark.parametrize('case', AGGREGATED)
def test_10_halves(case):
    "The first half, step by step, is the published intermediate; the second half of that is the result."
    z = load(f'10_aggregate__{case}')
    soft = not z['p_except_softmax']
    for key in keys_of(z):
        maps, choice = aggregated(z, key)
        want, steps = z[f'out_after_layers__{key}'], choice.pop('steps')
        early = [aggregate(maps, steps=[s], **choice, softmax='early' if soft else None) for s in range(len(maps))]
        same(torch.stack(early).flatten(2), want)
        joined = want.unflatten(-1, grid_of(z).shape)[:, None]
        same(aggregate(joined, steps=steps, softmax='late' if soft else None), z[f'out_final__{key}'])


@pytest.mark.parametrize('case', AGGREGATED)
def test_10_every_option_matters(case):
    "With any one option at another value the published figures are missed: so the tests above can fail."
    z = load(f'10_aggregate__{case}')
    for key in keys_of(z):
        maps, choice = aggregated(z, key)
        right = dict(choice, softmax=None if z['p_except_softmax'] else 'published')
        n = maps.shape[2]
        others = [dict(softmax=s) for s in (None, 'early', 'late', 'published') if s != right['softmax']]
        others += [dict(layers=right['layers'][:1]), dict(words=range(n - len(right['words']), n))]
        others += [dict(steps=right['steps'][:1])]
        for other in others:
            with pytest.raises(AssertionError):
                close(aggregate(maps, **right | other), z[f'out_final__{key}'], 1e-3)
    # steps that were collected and not wanted do count, where there are some
    if len(right['steps']) < len(maps):
        with pytest.raises(AssertionError):
            close(aggregate(maps, **right | dict(steps=None)), z[f'out_final__{key}'], 1e-3)
