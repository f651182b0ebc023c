"""The maps of words: what is joined is what single calls give, whatever the words' source; and bad input in a sentence."""
import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import sliding
from seam import LENGTH

from vidlens import world
from vidlens.words import pictures as wordplots
from vidlens.seam.card import card_of
from vidlens.motion.channels import remove_content, similarity
from vidlens.seam.concepts import concept_stream
from vidlens.seam.families import tiny
from vidlens.points.flow import motion_flow
from vidlens.core.grid import Grid
from vidlens.words.heads import HeadChoice, HeadProbe
from vidlens.seam.capturing import capture
from vidlens.motion.one_site import motion_layer
from vidlens.points.scoring import world_clips
from vidlens.words.heads import calinski_harabasz, davies_bouldin, select_heads
from vidlens.words.maps import concept_attention_map, concept_maps, cross_attention_map
from vidlens.points.matching import match_fields
from vidlens.core.stats import paired_difference
from vidlens.words.metrics import centre_prior, pointing_game
from vidlens.core.pictures import overlay
from vidlens.seam.run import generate, renoise, step_at, text_of
from vidlens.core.video import VideoFacts, probe_video, read_video
from vidlens.words.pictures import baselines_figure, map_rows, span_figure, word_rows, write_words
from vidlens.words.spans import Origin
from vidlens.words.word_maps import BASELINES, Baselines, ConceptMaps, MapSums, imap, word_options
from vidlens.core.results import load_result
from vidlens.seam.traces import trace
from vidlens.words.maps import Contrast

PROMPT = 'a cat runs'


@pytest.fixture(scope='module')
def clip():
    return world.clip('a blue square moves right and a red triangle moves up', seed=3)


@pytest.fixture(scope='module', params=['cogvideox', 'wan', 'hunyuanvideo'])
def family(request):
    "A tiny pipeline, a video for it, and options of a short run."
    made = tiny(request.param)
    video = torch.rand(9, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    assert LENGTH[request.param]
    return made, video, dict(step=-2, num_inference_steps=4)


def records(point=None, baselines=(), step=None, heads=None, **flat):
    "Options of `imap` from values that are written flat, as the tables of this file do."
    choice = {n: flat.pop(n) for n in ('k', 'by', 'threshold', 'skip') if n in flat}
    contrast = {n: flat.pop(n) for n in ('normalise', 'against', 'together', 'pool') if n in flat}
    made = dict(contrast=Contrast(**contrast)) if contrast else {}
    if any(choice.get(n) is not None for n in ('k', 'threshold')):
        heads = HeadChoice(**dict(k=None) | choice)
    if step is not None:
        made['steps'] = step
    return flat | made | dict(heads=heads, baselines=Baselines(baselines, point) if point is not None else baselines)


def maps_of(pipe, video=None, words=(), prompt=None, *, seed=0, num_inference_steps=30, **flat):
    "The maps of a video that is noised with a seed."
    if seed == 0:
        return imap(pipe, video, words, prompt, num_inference_steps=num_inference_steps, **records(**flat))
    return imap(trace(pipe, video, prompt or '', seed=seed, num_inference_steps=num_inference_steps), words=words,
                **records(**flat))


def of_tape(pipe, tape, words=(), item=0, prompt='', **flat):
    return imap(trace(pipe, tape=tape, item=item, prompt=prompt), words=words, **records(**flat))


def generation(pipe, prompt, num_inference_steps, seed=0, budget=None, **run):
    return trace(pipe, prompt=prompt, num_inference_steps=num_inference_steps, seed=seed, generation=run, budget=budget)


def is_cross(pipe):
    return card_of(pipe).text == 'cross'


def seen(pipe, video, step=-2, num_inference_steps=4, prompt=PROMPT):
    "Everything that attention to the text works with, by plain captures."
    with capture(pipe, 'xq xk xo' if is_cross(pipe) else 'q k o') as tape:
        renoise(pipe, video, prompt, step=step, num_inference_steps=num_inference_steps)
    x = 'x' * is_cross(pipe)
    for layer in sorted({k[1] for k in tape}):
        q, o = (tape.get(x + n, layer, tokens='video')[0] for n in 'qo')
        yield layer, tape.grid, q, o, tape.get(x + 'k', layer, tokens='text')[0], tape


def pads(pipe, prompt=PROMPT):
    return text_of(pipe, prompt).pad.nonzero().flatten()[:1]


# -- what is joined

@pytest.mark.parametrize('k', [None, 1])
def test_words_of_the_prompt_are_joined_over_layers(family, k):
    pipe, video, how = family
    found, want = maps_of(pipe, video, ['cat', 'runs'], PROMPT, k=k, **how), []
    for layer, grid, q, o, keys, _ in seen(pipe, video):
        chi = calinski_harabasz(o, grid)
        heads = None if k is None else select_heads(chi, HeadChoice(k))
        text = text_of(pipe, PROMPT)
        want.append(concept_maps(q, o, keys, grid, heads, words=[text.slots('cat'), text.slots('runs')], valid=~text.pad,
                                 k_empty=keys[:, pads(pipe)]))
        assert found.heads[layer] == (list(range(len(chi))) if k is None else heads.tolist())
        torch.testing.assert_close(found.separability[layer], chi)
    torch.testing.assert_close(found.maps, torch.stack(want).mean(0), rtol=1e-4, atol=1e-5)
    assert found.facts['source'] == 'prompt' and found.words == ['cat', 'runs'] and torch.equal(found['runs'], found.maps[1])


@pytest.mark.parametrize('together', [False, True])
def test_free_words_are_joined_over_layers(family, together):
    pipe, video, how = family
    if together and is_cross(pipe):
        with pytest.raises(ValueError, match='Wan has none, so that no word attends to another: leave it out'):
            maps_of(pipe, video, ['cat', 'a dog'], source='concepts', together=True, **how)
        return
    found, want = maps_of(pipe, video, ['cat', 'a dog'], PROMPT, source='concepts', together=together, **how), []
    with concept_stream(pipe, ['', 'cat', 'a dog'], together=together) as beside:
        renoise(pipe, video, PROMPT, step=how['step'], num_inference_steps=how['num_inference_steps'])
    spans, layers = beside.facts['concepts']['spans'], {k[1] for k in beside}
    for layer, grid, q, o, _, _ in seen(pipe, video):
        if layer in layers:
            keys = beside.get('ck', layer)[0]
            want.append(concept_maps(q, o, keys, grid, words=spans[1:], k_empty=keys[:, spans[0][:1]]))
    torch.testing.assert_close(found.maps, torch.stack(want).mean(0), rtol=1e-3, atol=1e-4)
    assert sorted(found.heads) == sorted(layers) and found.facts['together'] == together


def test_several_steps_are_averaged(family):
    pipe, video, _ = family
    one, two = (maps_of(pipe, video, 'cat', PROMPT, step=s, num_inference_steps=4) for s in (1, 2))
    both = maps_of(pipe, video, 'cat', PROMPT, step=[1, 2], num_inference_steps=4)
    torch.testing.assert_close(both.maps, (one.maps + two.maps) / 2, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(both.separability, (one.separability + two.separability) / 2)
    assert both.facts['steps'] == [1, 2]


def test_flow_is_averaged_over_steps_and_others_say_their_step(pipe, clip):
    asked = dict(baselines=['flow', 'moft', 'tracks'], point=(0, 9., 9.), num_inference_steps=4)
    one, two, both = (maps_of(pipe, clip.video, 'red', clip.caption, step=s, **asked) for s in (1, 2, [1, 2]))
    torch.testing.assert_close(both.flow, (one.flow + two.flow) / 2)
    assert not torch.allclose(one.flow, two.flow) and 'baselines_step' not in two.facts
    assert both.facts['baselines_step'] == dict(moft=2, tracks=2)
    assert all(torch.equal(both.baselines[n], two.baselines[n]) for n in ('moft', 'tracks'))


def test_baselines_of_a_unet_lie_on_the_grid_of_its_maps():
    pipe, video = tiny('animatediff'), torch.rand(9, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    found = maps_of(pipe, video, ['cat', 'runs'], PROMPT, step=2, num_inference_steps=4, baselines=['flow', 'moft', 'tracks'])
    assert found.flow.shape == (8, 8, 8, 2) and found.displacement().mean.shape == (2, 2)
    assert all(x.shape == found.maps.shape == (2, 9, 8, 8) and x.isfinite().all() for x in found.baselines.values())
    with capture(pipe, 'q k', layers=31) as tape:                       # the first behind up_blocks.1, which has no attention
        renoise(pipe, video, PROMPT, step=2, num_inference_steps=4)
    own = tape.grid_of(31)
    flow = motion_flow(tape.get('q', 31)[0], tape.get('k', 31)[0], own)
    assert own.rows == 4 and torch.allclose(found.flow.mean((1, 2)), flow.mean((1, 2)), atol=1e-4)  # px, whatever the grid


def test_heads_of_several_steps_are_all_told(family):
    pipe, video, how = family
    found = maps_of(pipe, video, 'cat', PROMPT, k=1, step=[1, 2, 3], num_inference_steps=4)
    each = [maps_of(pipe, video, 'cat', PROMPT, k=1, step=s, num_inference_steps=4).heads for s in (1, 2, 3)]
    for layer, heads in found.heads.items():
        steps = [e[layer] for e in each]
        assert found.facts['read'][str(layer)] == steps and set(heads) == {h for x in steps for h in x}
        assert max(map(steps.count, steps)) == steps.count([heads[0]]), 'most often first'
    assert 'read' not in maps_of(pipe, video, 'cat', PROMPT, k=1, **how).facts


def test_facts_tell_which_heads_were_read(pipe, clip):
    def told(**more): return maps_of(pipe, clip.video, 'red', clip.caption, step=12, **more)
    scores = told(layers=[1, 2, 3]).separability
    top = scores.amax(1).sort(descending=True).values
    bound = float((top[0] + top[1]) / 2)                                # one layer of the three has heads above it
    found = told(layers=[1, 2, 3], threshold=bound)
    assert list(found.heads) == [1 + int(scores.amax(1).argmax())]
    assert found.facts['pooled'] == f'mean over 1 layers, the heads of each with chi above {bound:g}'
    assert {n: found.facts[n] for n in ('k', 'threshold', 'by', 'skip')} == dict(k=None, threshold=bound, by='chi', skip=0)
    for how, text in ((dict(k=2, skip=1), 'the 2 heads of each that separate frames best, after the first 1'),
                      (dict(k=2, by='dbi', threshold=1e3),
                       'the 2 heads of each that separate frames best by dbi, with dbi below 1000'),
                      (dict(heads={2: [0]}), 'chosen heads'), ({}, 'all heads')):
        facts = told(**how).facts
        assert facts['pooled'] == f'mean over {1 if "heads" in how else 6} layers, {text}'
        assert facts['by'] == (how.get('by', 'chi') if 'k' in how else None) and facts['skip'] == (how.get('skip', 0)
                                                                                                   if 'k' in how else None)


def test_heads_chosen_before_are_the_heads_that_are_read(family):
    pipe, video, how = family
    kinds, probe = HeadProbe.kinds(cross=is_cross(pipe)), HeadProbe()
    with capture(pipe, kinds, probe=probe):
        renoise(pipe, video, PROMPT, step=how['step'], num_inference_steps=how['num_inference_steps'])
    heads = probe.result().select(HeadChoice(1))
    found = maps_of(pipe, video, 'cat', PROMPT, heads=heads, **how)
    assert found.heads == heads and torch.allclose(found.maps, maps_of(pipe, video, 'cat', PROMPT, k=1, **how).maps, atol=1e-6)
    layer = min(heads)
    only = maps_of(pipe, video, 'cat', PROMPT, heads={layer: heads[layer]}, **how)
    assert only.heads == {layer: heads[layer]}


def test_other_scores_choose_other_heads(family):
    pipe, video, how = family
    found = maps_of(pipe, video, 'cat', PROMPT, k=1, by='dbi', **how)
    for layer, grid, _, o, _, _ in seen(pipe, video):
        assert found.heads[layer] == select_heads(davies_bouldin(o, grid), HeadChoice(1, 'dbi')).tolist()


def test_negative_words_are_taken_away(family):
    pipe, video, how = family
    plain = maps_of(pipe, video, ['cat', 'runs'], PROMPT, baselines='cross', **how)
    less = maps_of(pipe, video, ['cat'], PROMPT, against='runs', baselines='cross', **how)
    assert less.words == ['cat'] and torch.allclose(less.maps[0], plain.maps[0] - plain.maps[1], atol=1e-5)
    assert torch.allclose(less.baselines['cross'][0], plain.baselines['cross'][0] - plain.baselines['cross'][1], atol=1e-5)


def test_negative_words_leave_alone_what_is_not_of_words(family):
    pipe, video, how = family
    asked = dict(prompt=PROMPT, baselines=['cross', 'flow', 'moft', 'tracks', 'centre'], point=(0, 9., 9.))
    plain = maps_of(pipe, video, ['cat'], **asked, **how)
    less = maps_of(pipe, video, ['cat'], against=['runs'], **asked, **how)
    assert not torch.equal(less.maps, plain.maps) and not torch.equal(less.baselines['cross'], plain.baselines['cross'])
    for name in ('flow', 'moft', 'tracks', 'centre'):
        assert torch.equal(less.baselines[name], plain.baselines[name]) and less.baselines[name].any(), name
    free = maps_of(pipe, video, ['cat'], PROMPT, against=['runs'], baselines='tracks', **how)
    field = maps_of(pipe, video, ['cat'], PROMPT, baselines='tracks', point=at_peaks(free)[0].tolist(), **how)
    torch.testing.assert_close(free.baselines['tracks'], field.baselines['tracks'])       # from the peak of the map that is shown


def test_tokens_one_by_one(family):
    pipe, video, how = family
    pooled, each = (maps_of(pipe, video, ['cat', 'runs'], PROMPT, pool=p, **how) for p in ('maps', None))
    n = len(text_of(pipe, PROMPT).slots('cat'))
    assert each.words[0] == ('cat[0]' if n > 1 else 'cat') and len(each.words) == len(each.maps)
    torch.testing.assert_close(each.maps[:n].mean(0), pooled.maps[0], rtol=1e-4, atol=1e-5)


# -- baselines

def test_baselines_are_those_of_single_calls(family):
    pipe, video, how = family
    asked = [r for r in BASELINES if r != 'concept' or not is_cross(pipe)]
    found, cross, concept = maps_of(pipe, video, ['cat', 'runs'], PROMPT, baselines=asked, **how), [], []
    text = text_of(pipe, PROMPT)
    spans = [text.slots('cat'), text.slots('runs')]
    for layer, grid, q, o, keys, tape in seen(pipe, video):
        cross.append(cross_attention_map(q, keys, grid, words=spans, valid=~text.pad))
        if not is_cross(pipe):
            each = concept_attention_map(tape.get('o', layer, tokens='text')[0], o, grid, reduce='mean')
            concept.append(torch.stack([each[s].mean(0) for s in spans]))
    torch.testing.assert_close(found.baselines['cross'], torch.stack(cross).mean(0), rtol=1e-4, atol=1e-5)
    if concept:
        torch.testing.assert_close(found.baselines['concept'], torch.stack(concept).mean(0), rtol=1e-4, atol=1e-5)
    with capture(pipe, 'q k', layers=motion_layer(pipe), tokens='video') as tape:
        renoise(pipe, video, PROMPT, step=how['step'], num_inference_steps=how['num_inference_steps'])
    flow = motion_flow(*(tape.get(n, motion_layer(pipe))[0].float() for n in 'qk'), tape.grid)
    torch.testing.assert_close(found.flow, flow)
    assert found.baselines.keys() == set(asked) and torch.equal(found.baselines['centre'][1], centre_prior(found.grid))
    assert all(x.shape == found.maps.shape and x.isfinite().all() for x in found.baselines.values())
    peak = np.unravel_index(int(found.maps[0].argmax()), found.grid.shape)
    field = match_fields(*(tape.get(n, motion_layer(pipe))[0].float() for n in 'qk'), tape.grid, at_peaks(found))
    torch.testing.assert_close(found.baselines['tracks'], field)
    assert abs(float(found.baselines['moft'][0][peak]) - 1) < 1e-5, 'a place is most like itself'
    assert found.displacement().mean.shape == (2, 2) and found.spans().keys() == {'cat', 'runs'}


def test_outputs_of_the_prompts_words_are_not_called_concept_attention(pipe, clip):
    said = {}
    for source, name in (('prompt', 'prompt words'), ('concepts', 'ConceptAttention')):
        found = maps_of(pipe, clip.video, 'blue', clip.caption, source=source, baselines=['cross', 'concept'])
        assert found.facts['baselines'] == dict(cross='cross-attention', concept=name)
        rows = [ax.get_ylabel() for ax in baselines_figure(found, clip.video, 'blue').axes]
        assert {'GramCol', 'cross-attention', name} <= set(rows)
        said[source] = found.baselines['concept'].flatten()
    assert torch.corrcoef(torch.stack(list(said.values())))[0, 1] < .95, 'they are two maps'


def at_peaks(found):
    "The last RGB frame and the centre of each map's highest token, (words, 3) px."
    at = [found.grid.place(int(m.argmax())) for m in found.maps]
    return torch.tensor([(found.grid.span(f)[1], *found.grid.centres()[row, col].tolist()) for f, row, col in at])


def test_moft_and_tracks_start_at_the_place(family):
    pipe, video, how = family
    place = (5, 13., 30.)
    found = maps_of(pipe, video, ['cat', 'runs'], PROMPT, baselines=['moft', 'tracks'], point=place, **how)
    with capture(pipe, 'q k hidden', layers=motion_layer(pipe), tokens='video') as tape:
        renoise(pipe, video, PROMPT, step=how['step'], num_inference_steps=how['num_inference_steps'])
    grid, layer = tape.grid, motion_layer(pipe)
    field = match_fields(*(tape.get(n, layer)[0].float() for n in 'qk'), grid, [place])
    row, col = (int(v) for v in grid.nearest(torch.tensor(place[1:])))
    alike = similarity(remove_content(grid.unflatten(tape.get('hidden', layer)[0].float())), grid.frame_of(5), row, col)
    for word in (0, 1):
        torch.testing.assert_close(found.baselines['tracks'][word], field[0])
        torch.testing.assert_close(found.baselines['moft'][word], alike)
    assert found.facts['point'] == list(place) and found.flow is None and set(found.baselines) == {'moft', 'tracks'}
    figure = baselines_figure(found, video, 'cat')
    assert {ax.get_ylabel() for ax in figure.axes} >= {'video', 'GramCol', 'tracks'}


def test_tracks_follow_what_moves_in_planted_queries_and_keys():
    grid = Grid(4, 6, 7, 8, 4)
    x = sliding(grid, 1, -1)
    joiner = MapSums(None, word_options(baselines=Baselines('tracks', (4, 3 * 8 + 2, 4 * 8 + 6))))
    joiner.kept['flow'] = x, x, grid
    found = joiner._baselines(torch.zeros(2, *grid.shape), None, grid)['tracks']
    peaks = found.flatten(2).argmax(-1)
    assert torch.equal(peaks, torch.tensor([(4 - s) * 7 + 3 + s for s in (-1, 0, 1, 2)]).expand(2, -1))
    torch.testing.assert_close(found.sum((-2, -1)), torch.ones(2, 4))


def test_tracks_stay_on_the_object_they_start_on(pipe):
    hits, area = [], []
    for clip in world_clips(pipe, 8, seed=31, shapes=['circle', 'square', 'star', 'triangle']):
        x, y = (float(v.float().mean()) for v in clip.masks[0][0].nonzero().T.flip(0))
        found = maps_of(pipe, clip.video, 'a', clip.caption, baselines='tracks', point=(0, x, y), step=-2)
        inside = torch.nn.functional.avg_pool2d(clip.masks[0][::4].float()[:, None], 8)[:, 0] > .5
        hits.append(pointing_game(found.baselines['tracks'][0], inside)[1:].nanmean())
        area.append(inside.float().mean())
    assert paired_difference(torch.stack(hits), torch.stack(area)).lo > .2


# -- a generation

def test_maps_of_a_generation_are_those_of_its_tape(pipe):
    prompt = 'a red circle moves left'
    plain = generate(pipe, prompt, 3, 6)
    with capture(pipe, 'q k o', steps=4) as tape:
        generate(pipe, prompt, 3, 6)
    for budget in (None, '1 GiB'):                                      # read in the one run, whether the trace keeps or not
        t = generation(pipe, prompt, 6, 3, budget)
        made = imap(t, words=['red', 'left'], steps=4)
        assert torch.equal(t.video, plain.video)
        torch.testing.assert_close(made.maps, of_tape(pipe, tape, ['red', 'left']).maps, rtol=1e-4, atol=1e-5)
    again = imap(t, words=['red', 'left'], steps=4)                     # and once more, from its kept latents
    torch.testing.assert_close(again.maps, made.maps, rtol=1e-4, atol=1e-4)
    t = generation(pipe, prompt, 6, 3)
    every = imap(t, words='red', steps=[2, 3, 4], heads=2, source='concepts', baselines=['flow', 'moft'])
    assert torch.equal(t.video, plain.video) and every.facts['steps'] == [2, 3, 4]
    assert imap(pipe, words='red', prompt=prompt, num_inference_steps=2, steps=None).facts['steps'] == [0, 1]


@pytest.mark.parametrize('name', ['cogvideox', 'wan'])
def test_words_are_never_read_in_the_text_of_the_empty_prompt(name):
    pipe, kinds, run = tiny(name), 'xq xk xo' if name == 'wan' else 'q k o', dict(num_inference_steps=2, guidance=4.,
                                                                                  frames=9, size=(32, 32))
    tapes = {}
    for branch in ('cond', 'both', 'uncond') + ('all',) * (name == 'cogvideox'):
        with capture(pipe, kinds, steps=1, branch=branch) as tapes[branch]:
            generate(pipe, PROMPT, 3, **run)
    want = of_tape(pipe, tapes['cond'], 'cat')
    assert torch.equal(of_tape(pipe, tapes['both'], 'cat').maps, want.maps) and want.run['branch'] == 'cond'
    with pytest.raises(ValueError, match='unconditional branch, whose text is not the prompt: capture'):
        of_tape(pipe, tapes['uncond'], 'cat')
    if 'all' in tapes:                                                  # the unconditional rows come first
        with pytest.raises(ValueError, match='both branches as one'):
            of_tape(pipe, tapes['all'], 'cat')


def test_maps_tell_what_run_they_are_of(family, tmp_path):
    pipe, video, _ = family
    with capture(pipe, 'xq xk xo' if is_cross(pipe) else 'q k o') as tape:
        renoise(pipe, video, PROMPT, step=2, num_inference_steps=4, seed=5)
    read, again = maps_of(pipe, video, 'cat', PROMPT, step=[2, 1], num_inference_steps=4, seed=5), of_tape(pipe, tape, 'cat')
    made = imap(generation(pipe, PROMPT, 4, 5, frames=9, size=(32, 32)), words='cat', steps=2)
    assert again.run == made.run == read.run | dict(sigmas=read.run['sigmas'][1:])
    assert read.run['sigmas'] == pytest.approx([step_at(pipe, s, num_inference_steps=4).s for s in (1, 2)], abs=1e-4)
    assert (read.run['seed'], read.run['num_inference_steps'], read.run['branch']) == (5, 4, 'cond')
    assert {'model', 'pipeline', 'dtype', 'scheduler', 'versions'} < set(read.run)
    path = read.save(tmp_path / 'maps.npz')
    assert ConceptMaps.load(path).run == read.run
    assert load_result(path).facts == read.facts and list(read.to_xarray().maps.word.values) == ['cat']


def test_a_tape_gives_the_steps_that_it_kept(pipe):
    with capture(pipe, 'q k o', steps=[1, 2]) as tape:
        generate(pipe, 'a red circle moves left', num_inference_steps=4)
    def steps(**how): return imap(trace(pipe, tape=tape), words='red', **how).facts['steps']
    assert steps() == steps(steps=[1, -2]) == steps(steps=slice(1, 3)) == [1, 2]
    assert steps(steps=-2) == steps(steps=np.int64(2)) == [2]
    with pytest.raises(ValueError, match='the video would be ignored. Leave one out'):
        trace(pipe, torch.zeros(17, 64, 64, 3), tape=tape)
    for step, says in ((-6, 'there are 4 steps'), (-12, 'there are 4 steps'), (9, 'there are 4 steps'), ([], 'no number at all'),
                       (0, r'kept steps \[1, 2\] of 4, and not 0'), (-1, 'and not 3: name some'), ([1, 3], 'and not 3')):
        with pytest.raises(ValueError, match=says):
            steps(steps=step)
    with capture(pipe, 'q k o', steps=2) as tape:
        generate(pipe, 'a red circle moves left', num_inference_steps=4)
    with pytest.raises(ValueError, match=r'kept steps \[2\] of 4, and not 0'):
        steps(steps=0)


# -- planted truth

def test_concept_map_points_at_the_object_more_often_than_a_random_token(pipe):
    "The brightest token of its colour's map lies on the object; that other words' maps do so too is not denied here."
    hits, area = [], []
    for clip in world_clips(pipe, 8, seed=31, shapes=['circle', 'square', 'star', 'triangle']):
        colour = world.parse(clip.caption).objects[0].colour
        maps = maps_of(pipe, clip.video, colour, clip.caption)
        inside = torch.nn.functional.avg_pool2d(clip.masks[0][::4].float()[:, None], 8)[:, 0] > .5
        peak = maps[colour].flatten(1).argmax(1)
        hits.append(inside.flatten(1)[torch.arange(5), peak].float().mean())
        area.append(inside.float().mean())
    assert paired_difference(torch.stack(hits), torch.stack(area)).lo > 0


@pytest.mark.parametrize('source', ['prompt', 'concepts'])
def test_a_map_does_not_depend_on_what_else_is_asked(pipe, clip, source):
    alone = maps_of(pipe, clip.video, 'blue', clip.caption, source=source)
    both = maps_of(pipe, clip.video, ['blue', 'moves'], clip.caption, source=source)
    assert torch.allclose(alone['blue'], both['blue'], atol=1e-4)
    over = [maps_of(pipe, clip.video, w, clip.caption, source=source, normalise='concepts')['blue'] for w in (
        ['blue', 'moves'], ['blue', 'red'])]
    assert not torch.allclose(*over, atol=1e-2)


@pytest.mark.parametrize('source', ['prompt', 'concepts'])
def test_a_word_asked_twice_is_asked_once(pipe, clip, source, tmp_path):
    maps = maps_of(pipe, clip.video, ['red', 'red', 'blue'], clip.caption, source=source, baselines='flow')
    assert maps.words == ['red', 'blue'] == list(maps.spans()) and len(maps.maps) == len(maps.displacement().mean) == 2
    assert len(span_figure(maps).axes) == 2
    write_words(maps, clip.video, tmp_path)
    rows = list(csv.DictReader((tmp_path / 'words.csv').open()))
    assert [float(r['dx']) for r in rows] == pytest.approx(maps.displacement().mean[:, 0].tolist(), abs=1e-3)
    with pytest.raises(ValueError, match='zip'):       # made by hand: no row is told of another word
        write_words(replace(maps, words=['red', 'red', 'blue'], maps=maps.maps[[0, 0, 1]]), clip.video, tmp_path, force=True)


def test_many_words_are_written_whole_and_drawn_in_rows(clip, tmp_path, monkeypatch):
    grid, asked = Grid(5, 8, 8, 8, 4), []
    many = ConceptMaps([f'word{i}' for i in range(30)], torch.rand(30, *grid.shape), grid, {}, torch.zeros(1, 1))
    monkeypatch.setattr(wordplots, '_WIDTH', 128)
    monkeypatch.setattr(wordplots, 'overlay', lambda video, *a, **how: asked.append(len(video)) or overlay(video, *a, **how))
    write_words(many, clip.video, tmp_path)
    assert read_video(tmp_path / 'maps.mp4').shape[1:3] == (3 * (6 * 32 + 16) + 2 * 4, 4 * 6 * 32 + 3 * 4)    # 12 words, of 32 px
    rows = list(csv.DictReader((tmp_path / 'words.csv').open()))
    assert len(rows) == len(ConceptMaps.load(tmp_path / 'maps.safetensors').words) == 30
    assert asked == [17] * 12 + [5] * 12
    for n, columns in ((1, 1), (2, 2), (3, 3), (4, 2), (7, 4), (9, 3), (12, 4)):
        some = replace(many, words=many.words[:n], maps=many.maps[:n])
        wide = wordplots._words_video(some, clip.video, True).shape[2]
        size = min(64, 128 // columns)
        assert wide == columns * size * round(192 / size) + 4 * (columns - 1)


def planted_words():
    "Two words of a flow of (2, -4) px from token frame to token frame where they are; the second is there in frames 2 and 3."
    grid, flow = Grid(5, 8, 8, 8, 4), torch.zeros(4, 8, 8, 2)
    x = torch.zeros(2, *grid.shape)
    x[0, :, 1, 1], x[1, 2:4, 1, 1] = 1., 1.
    flow[:, :3, :3] = torch.tensor([2., -4.])
    return ConceptMaps(['one', 'two'], x, grid, {}, torch.zeros(1, 1), flow=flow)


def test_words_of_a_file_are_told_in_its_frames_seconds_and_pixels(tmp_path):
    maps, facts = planted_words(), VideoFacts(49, 128, 256, 24., 49 / 24, 'h264', 'yuv420p')
    video = torch.zeros(17, 64, 64, 3)
    origin = Origin.of(facts, video)
    assert list(origin.frames) == list(range(0, 49, 3)) and origin.every == 3
    of_file = replace(maps, facts=dict(origin=origin))
    mine, files = word_rows(maps), word_rows(of_file)
    assert (mine[1]['start'], mine[1]['end'], mine[1]['start_s']) == (5, 12, None)
    assert (files[1]['start'], files[1]['end'], files[1]['start_s'], files[1]['end_s']) == (15, 36, 15 / 24, 36 / 24)
    assert (files[0]['start'], files[0]['end']) == (0, 48) and files[0]['always']
    for a, b in zip(mine, files):   # cropped to a square, half as large, every third frame
        assert (b['dx'], b['dy']) == pytest.approx((a['dx'] * 2 / 3, a['dy'] * 2 / 3), abs=1e-5) and a['dx'] > .01
    write_words(of_file, video, tmp_path)
    rows = list(csv.DictReader((tmp_path / 'words.csv').open()))
    assert [(int(r['start']), float(r['end_s'])) for r in rows] == [(0, 2.), (15, 1.5)]
    assert float(rows[0]['dy']) == pytest.approx(files[0]['dy'], abs=1e-4)
    for name in ('maps.mp4', 'maps.gif'):
        assert probe_video(tmp_path / name).seconds == pytest.approx(17 / 8, rel=.02)        # 17 frames at 24 / 3 a second
    write_words(of_file, video, tmp_path, True, fps=4)
    assert probe_video(tmp_path / 'maps.mp4').fps == 4
    assert origin.point((46, 128, 64)) == (15., 32., 32.)
    with pytest.raises(ValueError, match='frame 49 is outside of the file, whose frames are 0 to 48'):
        origin.point((49, 0, 0))
    with pytest.raises(ValueError, match='the origin is of a clip of 9 frames'):
        word_rows(replace(maps, facts=dict(origin=Origin.of(facts, video[:9]))))


def test_pace_of_a_clip_that_nobody_knows_is_8(tmp_path):
    maps, video = planted_words(), torch.zeros(17, 64, 64, 3)
    origin = Origin.of(VideoFacts(17, 64, 64, 0., 0., 'png', 'rgb'), video)
    write_words(replace(maps, facts=dict(origin=origin)), video, tmp_path)
    assert probe_video(tmp_path / 'maps.mp4').fps == 8 and next(csv.DictReader((tmp_path / 'words.csv').open()))['end_s'] == ''
    assert Origin.of(VideoFacts(1, 64, 64, 0., 0., 'png', 'rgb'), video[:1]).every == 1


@pytest.mark.parametrize('smooth', [True, 'edges'])
def test_all_pictures_are_enlarged_alike(clip, tmp_path, monkeypatch, smooth):
    grid, asked = Grid(5, 8, 8, 8, 4), []
    x = torch.rand(2, *grid.shape, generator=torch.Generator().manual_seed(0))
    maps = ConceptMaps(['red', 'blue'], x, grid, {}, torch.zeros(1, 1), baselines=dict(centre=x))
    monkeypatch.setattr(wordplots, 'overlay', lambda *a, smooth, **how: asked.append(smooth) or overlay(*a, smooth=smooth, **how))
    write_words(maps, clip.video, tmp_path, smooth=smooth)
    assert asked == [smooth] * (2 + 2 + 2)  # videos, words, a word and its baseline


@pytest.mark.parametrize('grid, smooth', [(Grid(5, 8, 8, 8, 4), 'edges'), (Grid(17, 8, 8, 8, 1, False), True)])
def test_rows_show_the_overlay_of_the_whole_clip(clip, grid, smooth):
    "Only the frames shown are enlarged; their colours are those of one scale over the clip."
    maps = torch.rand(grid.shape, generator=torch.Generator().manual_seed(0))
    maps[-2] += 3                                                                      # the highest, in a frame that is not shown
    maps[1, 2, 3] = torch.nan
    figure = map_rows(clip.video, {'video': maps}, grid, most=4, smooth=smooth)
    shown = [ax.images[0].get_array() for ax in figure.axes]
    assert len(shown) == 8
    want = overlay(clip.video, maps, grid, smooth=smooth)
    for i, ax in enumerate(figure.axes[:4]):
        f = int(ax.get_title().split()[1])
        assert np.allclose(shown[i], clip.video[f], atol=1e-6) and np.allclose(shown[4 + i], want[f], atol=1e-5)
    with pytest.raises(ValueError, match="maps of 'x' are .* but must be"):
        map_rows(clip.video, {'x': maps[1:]}, grid)


def test_files(pipe, clip, tmp_path):
    maps = maps_of(pipe, clip.video, ['blue', 'red'], clip.caption, baselines=['flow', 'centre'], k=2)
    again = ConceptMaps.load(maps.save(tmp_path / 'maps.safetensors'))
    assert again.words == maps.words and again.grid == maps.grid and again.heads == maps.heads and again.facts == maps.facts
    assert torch.equal(again.maps, maps.maps) and torch.equal(again.flow,
                                                              maps.flow) and again.baselines.keys() == maps.baselines.keys()
    with pytest.raises(FileExistsError):
        maps.save(tmp_path / 'maps.safetensors')
    (tmp_path / 'no.npz').write_bytes(b'nothing')
    with pytest.raises(ValueError, match='cannot be read as a result'):
        ConceptMaps.load(tmp_path / 'no.npz')
    with pytest.raises(KeyError, match='no map of'):
        maps['green']


@pytest.mark.parametrize('how, says', [
    (dict(words='star'), "source='concepts'"), (dict(words='dragon', source='concepts'), 'dragon'),
    (dict(words='red', source='web'), 'unknown'), (dict(words='red', baselines='daam'), 'unknown'),
    (dict(words='red', normalise='mean'), 'unknown'), (dict(words='red', k=1, by='best'), 'unknown'),
    (dict(words='red', k=1, threshold=1e9), 'no head is left'),
    (dict(words='red', k=9), 'layer 0 has 4: use k=4 or less$'), (dict(words='red', k=9, threshold=0.), 'use k=4 or less'),
    (dict(words='red', k=2, skip=3), 'use k=1 or less'), (dict(words='red', k=1, skip=4), 'use skip=3 or less'),
    (dict(words='red', k=0), 'k=0 must be a whole number of at least 1'), (dict(words='red', k=2.5), 'k=2.5 must be'),
    (dict(words='red', k=1, skip=-1), 'skip=-1 must be'), (dict(words='red', k=1, skip=None), 'skip=None must be'),
    (dict(words='red', threshold='high'), "threshold='high' must be a number"),
    (dict(words='red', threshold=np.nan), 'threshold=nan'),
    (dict(words='red', heads=[1, 2]), r'heads=\[1, 2\] must be numbers from 0, by layer: heads='),
    (dict(words='red', heads={0: 1}), r'heads=\{0: 1\} must be'), (dict(words='red', heads={-1: [0]}), r'heads=\{-1: \[0\]\} must'),
    (dict(words='red', heads={}), r'heads=\{\} must be'), (dict(words='red', heads={0: [4]}), 'head numbers from 0 to 3'),
    (dict(words='red', heads={2: [1], 4: [0]}, layers=[1, 2]), r'heads= has layer 4, but read were \[1, 2\]'),
    (dict(words='red', together=True), "words of a prompt attend to each other anyway"), (dict(words='red', step=[]),
                                                                                          'no number at all'),
    (dict(words='red', together='yes', source='concepts'), "together='yes' is unknown: use True or False"),
 (dict(words='red', normalise='concepts'), 'at least 2'),
    (dict(words='red', against='blue', pool=None), 'one map for each word'), (dict(words='red', layers=9), 'outside this run'),
    (dict(words='red', step=99), '99'), (dict(words='red', point=(0, 9, 9)), 'ask for one'),
    (dict(words='red', point=(0, 9), baselines='tracks'), r'one point \(t, x, y\)'),
    (dict(words=[None]), 'the word None is no text: give each'), (dict(words=3), 'the word 3 is no text'),
    (dict(words='red', against=[None]), 'None is no text; give words'), (dict(words='red', num_inference_steps=0),
                                                                         'num_inference_steps=0 must be .* at least 1'),
    (dict(words=['']), "'' is blank: give each as text"), (dict(words=['red', ' '], source='concepts'), "' ' is blank"),
    (dict(words=['red'], against=['red']), "'red' is mapped and subtracted"),
    (dict(words=['red'], against='red', source='concepts'), "'red' is mapped and subtracted"),
    (dict(words='red', point=(17, 9, 9), baselines='tracks'), 't goes from 0 to 16')])
def test_bad_input(pipe, clip, how, says):
    with pytest.raises(ValueError, match=says):
        maps_of(pipe, clip.video, prompt=clip.caption, **how)


def test_one_frame_has_maps_but_no_motion(pipe, clip):
    still = clip.video[:1]
    found = maps_of(pipe, still, ['blue', 'red'], clip.caption, baselines=['cross', 'tracks', 'centre'])
    assert found.maps.shape == (2, 1, 8, 8) and found.maps.isfinite().all() and found.separability.isnan().all()
    assert found.spans()['red'].whole and found.baselines['tracks'].isfinite().all()
    for how, says in ((dict(k=2), 'HeadChoice.k=2, .* needs a video of at least 5 frames'), (dict(baselines='flow'),
                                                                                             "baselines='flow' needs a video"),
                      (dict(threshold=1.), 'threshold=1.0, .* needs'), (dict(baselines=['moft']), "baselines='moft' needs")):
        with pytest.raises(ValueError, match=says):
            maps_of(pipe, still, 'red', clip.caption, **how)


def test_numbers_of_other_libraries_are_saved(pipe, clip, tmp_path):
    chosen = dict(k=np.int64(2), threshold=torch.tensor(1.), skip=np.int32(1))
    for how in (chosen, dict(heads={np.int64(2): torch.tensor([1, 0])})):
        maps = maps_of(pipe, clip.video, 'red', clip.caption, step=np.int64(12), **how)
        again = ConceptMaps.load(maps.save(tmp_path / 'maps.npz', force=True))
        assert again.facts == maps.facts and again.heads == maps.heads
    assert again.heads == {2: [1, 0]}


@pytest.mark.parametrize('source', ['prompt', 'concepts'])
def test_some_word_must_be_left(pipe, clip, source):
    with pytest.raises(ValueError, match=r"every word of 'a circle' is subtracted by against=\['circle', 'a'\]: leave one out"):
        maps_of(pipe, clip.video, prompt='a circle', against=['circle', 'a'], source=source)


def test_words_taken_away_are_not_asked_by_default(pipe, clip):
    found = maps_of(pipe, clip.video, prompt=clip.caption, against=['red', 'red'])
    assert 'red' not in found.words and 'blue' in found.words and found.facts['against'] == ['red']


def test_several_videos_at_once_are_refused(pipe):
    with pytest.raises(ValueError, match='a trace is of one video as it was made: leave num_videos_per_prompt out'):
        generation(pipe, 'a red circle moves left', 2, num_videos_per_prompt=2)
    with pytest.raises(TypeError, match='must be a string'):
        generation(pipe, ['a red circle', 'a blue circle'], 2)


def test_more_free_words_than_the_text_holds():
    pipe, video, how = tiny('cogvideox'), torch.rand(9, 32, 32, 3), dict(source='concepts', step=2, num_inference_steps=4)
    with pytest.raises(ValueError, match="^a free word has more than the 16 tokens that the model reads: 'cat cat"):
        maps_of(pipe, video, ['runs', 'cat ' * 8], PROMPT, **how)
    words = ['cat', 'dog', 'runs', 'a cat', 'cat runs']
    with pytest.raises(ValueError, match=r'the 16 text slots of the model, but 5 words .* ask for fewer words at once$'):
        maps_of(pipe, video, words, PROMPT, normalise='slots', **how)
    assert len(maps_of(pipe, video, words[:3], PROMPT, normalise='slots', **how).maps) == 3


def test_options_of_a_run_are_not_given_twice(pipe):
    for run in (dict(num_inference_steps=3), dict(seed=1)):
        with pytest.raises(ValueError, match='num_inference_steps and seed are arguments of their own'):
            trace(pipe, prompt='a red circle moves left', generation=run)
    with pytest.raises(ValueError, match='num_inference_steps=0 must be'):
        generation(pipe, 'a red circle moves left', 0)


def test_more_bad_input(pipe, clip):
    with pytest.raises(ValueError, match='imap needs a video, a prompt to generate one'):
        imap(pipe, words='red')
    with pytest.raises(ValueError, match='give prompt='):
        maps_of(pipe, clip.video)
    with pytest.raises(ValueError, match='give prompt='):
        maps_of(pipe, clip.video, 'red', source='prompt')
    with capture(pipe, 'q k o', steps=0) as tape:
        generate(pipe, 'a red circle moves left', num_inference_steps=1)
    assert of_tape(pipe, tape, 'red', baselines='flow').flow is not None      # it kept queries and keys
    with pytest.raises(ValueError, match='hidden of layer 4, step 0: .* the tape holds kinds q, k, o'):
        of_tape(pipe, tape, 'red', baselines='moft')
    with pytest.raises(ValueError, match='a tape holds words of its prompt only'):
        of_tape(pipe, tape, 'red', source='concepts')
    with pytest.raises(ValueError, match='item=1 is one of the videos of a tape, but there is no tape'):
        trace(pipe, clip, item=1)
    wan = tiny('wan')
    with pytest.raises(ValueError, match='Wan has none'):
        maps_of(wan, torch.rand(9, 32, 32, 3), 'cat', PROMPT, baselines='concept', num_inference_steps=4, step=1)
