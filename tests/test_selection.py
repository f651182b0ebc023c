"""Scores of heads over clips and generations are what single captures give; presets are data; bad input in a sentence."""
import json
from pathlib import Path

import pytest
import torch

from vidlens import world
from vidlens.words import selection
from vidlens.seam.card import card_of
from vidlens.seam.concepts import concept_stream
from vidlens.seam.families import tiny
from vidlens.words.heads import HeadChoice, HeadProbe, HeadTable
from vidlens.seam.capturing import capture
from vidlens.words.maps import Contrast, concept_maps
from vidlens.words.prompts import MotionPrompt
from vidlens.seam.loading import load
from vidlens.seam.run import generate, renoise, step_at, text_of
from vidlens.words.selection import map_evidence, published_choice, score_heads
from vidlens.seam.traces import trace
from vidlens.words.word_maps import imap

PROMPT = 'a cat runs'


@pytest.fixture(scope='module', params=['cogvideox', 'wan', 'hunyuanvideo'])
def family(request):
    made = tiny(request.param)
    return made, torch.rand(2, 9, 32, 32, 3, generator=torch.Generator().manual_seed(0))


def is_cross(pipe):
    return card_of(pipe).text == 'cross'


# -- evidence

def test_evidence_of_a_planted_share_is_known():
    maps = torch.zeros(2, 5, 4, 5)
    maps.view(2, 100)[0, :10], maps.view(2, 100)[1, 50:55] = 1, 1
    found = map_evidence(maps)
    assert found[0] == pytest.approx((1 - .1) / (.1 * .9) ** .5, rel=1e-5)
    assert found[1] == pytest.approx((.5 - .05) / (.05 * .95) ** .5, rel=1e-5)     # half of the strongest tenth is planted


def test_evidence_does_not_know_scale_or_offset():
    maps = torch.randn(3, 4, 6, 7, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(map_evidence(maps), map_evidence(maps * 40 - 3), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('value', [0., 3.7, 1e6])
def test_a_constant_map_has_none(value):
    assert map_evidence(torch.full((2, 4, 5), value)).isnan()


def test_what_rounding_leaves_is_no_evidence():
    maps = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1)) * torch.tensor([1e-7, 1.])[:, None, None, None]
    assert map_evidence(maps, least=1e-5).isnan().tolist() == [True, False]


@pytest.mark.parametrize('share', [0, 1.5, -1])
def test_a_share_that_is_none(share):
    with pytest.raises(ValueError, match='share'):
        map_evidence(torch.rand(2, 4, 5), share)


# -- tables

@pytest.mark.parametrize('by', [('chi', 'lambda2'), ('dbi',), ('lambda2',)])
def test_scores_are_those_of_plain_captures(family, by):
    pipe, videos = family
    table = score_heads(pipe, videos[0], PROMPT, by=by, steps=(1, -1), num_inference_steps=4)
    assert list(table.scores) == list(by) and table.steps == [1, 3]
    for name in by:
        probe = HeadProbe([name])
        with capture(pipe, HeadProbe.kinds([name], is_cross(pipe) and name != 'lambda2'), probe=probe):
            for step in (1, -1):
                renoise(pipe, videos[0], PROMPT, step=step, num_inference_steps=4)
        torch.testing.assert_close(table.scores[name], probe.result().scores[name], rtol=1e-4, atol=1e-5, equal_nan=True)


def test_evidence_is_that_of_each_heads_maps(family):
    pipe, videos = family
    table = score_heads(pipe, videos[0], PROMPT, ['cat', 'runs'], by='evidence', steps=-2, num_inference_steps=4)
    x, text = 'x' * is_cross(pipe), text_of(pipe, PROMPT)
    with capture(pipe, f'{x}q {x}k {x}o') as tape:
        renoise(pipe, videos[0], PROMPT, step=-2, num_inference_steps=4)
    for layer in table.layers:
        q, o = (tape.get(x + n, layer, tokens='video')[0] for n in 'qo')
        k = tape.get(x + 'k', layer, tokens='text')[0]
        maps = concept_maps(q, o, k, tape.grid, words=[text.slots('cat'), text.slots('runs')], valid=~text.pad,
                            k_empty=k[:, text.pad.nonzero()[:1, 0]], reduce=None)
        want = map_evidence(maps, least=1e-5).nanmean(1)
        torch.testing.assert_close(table.scores['evidence'][0, 0, layer], want, rtol=1e-3, atol=1e-3, equal_nan=True)


def test_videos_stand_one_after_the_other(family):
    pipe, videos = family
    both = score_heads(pipe, videos, ['a cat runs', 'a dog'], by=['chi', 'evidence'], steps=-2, num_inference_steps=4)
    for i, prompt in enumerate(['a cat runs', 'a dog']):
        one = score_heads(pipe, videos[i], prompt, by=['chi', 'evidence'], steps=-2, num_inference_steps=4)
        for b in one.scores:
            torch.testing.assert_close(both.scores[b][i], one.scores[b][0], equal_nan=True)
    assert both.facts['videos'] == 2


def test_a_generation_is_scored_in_the_pass_that_makes_it(family):
    pipe, _ = family
    run = dict(frames=9, size=(32, 32))
    plain = generate(pipe, PROMPT, 0, 3, **run)
    table = score_heads(trace(pipe, prompt=PROMPT, num_inference_steps=3, generation=run), steps=[0, 2], contrast=Contrast(None))
    assert table.steps == [0, 2] and set(table.scores) == {'chi', 'lambda2', 'evidence'}
    assert torch.equal(plain.video, generate(pipe, PROMPT, 0, 3, **run).video)         # and nothing stays behind
    assert table.facts['videos'] == 1 and bool(table.scores['evidence'].isfinite().all())


def test_without_a_prompt_there_is_no_evidence_to_look_for(family):
    pipe, videos = family
    assert list(score_heads(pipe, videos[0], steps=-1, num_inference_steps=4).scores) == ['chi', 'lambda2']


def test_free_words_have_evidence(family):
    pipe, videos = family
    table = score_heads(pipe, videos[0], words=['a dog', 'runs'], by='evidence', steps=-1, num_inference_steps=4, source='concepts',
                        contrast=Contrast(None))
    assert bool(table.scores['evidence'][:, :, 0].isfinite().all())      # single blocks have no text half
    with concept_stream(pipe, ['', 'a dog', 'runs']) as beside, capture(pipe, 'xq xo' if is_cross(pipe) else 'q o') as tape:
        renoise(pipe, videos[0], '', step=-1, num_inference_steps=4)
    layer, spans, x = 0, beside.facts['concepts']['spans'], 'x' * is_cross(pipe)
    q, o = (tape.get(x + n, layer, tokens='video')[0] for n in 'qo')
    k = beside.get('ck', layer)[0]
    maps = concept_maps(q, o, k, tape.grid, words=spans[1:], contrast=Contrast(None), reduce=None)
    torch.testing.assert_close(table.scores['evidence'][0, 0, layer], map_evidence(maps).nanmean(1), rtol=1e-3, atol=1e-3)


def test_words_of_each_video():
    pipe = load()
    clips = [world.clip(c, seed=1) for c in ('a red circle moves left', 'a blue square moves up')]
    table = score_heads(pipe, clips, words=[['red'], ['blue']], by='evidence', steps=12)
    one = score_heads(pipe, clips[1], words='blue', by='evidence', steps=12)
    torch.testing.assert_close(table.scores['evidence'][1], one.scores['evidence'][0], equal_nan=True)
    with pytest.raises(ValueError, match='1 videos, but there are 2'):
        score_heads(pipe, clips, words=[['red']])


@pytest.mark.parametrize('how, said', [(dict(by=[]), 'at least one of'), (dict(by=['size']), "by='size' is unknown"),
                                       (dict(steps=9), 'outside this run'), (dict(layers=[77]), 'layers'),
                                       (dict(words='elephant'), 'elephant'),
                                       (dict(by='evidence', prompt=''), 'is of words'),
                                       (dict(words=['cat'], contrast=Contrast('concepts')), 'at least 2'),
                                       (dict(by='chi', words='cat'), "words='cat' is for 'evidence', but by="),
                                       (dict(by='chi', contrast=Contrast(None)), "contrast=.* is for 'evidence'"),
                                       (dict(by='chi', source='concepts'), "source='concepts' is for 'evidence'"),
                                       (dict(contrast=Contrast('slots')), 'none stands out'),
                                       (dict(prompt=['a', 'b']), '2 prompts for 1 videos')])
def test_bad_input_is_a_sentence(family, how, said):
    pipe, videos = family
    how = dict(prompt=PROMPT, num_inference_steps=4, steps=-1) | how
    before = {n: dict(m._forward_hooks) | dict(m._forward_pre_hooks) for n, m in pipe.transformer.named_modules()}
    with pytest.raises(ValueError, match=said):
        score_heads(pipe, videos[0], **how)
    assert before == {n: dict(m._forward_hooks) | dict(m._forward_pre_hooks) for n, m in pipe.transformer.named_modules()}


@pytest.mark.parametrize('name, least', [('cogvideox', 5), ('animatediff', 2)])
def test_one_frame_is_refused_before_anything_runs(name, least, monkeypatch):
    pipe, one = tiny(name), torch.rand(1, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    found = score_heads(pipe, one, 'a dog', by=['lambda2', 'evidence'], steps=-1, num_inference_steps=4, contrast=Contrast(None))
    assert list(found.scores) == ['lambda2', 'evidence'] and bool(found.scores['lambda2'].isfinite().any())
    alone = score_heads(pipe, one, 'a dog', by='evidence', steps=-1, num_inference_steps=4, contrast=Contrast(None))
    torch.testing.assert_close(alone.scores['evidence'], found.scores['evidence'], equal_nan=True)
    assert bool(alone.scores['evidence'].isfinite().any())
    monkeypatch.setattr('vidlens.seam.traces.predict', None)       # nothing runs
    for given, rest in ((dict(prompt='a dog'), r"\['lambda2', 'evidence'\]"), (dict(by='dbi'), r"\['lambda2'\]")):
        with pytest.raises(ValueError, match=rf'needs at least {least} frames, and this video has 1: use by={rest}'):
            score_heads(pipe, one, **given, steps=-1, num_inference_steps=4)
    with pytest.raises(ValueError, match=f'chi needs at least {least} frames, and this video has 1'):
        score_heads(trace(pipe, prompt='a dog', generation=dict(frames=1), num_inference_steps=4))


def test_what_a_table_was_made_of_is_told(family, tmp_path):
    pipe, videos = family
    how = dict(steps=(1, -1), num_inference_steps=4)
    facts = (table := score_heads(pipe, videos, [PROMPT, 'a dog'], 'a', contrast=Contrast(None), **how)).facts
    at = [step_at(pipe, n, num_inference_steps=4).s for n in (1, 3)]
    assert facts['sigmas'] == pytest.approx(at, abs=1e-3) and facts['words'] == [['a'], ['a']]
    want = dict(videos=2, num_inference_steps=4, prompts=[PROMPT, 'a dog'], seed=0, normalise=None, source='prompt',
                generation=None, dtype='float32',
                model=type(pipe.transformer).__name__, pipeline=type(pipe).__name__, scheduler=type(pipe.scheduler).__name__)
    assert want.items() <= facts.items() and facts['versions']['torch'] == torch.__version__
    assert HeadTable.load(table.save(tmp_path / 'heads.safetensors')).facts == facts
    assert not {'words', 'normalise', 'source'} & score_heads(pipe, videos[0], by='chi', **how).facts.keys()


def test_lambda2_of_a_unet_is_of_its_own_attention_within_frames():
    pipe, v = tiny('animatediff'), torch.rand(3, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    table = score_heads(pipe, v, 'a dog', by='lambda2', layers=[0], steps=3, num_inference_steps=10)
    with capture(pipe, 'q k', layers=[0]) as tape:
        renoise(pipe, v, 'a dog', step=3, num_inference_steps=10)
    q, k = (tape.grid.unflatten(tape.get(n, 0)[0]).flatten(2, 3).double() for n in 'qk')
    each = torch.linalg.eigvals((q @ k.mT / q.shape[-1] ** .5).softmax(-1)).abs().sort(descending=True).values[..., 1]
    torch.testing.assert_close(table.scores['lambda2'][0, 0, 0], each.mean(1).float(), atol=1e-4, rtol=1e-3)


def test_the_papers_notebook_asks_for_words_that_the_prompt_has():
    book = Path(__file__).parents[1] / 'nbs' / 'papers' / 'imap.ipynb'
    cell = next(''.join(c['source']) for c in json.loads(book.read_text(encoding='utf-8'))['cells'] if c['id'] == '1a90000d')
    here = dict(pipe=tiny('wan'), text_of=text_of, choice=dict(source='prompt'))
    exec(cell[:cell.index('made = ')], here)
    p = MotionPrompt('a bear walks on a rocky path', ('bear', 'rock'), ('walks', 'path'))
    assert here['words_of'](p) == ['walks', 'path', 'bear']
    here['choice']['source'] = 'concepts'
    assert here['words_of'](p) == ['walks', 'path', 'bear', 'rock']


# -- presets

def shaped(family, layers, heads, **config):
    "A tiny pipeline that says that it has this shape."
    pipe = tiny(family)
    pipe.transformer.register_to_config(**dict(num_layers=layers, num_attention_heads=heads, in_channels=16) | config)
    return pipe


@pytest.mark.parametrize('family, layers, heads, count, k, step, num_inference_steps', [
    ('cogvideox', 30, 30, 17, 5, 30, 50), ('cogvideox', 42, 48, 21, 5, 30, 50), ('hunyuanvideo', 20, 24, 13, 5, 20, 30),
    ('wan', 30, 12, 15, 3, 20, 50), ('wan', 40, 40, 21, 5, 20, 50)])
def test_published_choices(family, layers, heads, count, k, step, num_inference_steps):
    pipe = shaped(family, layers, heads)
    found = published_choice(pipe)
    assert len(found['layers']) == len(set(found['layers'])) == count and max(found['layers']) < layers
    assert (found['heads'], found['steps'], found['num_inference_steps']) == (HeadChoice(k), step, num_inference_steps)
    exact = published_choice(pipe, exact=True)
    assert exact['contrast'] == Contrast('slots', together=family != 'wan')
    n = num_inference_steps
    assert published_choice(pipe, generation=True) == found | dict(steps=list(range(round(.4 * n), round(.9 * n))))


@pytest.mark.parametrize('family, layers, heads, config', [
    ('cogvideox', 42, 48, dict(patch_size_t=2)), ('cogvideox', 42, 48, dict(in_channels=32)),              # 1.5, 5B-I2V
    ('cogvideox', 30, 48, {}), ('wan', 30, 24, dict(in_channels=48)), ('wan', 40, 40, dict(in_channels=36)),  # TI2V-5B, I2V-14B
    ('hunyuanvideo', 20, 24, dict(image_condition_type='token_replace'))])
def test_nothing_is_published_for_later_models_of_the_family(family, layers, heads, config):
    told = ''.join(f', {n}={v}' for n, v in config.items())
    with pytest.raises(ValueError, match=f'nothing is published .* {layers} layers, {heads} heads{told}, only for'):
        published_choice(shaped(family, layers, heads, **config))


def test_nothing_is_published_for_two_models_in_turn():
    pipe = shaped('wan', 40, 40)
    pipe.transformer_2 = pipe.transformer
    with pytest.raises(ValueError, match='transformer_2=WanTransformer3DModel, only for'):
        published_choice(pipe)


@pytest.mark.parametrize('generation', [False, True])
@pytest.mark.parametrize('exact', [False, True])
def test_a_published_choice_fits_both_verbs(family, generation, exact, monkeypatch):
    pipe, videos = family
    shape = card_of(pipe).name, *(pipe.transformer.config[n] for n in ('num_layers', 'num_attention_heads'))
    monkeypatch.setitem(selection._PUBLISHED, shape, ('tiny', [(0, 0)], 1, 2, 4, 'prompt' if is_cross(pipe) else 'concepts'))
    monkeypatch.setitem(selection._COMMON, 'in_channels', (pipe.transformer.config.in_channels,))
    choice = published_choice(pipe, exact, generation)
    t = trace(pipe, None if generation else videos[0], PROMPT, num_inference_steps=choice['num_inference_steps'],
              generation=dict(frames=9, size=(32, 32)) if generation else None)
    found = imap(t, words='cat', **{n: v for n, v in choice.items() if n != 'num_inference_steps'})
    assert list(found.heads) == [0] and len(found.heads[0]) == 1 and found.facts['source'] == choice['source']
    assert found.facts['steps'] == ([2, 3] if generation else [2])


def test_nothing_is_published_for_other_models(family):
    with pytest.raises(ValueError, match='nothing is published.*score_heads'):
        published_choice(family[0])
