"""Explorers without a browser: what is on the screen is what the call beside it says; errors and stale questions."""
import pytest
import torch

from vidlens import world
from vidlens.engine import Engine, hold
from vidlens.explorers import Explorer, Match, State
from vidlens.viewer import _packed
from vidlens.worker import Worker


@pytest.fixture(scope='module')
def engine(pipe):
    return hold(pipe, world.clip('a red circle moves right', seed=3))


@pytest.fixture
def match(engine):
    with Worker() as worker:
        yield Match(engine, worker=worker)


def shown(explorer):
    explorer.job.result(60)
    return explorer.viewer


def test_what_is_shown_is_what_the_call_says(engine, match):
    for changed in (dict(layer=1), dict(step=3), dict(head=2), dict(point=[4, 40., 20.]), dict(head=-1, layer=5)):
        match.state.set_trait('frame', 4)
        for name, value in changed.items():
            setattr(match.state, name, value)
        viewer = shown(match)
        said = eval(match.call, dict(engine=engine))   # noqa: S307, the explorer's own line
        assert viewer.maps == _packed(said[None])[0] and viewer.frame == 4
        track = engine.track([match.asked['point']], match.state.step, match.state.layer, heads=match.asked['heads'])
        assert torch.allclose(torch.tensor(viewer.tracks)[..., :2], track.xy) and not viewer.busy and viewer.message == ''


def test_a_click_is_a_question(engine, match):
    shown(match)
    x, y = engine.clip.tracks[-1, 0].tolist()
    match.viewer.picked = [0, x, y, 1]
    viewer = shown(match)
    assert match.state.point == [0, x, y] and torch.allclose(torch.tensor(viewer.truth)[0, :, :2], engine.clip.tracks[-1])
    match.both.value = True
    shown(match)
    assert torch.equal(match.field, engine.match((0, x, y), match.state.step, match.state.layer, symmetric=True))


def test_explorers_of_one_video_move_together(engine):
    with Worker() as worker:
        state = State(step=18, layer=4)
        one, other = Match(engine, state, worker), Match(engine, state, worker)
        plain = Explorer(engine, state, worker)
        one.state.layer, one.viewer.frame = 2, 7
        assert other.state.layer == 2 and other.viewer.frame == plain.viewer.frame == 7
        one.job.result(60), other.job.result(60)
        assert one.viewer.maps == other.viewer.maps and plain.call == 'engine.video'


def test_an_error_is_a_sentence_and_the_next_answer_clears_it(engine, match):
    shown(match)
    before = match.viewer.maps
    match.state.point = [0, 900., 3.]
    with pytest.raises(ValueError, match='query 0 is'):
        match.job.result(60)
    assert 'but the clip has' in match.viewer.message and not match.viewer.busy and match.viewer.maps == before
    match.state.point = [0, 20., 3.]
    assert shown(match).message == ''


def test_the_budget_is_said_in_the_widget(pipe, engine):
    with Worker() as worker:
        match = Match(hold(pipe, world.clip('a red circle moves right', seed=3), budget=1000), worker=worker)
        with pytest.raises(RuntimeError):
            match.job.result(60)
        assert 'alone leaves' in match.viewer.message and 'budget=' in match.viewer.message


def test_all_steps_are_scored_and_clicked(engine):
    few = Engine(engine.pipe, engine.clip, engine.plan[::10], lambda i: engine._inputs(10 * i))
    with Worker() as worker:
        match = Match(few, worker=worker)
        match.score_all().result(120)
        assert not match.scores.isnan().any() and match.stop.disabled and not match.all.disabled
        for step in range(3):
            assert torch.equal(match.scores[step], few.score(step).map('accuracy')[0])
        match.go_to('1', '2')
        assert (match.state.step, match.state.layer) == (1, 2) and len(match.map.children) == 1
    untold = Match(hold(engine.pipe, engine.video), worker=Worker())
    assert untold.all.disabled
    untold.worker.close()
