"""The engine answers what the verbs answer, from less work; work beside the notebook can be replaced, stopped and watched."""
import gc
import threading
import time
import weakref
from concurrent.futures import CancelledError
from types import SimpleNamespace

import pytest
import torch
from seam import call, family_of, model_elsewhere, pipe_of

from vidlens import world
from vidlens.seam import hooks
from vidlens.seam.card import card_of, model_of
from questions import hold
from vidlens.points.tapvid import PointClip
from vidlens.seam.families import tiny
from vidlens.seam.capturing import capture, watch_inputs
from vidlens.seam.hooks import CaptureError
from vidlens.motion.one_site import features
from vidlens.points.scoring import Scoring, score
from vidlens.seam.traces import trace
from vidlens.points.tracking import track
from vidlens.points.matching import Tracks, match_fields
from vidlens.seam.run import Sample, conditions, generate, predict, renoise, schedule
from vidlens.words.selection import score_heads
from vidlens.words.word_maps import Baselines, imap
from vidlens.live.worker import Job, Worker

PROMPT = 'a cat runs'


@pytest.fixture(scope='module', params=['cogvideox', 'wan', 'hunyuanvideo'])
def small(request):
    "A tiny pipeline and a video for it."
    return pipe_of(request.param), torch.rand(9, 32, 32, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope='module')
def clip():
    return world.clip('a red circle moves right', seed=3)


@pytest.fixture
def engine(pipe, clip):
    return hold(pipe, clip)


def flat(how):
    "Options of the questions as those of `imap`."
    return {dict(k='heads').get(n, n): x for n, x in how.items()}


def forwards(pipe):
    "Counts the blocks that run while it is open."
    return Count(card_of(pipe).blocks(model_of(pipe)))


class Count:
    def __init__(self, blocks):
        self.blocks, self.n = [b for _, b, _ in blocks], 0

    def __enter__(self):
        def one(*_): self.n += 1
        self.handles = [b.register_forward_pre_hook(one) for b in self.blocks]
        return self

    def __exit__(self, *_):
        for h in self.handles:
            h.remove()


# What goes in

@pytest.mark.parametrize('guided', [False, True])
@pytest.mark.parametrize('family', ['cogvideox', 'wan', 'hunyuanvideo'])
def test_inputs_are_what_the_model_was_given(family, guided):
    pipe, seen = pipe_of(family), []
    plain = call(pipe, steps=3, guided=guided)

    def note(model, args, kwargs): seen.append(kwargs['hidden_states'].clone())
    handle = model_of(pipe).register_forward_pre_hook(note, with_kwargs=True)
    with watch_inputs(pipe) as kept:
        out = call(pipe, steps=3, guided=guided)
    handle.remove()
    assert torch.equal(out, plain) and sorted(kept) == [0, 1, 2] and not hooks.OPEN_SEAMS
    for step, x in kept.items():
        given = [y for y in seen if y[-1:].shape == x.shape and torch.equal(y[-1:], x)]
        assert given, step


# The verbs' answers

def test_tapes_are_those_of_a_capture(small):
    pipe, video = small
    engine = hold(pipe, video, PROMPT, num_inference_steps=4)
    kinds = 'xq xk xo q k o hidden' if card_of(pipe).text == 'cross' else 'q k o hidden'
    with capture(pipe, kinds) as want:
        renoise(pipe, video, PROMPT, step=2, num_inference_steps=4)
    got = engine.tape(2)
    assert set(got.data) == set(want.data) and got.grid == want.grid and got.text == want.text
    assert all(torch.equal(got.data[k], want.data[k]) for k in want.data) and not hooks.OPEN_SEAMS


def test_points_words_heads_and_features_are_those_of_the_verbs(small):
    pipe, video = small
    engine, at = hold(pipe, video, PROMPT, num_inference_steps=4), dict(step=-2, num_inference_steps=4)
    points = torch.tensor([[0., 5, 6], [4, 20, 9]])
    got, want = engine.track(points, step=-2, layer=1), track(trace(pipe, video, PROMPT, num_inference_steps=4),
                                                              points=points, layers=1, steps=-2)
    assert torch.equal(got.xy, want.xy) and torch.equal(got.visible, want.visible)
    field = engine.match(points[0], step=-2, layer=1)
    assert tuple(field.shape) == engine.grid.shape and torch.allclose(field.sum((1, 2)), torch.ones(len(field)))
    assert torch.equal(engine.features(-2, 1), features(pipe, video, PROMPT, layer=1, **at))
    found, same = engine.heads(-2).scores, score_heads(pipe, video, PROMPT, steps=[2], num_inference_steps=4, by=('chi',
            'fisher', 'dbi')).scores
    assert all(torch.equal(found[n].nan_to_num(-1), same[n].nan_to_num(-1)) for n in same)
    baselines = ['cross', 'flow', 'moft', 'centre'] + ['concept'] * (card_of(pipe).text != 'cross')
    for how in (dict(words=['cat', 'runs'], k=1, baselines=baselines), dict(words='cat', baselines=Baselines(['tracks',
            'moft'], (4, 20, 9))),
                dict(words=['dog', 'a cat'], source='concepts', layers=[0, 1])):
        got, want = engine.words(step=-2, **how), imap(pipe, video, prompt=PROMPT, steps=-2, num_inference_steps=4, **flat(how))
        assert torch.equal(got.maps, want.maps) and got.heads == want.heads and got.facts == want.facts
        assert all(torch.equal(got.baselines[n], x) for n, x in want.baselines.items())


def test_scores_against_the_truth_are_those_of_the_verb(pipe, clip, engine):
    got, want = engine.score(-12), score(pipe, clip)
    assert torch.equal(got.heads['accuracy'], want.heads['accuracy']) and got.steps == want.steps


def test_clips_without_a_caption_and_samples_are_held(pipe, clip):
    plain = PointClip('goat', clip.tracks, clip.visible, clip.video)
    engine = hold(pipe, plain)
    assert engine.prompt == '' and engine.tracked and torch.equal(engine.video, clip.video)
    got, want = engine.score(-12), score(pipe, plain)
    assert torch.equal(got.heads['accuracy'], want.heads['accuracy'])
    assert hold(pipe, plain, 'a red circle moves left').prompt == 'a red circle moves left'
    made = hold(pipe, Sample(clip.video, 'a red circle moves left', 0, {}))
    assert made.prompt == 'a red circle moves left' and not made.tracked
    with pytest.raises(ValueError, match="its own caption, 'a red circle moves left'"):
        hold(pipe, Sample(clip.video, 'a red circle moves left', 0, {}), 'a blue square')


@pytest.mark.parametrize('family', ['cogvideox', 'wan', 'hunyuanvideo', 'animatediff'])
def test_statistics_of_heads_are_those_of_the_scores(family, unet):
    pipe, clip = unet[0] if family == 'animatediff' else pipe_of(family), SimpleNamespace(**vars(unet[1]))
    if card_of(pipe).causal:   # nine frames
        twice = torch.arange(9) // 2 % 4
        clip.video, clip.tracks, clip.visible = clip.video[twice], clip.tracks[:, twice], clip.visible[:, twice]
    want = score(pipe, clip, steps=-2, num_inference_steps=4, scoring=Scoring(sample=8))
    found = hold(pipe, clip.video, 'a cat', num_inference_steps=4).statistics(-2, sample=8)
    assert set(found) == {'entropy', 'evenness', 'distance', 'lag', 'sink', 'first'}
    assert all(torch.equal(x, want.heads[n][0, 0]) for n, x in found.items())


def test_unets_are_held_too():
    pipe = tiny('animatediff')
    video = torch.rand(4, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    engine = hold(pipe, video, 'a cat', num_inference_steps=4)
    n = card_of(pipe).layer(model_of(pipe), 'up_blocks.1')
    assert torch.equal(engine.features(-2, n), features(pipe, video, 'a cat', layer=n, step=-2, num_inference_steps=4))
    alike = engine.similar((1, 9, 20), -2, n)
    grid = engine.tape(-2, n).grid_of(n)
    assert tuple(alike.shape) == grid.shape and alike.max() < 1 + 1e-4


# Models whose layers differ

SPATIAL, UP = [0, 4, 8, 15, 24, 27, 31, 34, 38, 41], 30   # layers with attention in a frame and to the text; a whole block


@pytest.fixture(scope='module')
def unet():
    "A tiny UNet, and a clip for it whose points move."
    video = torch.rand(4, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    start = torch.tensor([[4., 4], [12, 20], [20, 9]])
    tracks = start[:, None] + 3. * torch.arange(4)[:, None]
    return tiny('animatediff'), SimpleNamespace(video=video, caption='a cat', tracks=tracks, visible=torch.ones(3, 4).bool())


@pytest.mark.parametrize('layer, side', [(0, 8), (4, 4), (8, 2), (-4, 8)])
def test_points_of_a_unet_are_matched_on_the_layers_own_grid(unet, layer, side):
    pipe, clip = unet
    engine, points = hold(pipe, clip, num_inference_steps=4), torch.tensor([[0., 5, 6], [2, 20, 9]])
    with capture(pipe, 'q k', layers=layer) as tape:
        renoise(pipe, clip.video, 'a cat', step=-2, num_inference_steps=4)
    grid = engine.grid_of(layer)
    assert grid == tape.grid_of(layer) and grid.shape == (4, side, side) and grid.stride * side == 32
    field = engine.match(points[1], -2, layer)
    assert torch.equal(field, match_fields(*(tape.get(n, layer)[0] for n in 'qk'), grid, points[1:])[0])
    got, want = engine.track(points, -2, layer), track(trace(pipe, clip.video, 'a cat', num_inference_steps=4), points=points,
                                                       layers=layer, steps=-2)
    assert torch.equal(got.xy, want.xy) and (got.xy[0, 1:] - points[0, 1:]).remainder(grid.stride).abs().max() == 0
    assert engine.similar(points[0], -2, layer).shape == engine.features(-2, layer).shape[:3] == grid.shape


def test_all_layers_of_a_unet_are_those_that_can_answer(unet):
    pipe, clip = unet
    engine = hold(pipe, clip, num_inference_steps=4)
    for how in (dict(words='cat', baselines=['cross', 'moft', 'centre']), dict(words='dog', source='concepts'),
                dict(words='cat', layers=range(10))):
        got, want = engine.words(step=-2, **how), imap(pipe, clip.video, prompt='a cat', steps=-2, num_inference_steps=4,
                                                       **flat(how))
        assert torch.equal(got.maps, want.maps) and got.heads == want.heads and got.grid == want.grid
        assert all(torch.equal(got.baselines[n], x) and x.shape == got.maps.shape for n, x in want.baselines.items())
    got, want = engine.heads(-2, ['chi']), score_heads(pipe, clip.video, 'a cat', steps=[2], num_inference_steps=4, by='chi')
    assert got.layers == want.layers == SPATIAL
    assert torch.equal(got.scores['chi'].nan_to_num(-1), want.scores['chi'].nan_to_num(-1))
    got, want = engine.score(-2), score(pipe, clip, steps=-2, num_inference_steps=4)
    assert got.layers == want.layers == SPATIAL and torch.equal(got.heads['accuracy'], want.heads['accuracy'])
    for n in (0, 8, 41):  # as each for itself
        one = score(pipe, clip, steps=-2, num_inference_steps=4, layers=n)
        assert torch.equal(want.points['accuracy'][:, :, SPATIAL.index(n)], one.points['accuracy'][:, :, 0])
    assert want.best('accuracy').layer in SPATIAL


def test_a_generation_of_a_unet_is_scored_in_all_layers(unet):
    def still(video, queries):
        xy = queries[:, None, 1:].expand(-1, len(video), -1)
        return Tracks(xy, torch.ones(xy.shape[:2], dtype=torch.bool), torch.ones(xy.shape[:2]), torch.arange(len(video)).float())
    made = trace(unet[0], prompt='a cat', num_inference_steps=2, generation=dict(frames=4, size=(32, 32)))
    found = score(made, steps=None, scoring=Scoring(moved=0, queries=[(0, 5, 6), (0, 20, 9)], tracker=still))
    assert found.layers == SPATIAL and found.map('accuracy').shape == (2, 10)


def test_layers_are_told_that_can_answer(unet):
    engine = hold(*unet, num_inference_steps=4)
    assert all(engine.layers_for(n) == SPATIAL for n in ('match', 'track', 'score', 'heads', 'words', 'concepts'))
    assert {*SPATIAL, UP} < set(engine.layers_for('features')) and engine.layers_for('similar') == engine.layers_for('features')
    for ask in (lambda n: engine.match((0, 5, 6), -2, n), lambda n: engine.track([(0, 5, 6)], -2, n),
                lambda n: engine.words('cat', -2, [0, n]), lambda n: engine.heads(-2, layers=[n]),
                lambda n: engine.score(-2, n), lambda n: engine.words('dog', -2, n, source='concepts'),
                lambda n: engine.words('cat', -2, heads={0: [1], n: [0]})):
        with pytest.raises(ValueError,
                           match=r'layer 30 \(up_blocks.1\) shows hidden, not .*: choose layers among 0, 4, 8, 15, 24, 27, 31'):
            ask(UP)
    both = ['flow', 'tracks']       # read where q and k are, though motion is looked for in a whole block
    asked, want = engine.words('cat', -2, baselines=both), imap(unet[0], unet[1].video, 'cat', 'a cat', steps=-2,
                                                                num_inference_steps=4, baselines=both)
    assert all(torch.allclose(asked.baselines[n], want.baselines[n], atol=1e-4) for n in both)
    with pytest.raises(ValueError, match=r'layer 1 .* shows tq tk tv to, not hidden: choose layers among 0, 2, 3'):
        engine.features(-2, 1)
    with pytest.raises(ValueError, match='choose layers among 0, 4, 8'):
        engine.words('cat', -2, range(1, 4))
    with pytest.raises(ValueError, match="'where' is unknown, choose among"):
        engine.layers_for('where')
    with capture(unet[0], 'q k', layers=[0, 4]) as tape:
        renoise(unet[0], unet[1].video, 'a cat', step=-2, num_inference_steps=4)
    with pytest.raises(ValueError, match='layer 0 has 8x8 tokens in a frame and layer 4 4x4.*layers=4'):
        track(trace(unet[0], tape=tape), points=[(0, 5, 6)], layers=[0, 4])


def test_layers_of_a_unet_come_few_at_a_time(unet):
    whole, n = hold(*unet, num_inference_steps=4), len(SPATIAL)
    most = max(sum(x.nbytes for k, x in whole.tape(-2, range(i + 1)).data.items() if k[1] == i) for i in range(n))
    small = hold(*unet, num_inference_steps=4, budget=2 * most)
    assert torch.equal(small.words('cat', -2, layers=[0, 4, 8, 15]).maps, whole.words('cat', -2, layers=[0, 4, 8, 15]).maps)
    assert torch.equal(small.words('cat', -2).maps, whole.words('cat', -2).maps) and small.nbytes <= 2 * most


def test_free_words_of_layers_without_a_text_half_are_refused():
    pipe, video = pipe_of('hunyuanvideo'), torch.rand(9, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    engine, free = hold(pipe, video, PROMPT, num_inference_steps=4), dict(words='dog', source='concepts')
    assert engine.layers_for('concepts') == [0, 1] and engine.layers_for('words') == [0, 1, 2, 3]
    asks = [lambda how: engine.words(step=-2, **free, **how), lambda how: imap(pipe, video, steps=-2, num_inference_steps=4,
                                                                               **free, **how)]
    for how in (dict(heads={1: [0], 3: [1]}), dict(layers=[0, 2]), dict(layers=range(4)), dict(heads={3: [0]}, layers=[3])):
        for ask in asks:
            with pytest.raises(ValueError, match='layer [23] .*has no text half'):
                ask(how)
    kept = dict(heads={1: [0], 0: [1]})
    got, want = engine.words(step=-2, **free, **kept), imap(pipe, video, prompt=PROMPT, steps=-2, num_inference_steps=4,
                                                            **free, **kept)
    assert torch.equal(got.maps, want.maps) and got.heads == kept['heads'] == want.heads


def test_the_map_of_a_word_in_each_head(small):
    pipe, video = small
    engine = hold(pipe, video, PROMPT, num_inference_steps=4)
    for how in (dict(words='cat'), dict(words='a dog', source='concepts', normalise='slots'), dict(words='cat', normalise=None)):
        each = engine.word_heads(step=-2, layer=1, **how)
        assert each.shape == (2, *engine.grid_of(1).shape)
        for h, x in enumerate(each):
            assert torch.equal(x, engine.words(step=-2, heads={1: [h]}, **how).maps[0])
    with pytest.raises(ValueError, match='maps one word or phrase'):
        engine.word_heads(['cat', 'dog'])


@pytest.fixture
def experts():
    "Wan with a second denoiser for the later half of the timesteps, as Wan 2.2 has."
    pipe = tiny('wan')
    pipe.transformer_2 = tiny('wan', seed=1).transformer
    pipe.register_to_config(boundary_ratio=.5)
    return pipe


def test_steps_run_on_the_expert_that_the_pipeline_runs(experts):
    pipe, size = experts, dict(frames=5, size=(32, 32), guidance=1.)
    boundary = [p.t >= 500 for p in schedule(pipe, 8)]
    assert boundary[0] and not boundary[-1]
    with capture(pipe, 'q xk hidden', steps=[0, 7]) as want:
        generate(pipe, PROMPT, 3, 8, **size)
    engine = hold(pipe, prompt=PROMPT, num_inference_steps=8, seed=3, **size)
    for step in (0, 7):
        tape = engine.tape(step)
        assert all(torch.equal(tape.data[k], x) for k, x in want.data.items() if k[2] == step)
    x = torch.randn(1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    given = conditions(pipe, PROMPT, x)
    for at in schedule(pipe, 8):
        model = pipe.transformer if at.t >= 500 else pipe.transformer_2
        with torch.no_grad():
            plain = model(x, torch.tensor([at.t]).long(), **given, return_dict=False)[0]
        assert torch.equal(predict(pipe, x, at, given, 8), plain)


def test_free_words_are_read_by_the_expert_that_runs(experts):
    pipe, video = experts, torch.rand(9, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    engine = hold(pipe, video, PROMPT, num_inference_steps=8)
    alone = tiny('wan', seed=1)   # the second expert, and nothing else
    alone.text_encoder, alone.vae = pipe.text_encoder, pipe.vae
    for words in (dict(words='cat'), dict(words='dog', source='concepts')):
        low = hold(alone, video, PROMPT, num_inference_steps=8).words(step=-1, **words)
        assert not torch.equal(engine.words(step=0, **words).maps, low.maps)
        assert torch.equal(engine.words(step=-1, **words).maps, low.maps)
        assert torch.equal(imap(pipe, video, prompt=PROMPT, steps=-1, num_inference_steps=8, **words).maps, low.maps)
    assert not hooks.OPEN_SEAMS and not any(m._forward_pre_hooks for m in (pipe.transformer, pipe.transformer_2))


# A generation

@pytest.mark.parametrize('family', ['cogvideox', 'wan', 'hunyuanvideo'])
def test_a_generation_is_looked_at_as_it_ran(family):
    pipe = pipe_of(family)
    size = dict(frames=5, size=(32, 32))
    with capture(pipe, 'q hidden', steps=1) as want:
        made = generate(pipe, PROMPT, 3, 3, **size)
    engine = hold(pipe, prompt=PROMPT, num_inference_steps=3, seed=3, **size)
    assert torch.equal(engine.video, made.video) and family_of(pipe) == family
    got = engine.tape(1)
    for key, x in want.data.items():
        assert (got.data[key] - x).abs().max() <= 1e-4 * x.abs().max()


# What it costs

def test_one_forward_a_step(pipe, clip, engine):
    with forwards(pipe) as count:
        engine.tape(20, 3)
        assert count.n == 4 and engine.held == [(20, 0), (20, 1), (20, 2), (20, 3)]      # it stopped there
        for layer in range(4):
            engine.match((0, 20, 20), 20, layer)
            engine.track([(3, 20, 20)], 20, layer, heads=[0])
            engine.words(['red'], 20, [layer])
            engine.similar((0, 20, 20), 20, layer)
        assert count.n == 4
        engine.heads(20)
        engine.score(20)
        assert count.n == 10                                                             # the two layers left took one forward
        engine.words(['circle'], 20, source='concepts')
        engine.words(['circle'], 20, source='concepts', k=1)
        assert count.n == 16


def test_the_text_encoder_runs_once_a_word(small):
    pipe, video = small
    engine, free, ran = hold(pipe, video, PROMPT, num_inference_steps=4), dict(source='concepts'), []
    handle = pipe.text_encoder.register_forward_hook(lambda *_: ran.append(1))

    def cost(words, **how):
        before = len(ran)
        engine.words(words, **how)
        return len(ran) - before
    assert cost('cat', step=-2) == 1                           # the prompt, for the model
    assert cost(['dog', 'a cat'], step=-2, **free) == 3        # and nothing said
    assert cost(['dog', 'a cat'], step=-2, k=1, **free) == cost(['dog', 'a cat'], step=-3, layers=[0], **free) == 0
    assert cost(['a cat', 'bird'], step=-2, **free) == 1 and cost('dog', step=-2, against=['bird'], **free) == 0
    want = hold(pipe, video, PROMPT, num_inference_steps=4).words(['bird', 'dog'], step=-2, **free)
    before = len(ran)
    got = engine.words(['bird', 'dog'], step=-2, **free)
    assert len(ran) == before and torch.equal(got.maps, want.maps) and got.facts == want.facts
    got.words.append('mine')
    assert engine.words(['bird', 'dog'], step=-2, **free).words == ['bird', 'dog']
    with pytest.raises(ValueError, match='mapped and subtracted at once'):
        engine.words(['dog', 'bird'], step=-2, against=['bird'], **free)
    for i in range(40):
        engine.encode(pipe, [f'w{i}'])
    handle.remove()
    assert len(engine._encoded_words.held) == 32 and len(engine._prepared.held) <= 8


def test_a_closed_engine_lets_go(pipe, clip):
    with hold(pipe, clip) as engine:
        engine.words('star', 20, source='concepts')
        kept = [weakref.ref(x) for x in (*engine.tape(20).data.values(), engine._inputs)]
    engine.close()
    gc.collect()
    assert engine.closed and not engine.held and not engine.nbytes and not any(x() is not None for x in kept)
    assert not engine._encoded_words.held and not engine._prepared.held and not engine._free.held and not engine._given.held
    assert repr(engine) == 'Trace(closed)' and torch.equal(engine.video, clip.video)
    for ask in (lambda: engine.match((0, 20, 20)), lambda: engine.words('red'), lambda: engine.words('star', source='concepts'),
                lambda: engine.heads(), lambda: engine.score(), lambda: engine.features(), lambda: engine.tape(),
                lambda: engine.track([(0, 20, 20)]), lambda: engine.__enter__()):
        with pytest.raises(RuntimeError, match=r'this trace is closed: trace\(.*makes another'):
            ask()


def test_closing_stops_a_forward_that_runs(pipe, clip):
    class Closes(Job):
        def __init__(self, engine):
            super().__init__('closes')
            self.engine = engine

        def check(self): self.engine.close()
    engine = hold(pipe, clip)
    with pytest.raises(RuntimeError, match='this trace is closed'):
        engine.tape(20, None, Closes(engine))
    assert not engine.held and not engine._given.held and not hooks.OPEN_SEAMS


def test_least_recently_used_goes_first(pipe, clip):
    one = sum(x.numel() * x.element_size() for x in hold(pipe, clip).tape(20, 0).data.values())
    engine = hold(pipe, clip, budget=3 * one)
    engine.tape(20, 2)
    engine.tape(20, 0)
    engine.tape(10, 0)
    assert engine.held == [(20, 2), (20, 0), (10, 0)] and engine.nbytes == 3 * one
    with pytest.raises(CaptureError, match='6 layers of a step take'):
        engine.tape(20)
    assert torch.equal(engine.heads(20).scores['chi'], hold(pipe, clip).heads(20).scores['chi'])
    with pytest.raises(CaptureError, match=r'layer 0 alone takes .* budget="1 MiB"'):
        hold(pipe, clip, budget=one // 2).tape(20, 0)


def test_layers_far_apart_come_in_one_forward(pipe, clip):
    one = sum(x.numel() * x.element_size() for x in hold(pipe, clip).tape(20, 0).data.values())
    engine, whole = hold(pipe, clip, budget=3 * one), hold(pipe, clip)
    with forwards(pipe) as count:
        tape = engine.tape(20, [0, 2, 5])
        assert count.n == 6 and {k[1] for k in tape} == {0, 2, 5}
    assert torch.equal(engine.heads(20, layers=[0, 2, 5]).scores['chi'], whole.heads(20, layers=[0, 2, 5]).scores['chi'])
    assert torch.equal(engine.words('red', 20, [1, 4]).maps, whole.words('red', 20, [1, 4]).maps)


def test_a_part_of_a_layer_is_not_taken_for_the_whole(pipe, clip):
    class Stops(Job):
        "A job that is cancelled at its n-th question."
        def __init__(self, n):
            super().__init__('stops')
            self.n = n

        def check(self):
            self.n -= 1
            if self.n < 0:
                raise CancelledError
    whole = hold(pipe, clip).features(20, 1)
    for n in range(1, 6):
        engine = hold(pipe, clip)
        with pytest.raises(CancelledError):
            engine.tape(20, 3, Stops(n))
        assert torch.equal(engine.features(20, 1), whole) and engine.tape(20, 0).grid == engine.grid


def test_two_engines_of_a_model_wait_for_each_other(pipe, clip):
    one, other = hold(pipe, clip), hold(pipe, world.clip('a blue square moves up', seed=5))
    want = one.features(15, 4), other.features(15, 4)
    for _ in range(2):
        engines = hold(pipe, clip), hold(pipe, world.clip('a blue square moves up', seed=5))
        with Worker() as a, Worker() as b:
            jobs = [w.submit('x', lambda job, e=e: e.features(15, 4)) for w, e in zip((a, b), engines)]
            assert all(torch.equal(j.result(60), x) for j, x in zip(jobs, want))


def test_half_precision_takes_half_the_room(pipe, clip, engine):
    half = hold(pipe, clip, dtype='float16')
    points = torch.tensor([[0., 20, 20], [0, 40, 30]])
    want, got = engine.track(points, 20, 4), half.track(points, 20, 4)
    assert half.nbytes * 2 == engine.nbytes
    assert ((got.xy - want.xy).norm(dim=-1) <= engine.grid.stride).float().mean() > .9


# Weights that are elsewhere between forwards

def offloaded(pipe):
    "As `pipe.enable_sequential_cpu_offload` arranges it, on a device that is there."
    accelerate = pytest.importorskip('accelerate')
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            accelerate.cpu_offload(part, torch.device('cpu'), offload_buffers=len(part._parameters) > 0)
    return pipe


@pytest.mark.parametrize('family', ['cogvideox', 'wan', 'hunyuanvideo', 'animatediff'])
def test_offloaded_models_answer_the_same(family):
    video = torch.rand(9, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    layers, answers = [0, 4] if family == 'animatediff' else [0, 1], []
    for pipe in (tiny(family), offloaded(tiny(family))):
        engine = hold(pipe, video, PROMPT, num_inference_steps=4)
        answers.append([engine.match((0, 5, 6), -2, layers[1]), engine.track([(0, 5, 6)], -2, layers[1]).xy,
                        engine.features(-2, layers[1]), engine.words('cat', -2, layers).maps,
                        engine.words(['dog', 'a cat'], -2, layers, source='concepts').maps,
                        engine.heads(-2, layers=layers).scores['chi'].nan_to_num(-1)])
        made = hold(pipe, prompt=PROMPT, num_inference_steps=2, frames=5, size=(32, 32))
        answers[-1] += [made.video, made.features(-1, layers[1])]
    assert all(p.device.type == 'meta' for n, p in model_of(pipe).named_parameters() if n != 'scale_shift_table')
    assert all(torch.equal(a, b) for a, b in zip(*answers)) and not hooks.OPEN_SEAMS


# Work beside the notebook

def test_a_forward_can_be_stopped(pipe, clip, engine):
    with Worker() as worker:
        started, go = threading.Event(), threading.Event()

        def look(job):
            started.set()
            go.wait(10)
            return engine.tape(5, None, job)
        job = worker.submit('step', look)
        started.wait(10)
        job.cancel()
        go.set()
        with pytest.raises(CancelledError):
            job.result(30)
    assert not hooks.OPEN_SEAMS and engine.tape(5).finished
    with Worker() as worker:
        job = worker.submit('make', lambda job: hold(pipe, prompt='a red circle moves right', num_inference_steps=20, job=job),
                         on_progress=lambda job: job.cancel() if job.done == 2 else None)
        with pytest.raises(CancelledError):
            job.result(60)
        assert job.done in (2, 3) and job.total == 20 and not hooks.OPEN_SEAMS


def test_the_newest_request_counts():
    ran, finished = [], []

    def slow(i):
        def work(job):
            ran.append(i)
            for n in range(50):
                job.step(n, 50)
                time.sleep(.002)
            return i
        return work
    with Worker() as worker:
        jobs = [worker.submit('layer', slow(i), on_done=lambda job: finished.append(job.value)) for i in range(40)]
        assert jobs[-1].result(30) == 39
    assert 39 in ran and len(ran) <= 2 and finished == [39]
    with pytest.raises(RuntimeError, match='after shutdown'):
        worker.submit('layer', slow(0))


def test_errors_wait_for_the_result():
    def broken(job):
        raise ValueError('no layer 99')
    told = []
    with Worker() as worker:
        job = worker.submit('layer', broken, on_done=lambda job: told.append(str(job.error)))
        with pytest.raises(ValueError, match='no layer 99'):
            job.result(10)
        assert worker.submit('layer', lambda job: 7).result(10) == 7
    assert told == ['no layer 99']


# Bad input, in a sentence

@pytest.mark.parametrize('ask, message', [
    (lambda e: e.tape(99), r'steps=99 is outside this run: there are 30 steps'),
    (lambda e: e.match((0, 20, 20), layer=6), r'layers=6 is outside this run: there are 6 layers'),
    (lambda e: e.match((0, 90, 20)), r'query 0 is .* but the clip has'),
    (lambda e: e.words(['dog']), "'dog' is not in the prompt"),
    (lambda e: e.words(['zebra'], source='concepts'), "does not know 'zebra'"),
    (lambda e: e.similar((99, 3, 3)), 'query 0 is'),
    (lambda e: hold(e.pipe), "neither a video nor a prompt .* give prompt='a red circle"),
    (lambda e: hold(e.pipe, e.video[:, :60]), r'60.* let fit_video\(pipe, video\) crop and sample it'),
    (lambda e: hold(e.pipe, e.video[:16]), r'16 frames.*fit_video'),
    (lambda e: hold(e.pipe, e.video).score(), 'no tracks are known'),
    (lambda e: hold(e.pipe, e.video, budget='some'), 'is not a size'),
])
def test_bad_input(engine, ask, message):
    with pytest.raises(ValueError, match=message):
        ask(engine)


def test_bad_kinds_of_input(engine):
    with pytest.raises(TypeError, match='guidance.* is how a video is generated'):
        hold(engine.pipe, engine.video, guidance=3)
    with pytest.raises(TypeError, match='video is a int'):
        hold(engine.pipe, 3)
    with pytest.raises(TypeError, match='video is a PointClip'):
        hold(engine.pipe, PointClip('no video', torch.zeros(1, 17, 2), torch.ones(1, 17).bool(), size=(64, 64)))
    with pytest.raises(TypeError, match="a prompt is given by its name, prompt='a red circle'"):
        hold(engine.pipe, 'a red circle')


@pytest.mark.parametrize('how, message', [
    (dict(budget='abc'), 'is not a size'), (dict(dtype='float99'), 'float99'), (dict(seed=None),
                                                                                'seed=None must be a whole number'),
    (dict(num_inference_steps=0), 'num_inference_steps=0 must be a whole number of at least 1'),
    (dict(num_videos_per_prompt=2), 'leave num_videos_per_prompt out'),
    (dict(on_step=print), 'leave on_step out'), (dict(output_type='pil'), 'leave output_type out')])
def test_what_cannot_be_held_is_said_before_a_video_is_made(pipe, clip, how, message):
    hook = model_of(pipe).register_forward_pre_hook(lambda *_: pytest.fail('the model ran'))
    try:
        with pytest.raises(ValueError, match=message):
            hold(pipe, prompt='a red circle', **how)
    finally:
        hook.remove()
    if set(how) <= {'budget', 'dtype', 'seed', 'of'}:
        with pytest.raises(ValueError, match=message):
            hold(pipe, clip, **how)


def test_a_layer_asked_for_during_the_first_forward_waits_for_its_grid(pipe, clip):
    engine, within, go = hold(pipe, clip), threading.Event(), threading.Event()

    class Waits(Job):
        def check(self):
            if engine.held:
                within.set()
                go.wait(30)
    with Worker() as worker, Worker() as other:
        first = worker.submit('first', lambda job: engine.tape(2, None, Waits('waits')))
        within.wait(30)
        second = other.submit('second', lambda job: engine.match((0, 20., 20.), 2, 0))
        time.sleep(.2)
        go.set()
        assert first.result(60).finished and torch.equal(second.result(60), engine.match((0, 20., 20.), 2, 0))


def test_a_turn_that_ends_in_an_error_gives_the_model_back(pipe):
    def fails(job):
        if not job.note:
            raise RuntimeError('cannot be told')
    with Worker() as worker, model_elsewhere(pipe) as go:
        def work(job):
            with job.turn(hooks.lock_of(pipe)):
                return 1
        job = worker.submit('x', work, on_progress=fails)
        while not job.note:
            time.sleep(.01)
        go.set()
        with pytest.raises(RuntimeError, match='cannot be told'):
            job.result(30)
        assert hooks.lock_of(pipe).acquire(timeout=5)
        hooks.lock_of(pipe).release()


def test_a_turn_leaves_the_note_of_the_work(pipe):
    told = []
    with Worker() as worker, model_elsewhere(pipe) as go:
        def work(job):
            job.step(1, 2, 'steps')
            with job.turn(hooks.lock_of(pipe)):
                return job.note
        job = worker.submit('x', work, on_progress=lambda job: told.append(job.note))
        while len(told) < 2:
            time.sleep(.01)
        go.set()
        assert job.result(30) == 'steps' == told[0] == told[2] and 'waiting' in told[1]


def test_what_would_do_nothing_is_refused_whatever_was_asked_before(pipe, engine):
    engine.words('circle', 20, 3)
    with pytest.raises(ValueError, match='together'):
        engine.words('circle', 20, 3, together=True)


def test_what_is_held_answers_while_others_run_the_model(pipe, clip):
    engine = hold(pipe, clip)
    want, words = engine.match((0, 20., 20.), 20, 3), engine.words('circle', 20, 3, source='concepts')
    told = []
    with Worker() as worker, model_elsewhere(pipe) as go:
        assert torch.equal(worker.submit('held', lambda job: engine.match((0, 20., 20.), 20, 3)).result(10), want)
        again = worker.submit('held', lambda job: engine.words('circle', 20, 3, source='concepts', job=job)).result(10)
        assert torch.equal(again.maps, words.maps)
        job = worker.submit('not held', lambda job: engine.tape(5, 3, job), on_progress=lambda job: told.append(job.note))
        while not told:
            time.sleep(.01)
        assert 'waiting for the model' in told[0]
        job.cancel()            # it waits for the model, and lets go at once
        assert worker.submit('next', lambda job: 7).result(10) == 7 and not go.is_set()
        told.clear()
        job = worker.submit('not held', lambda job: engine.tape(5, 3, job), on_progress=lambda job: told.append(job.note))
        while not told:         # what does not wait says nothing
            time.sleep(.01)
        go.set()
        assert job.result(30).finished and told[-1] == '' and (5, 3) in engine.held


def test_a_model_that_is_run_in_two_threads_is_run_in_turns(pipe, clip):
    "What one thread generates is not heard by what another looks at, and the other way round."
    from concurrent.futures import ThreadPoolExecutor

    from vidlens.seam.capturing import capture
    from vidlens.seam.run import generate
    alone, plain = generate(pipe, 'a red circle', 1, 6), hold(pipe, clip)
    want = {s: plain.match((0, 20., 20.), s, 4) for s in range(6)}
    engine = hold(pipe, clip)
    with ThreadPoolExecutor(1) as pool:
        looked = pool.submit(lambda: {s: engine.match((0, 20., 20.), s, 4) for s in range(6)})
        with capture(pipe, 'q', layers=[4]) as tape:
            beside = generate(pipe, 'a red circle', 1, 6)
        got = looked.result(120)
    assert torch.equal(beside.video, alone.video) and len(tape) == 6
    assert all(torch.equal(got[s], want[s]) for s in want)
