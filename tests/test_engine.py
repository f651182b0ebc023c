"""The engine answers what the verbs answer, from less work; work beside the notebook can be replaced, stopped and watched."""
import threading
import time
from concurrent.futures import CancelledError

import pytest
import torch
from seam import call, family_of, pipe_of

from vidlens import hooks, world
from vidlens.card import card_of, model_of
from vidlens.engine import hold
from vidlens.families import tiny
from vidlens.hooks import CaptureError, capture, watch_inputs
from vidlens.lens import features, score, track
from vidlens.run import generate, renoise
from vidlens.selection import score_heads
from vidlens.words import imap
from vidlens.worker import Worker

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
    assert torch.equal(out, plain) and sorted(kept) == [0, 1, 2] and not hooks._OPEN
    for step, x in kept.items():
        given = [y for y in seen if y[-1:].shape == x.shape and torch.equal(y[-1:], x)]
        assert given, step


# The verbs' answers

def test_tapes_are_those_of_a_capture(small):
    pipe, video = small
    engine = hold(pipe, video, PROMPT, of=4)
    kinds = 'xq xk xo q k o hidden' if card_of(pipe).text == 'cross' else 'q k o hidden'
    with capture(pipe, kinds) as want:
        renoise(pipe, video, PROMPT, step=2, steps=4)
    got = engine.tape(2)
    assert set(got.data) == set(want.data) and got.grid == want.grid and got.text == want.text
    assert all(torch.equal(got.data[k], want.data[k]) for k in want.data) and not hooks._OPEN


def test_points_words_heads_and_features_are_those_of_the_verbs(small):
    pipe, video = small
    engine, at = hold(pipe, video, PROMPT, of=4), dict(step=-2, of=4)
    points = torch.tensor([[0., 5, 6], [4, 20, 9]])
    got, want = engine.track(points, step=-2, layer=1), track(pipe, video, points, PROMPT, layer=1, **at)
    assert torch.equal(got.xy, want.xy) and torch.equal(got.visible, want.visible)
    field = engine.match(points[0], step=-2, layer=1)
    assert tuple(field.shape) == engine.grid.shape and torch.allclose(field.sum((1, 2)), torch.ones(len(field)))
    assert torch.equal(engine.features(-2, 1), features(pipe, video, PROMPT, layer=1, **at))
    found, same = engine.heads(-2).scores, score_heads(pipe, video, PROMPT, steps=[2], of=4, by=('chi', 'fisher', 'dbi')).scores
    assert all(torch.equal(found[n].nan_to_num(-1), same[n].nan_to_num(-1)) for n in same)
    rivals = ['cross', 'flow', 'moft', 'centre'] + ['concept'] * (card_of(pipe).text != 'cross')
    for how in (dict(words=['cat', 'runs'], k=1, rivals=rivals), dict(words=['dog', 'a cat'], source='concepts', layers=[0, 1])):
        got, want = engine.words(step=-2, **how), imap(pipe, video, prompt=PROMPT, **at, **how)
        assert torch.equal(got.maps, want.maps) and got.heads == want.heads and got.facts == want.facts
        assert all(torch.equal(got.rivals[n], x) for n, x in want.rivals.items())


def test_scores_against_the_truth_are_those_of_the_verb(pipe, clip, engine):
    got, want = engine.score(-12), score(pipe, clip)
    assert torch.equal(got.heads['accuracy'], want.heads['accuracy']) and got.steps == want.steps


def test_unets_are_held_too():
    pipe = tiny('animatediff')
    video = torch.rand(4, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    engine = hold(pipe, video, 'a cat', of=4)
    n = card_of(pipe).layer(model_of(pipe), 'up_blocks.1')
    assert torch.equal(engine.features(-2, n), features(pipe, video, 'a cat', layer=n, step=-2, of=4))
    alike = engine.similar((1, 9, 20), -2, n)
    grid = engine.tape(-2, n).grid_of(n)
    assert tuple(alike.shape) == grid.shape and alike.max() < 1 + 1e-4


@pytest.mark.parametrize('family', ['cogvideox', 'wan', 'hunyuanvideo'])
def test_a_generation_is_looked_at_as_it_ran(family):
    pipe = pipe_of(family)
    size = dict(frames=5, size=(32, 32))
    with capture(pipe, 'q hidden', steps=1) as want:
        made = generate(pipe, PROMPT, 3, 3, **size)
    engine = hold(pipe, prompt=PROMPT, of=3, seed=3, **size)
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


def test_least_recently_used_goes_first(pipe, clip):
    one = sum(x.numel() * x.element_size() for x in hold(pipe, clip).tape(20, 0).data.values())
    engine = hold(pipe, clip, budget=3 * one)
    engine.tape(20, 2)
    engine.tape(20, 0)
    engine.tape(10, 0)
    assert engine.held == [(20, 2), (20, 0), (10, 0)] and engine.nbytes == 3 * one
    with pytest.raises(CaptureError, match='6 layers of a step leave'):
        engine.tape(20)
    assert torch.equal(engine.heads(20).scores['chi'], hold(pipe, clip).heads(20).scores['chi'])
    with pytest.raises(CaptureError, match=r'layer 0 alone leaves .* budget="1 MiB"'):
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
    class Stops:
        "A job that is cancelled at its n-th question."
        def __init__(self, n): self.n = n

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
            jobs = [w.ask('x', lambda job, e=e: e.features(15, 4)) for w, e in zip((a, b), engines)]
            assert all(torch.equal(j.result(60), x) for j, x in zip(jobs, want))


def test_half_precision_takes_half_the_room(pipe, clip, engine):
    half = hold(pipe, clip, dtype='float16')
    points = torch.tensor([[0., 20, 20], [0, 40, 30]])
    want, got = engine.track(points, 20, 4), half.track(points, 20, 4)
    assert half.nbytes * 2 == engine.nbytes
    assert ((got.xy - want.xy).norm(dim=-1) <= engine.grid.stride).float().mean() > .9


# Work beside the notebook

def test_a_forward_can_be_stopped(pipe, clip, engine):
    with Worker() as worker:
        started, go = threading.Event(), threading.Event()

        def look(job):
            started.set()
            go.wait(10)
            return engine.tape(5, None, job)
        job = worker.ask('step', look)
        started.wait(10)
        job.cancel()
        go.set()
        with pytest.raises(CancelledError):
            job.result(30)
    assert not hooks._OPEN and engine.tape(5).whole
    with Worker() as worker:
        job = worker.ask('make', lambda job: hold(pipe, prompt='a red circle moves right', of=20, job=job),
                         tell=lambda job: job.cancel() if job.done == 2 else None)
        with pytest.raises(CancelledError):
            job.result(60)
        assert job.done in (2, 3) and job.total == 20 and not hooks._OPEN


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
        jobs = [worker.ask('layer', slow(i), then=lambda job: finished.append(job.value)) for i in range(40)]
        assert jobs[-1].result(30) == 39
    assert 39 in ran and len(ran) <= 2 and finished == [39]
    with pytest.raises(RuntimeError, match='after shutdown'):
        worker.ask('layer', slow(0))


def test_errors_wait_for_the_result():
    def broken(job):
        raise ValueError('no layer 99')
    told = []
    with Worker() as worker:
        job = worker.ask('layer', broken, then=lambda job: told.append(str(job.error)))
        with pytest.raises(ValueError, match='no layer 99'):
            job.result(10)
        assert worker.ask('layer', lambda job: 7).result(10) == 7
    assert told == ['no layer 99']


# Bad input, in a sentence

@pytest.mark.parametrize('ask, message', [
    (lambda e: e.tape(99), r'steps=99 is outside this run: there are 30 steps'),
    (lambda e: e.match((0, 20, 20), layer=6), r'layers=6 is outside this run: there are 6 layers'),
    (lambda e: e.match((0, 90, 20)), r'query 0 is .* but the clip has'),
    (lambda e: e.words(['dog']), "'dog' is not in the prompt"),
    (lambda e: e.words(['zebra'], source='concepts'), "does not know 'zebra'"),
    (lambda e: e.similar((99, 3, 3)), 'query 0 is'),
    (lambda e: hold(e.pipe), 'hold needs a video, or a prompt'),
    (lambda e: hold(e.pipe, e.video[:, :60]), 'pixels|60'),
    (lambda e: hold(e.pipe, e.video).score(), 'no tracks are known'),
    (lambda e: hold(e.pipe, e.video, budget='some'), 'is not a size'),
])
def test_bad_input(engine, ask, message):
    with pytest.raises(ValueError, match=message):
        ask(engine)


def test_bad_kinds_of_input(engine):
    with pytest.raises(TypeError, match="no option 'guidance'"):
        hold(engine.pipe, engine.video, guidance=3)
    with pytest.raises(TypeError, match='video is a int'):
        hold(engine.pipe, 3)
