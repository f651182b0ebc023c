"""Experiments of the explorers: what is asked with a brush is what the call makes; cancelling leaves the last result."""
from concurrent.futures import CancelledError

import pytest
import torch

from vidlens import hooks, world
from vidlens.channels import channel_curves
from vidlens.engine import hold
from vidlens.experiments import Channels, Steer, heads_in, silenced
from vidlens.explorers import State
from vidlens.lens import moft
from vidlens.run import generate
from vidlens.steering import Region, control
from vidlens.viewer import _packed
from vidlens.worker import Worker

PROMPT = 'a red circle'


@pytest.fixture(scope='module')
def engine(pipe):
    return hold(pipe, prompt=PROMPT, seed=1, of=8)


@pytest.fixture
def steer(engine):
    with Worker() as worker:
        yield Steer(engine, worker=worker)


@pytest.mark.slow
def test_a_painted_part_and_an_arrow_are_a_region(pipe, engine, steer):
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[16:48, 16:48] = True
    steer.viewer.mask, steer.viewer.arrow = mask.to(torch.uint8).numpy().tobytes(), [26., 32., 42., 32.]
    told = []
    steer.viewer.observe(lambda change: told.append(change['new']), 'progress')
    steer.start().result(300)
    want = control(pipe, PROMPT, Region((1., 0.), mask), seed=1, of=8, steps=range(1, 4), rate=.3)
    assert torch.equal(steer.video, want.video) and torch.equal(steer.steered.masks, want.masks)
    assert max(told) > 0 and steer.viewer.progress == -1 and not steer.viewer.busy and not steer.run.disabled
    said = eval(steer.call, dict(control=control, Region=Region, pipe=pipe, mask=mask))
    assert torch.equal(said.video, want.video) and len(steer.after.children) == 2
    steer.clear.click()
    assert steer.viewer.painted is None and steer.viewer.arrow == []


def test_silenced_heads_change_the_video_and_leave_the_model(pipe, engine, steer):
    steer.off.value = '4.0, 4.1'
    steer.start().result(120)
    assert torch.equal(steer.video, eval(steer.call, dict(silenced=silenced, pipe=pipe)).video)
    assert not torch.equal(steer.video, engine.video) and not hooks._OPEN
    assert torch.equal(generate(pipe, PROMPT, 1, 8).video, engine.video)
    assert heads_in('4.0, 4.1 2.3') == {4: [0, 1], 2: [3]}


def test_cancelling_keeps_the_last_result(engine, steer):
    steer.off.value = '3.0'
    steer.start().result(120)
    before = steer.video
    steer.off.value = '2.0'
    steer.viewer.observe(lambda change: steer.stop.click() if change['new'] > .2 else None, 'progress')
    job = steer.start()
    with pytest.raises(CancelledError):
        job.result(120)
    assert torch.equal(steer.video, before) and not steer.viewer.busy and steer.stop.disabled and not hooks._OPEN


@pytest.mark.parametrize('off, message', [('4', 'write layer.head'), ('9.0', 'layers=9 is outside'), ('', 'draw an arrow first')])
def test_what_cannot_be_is_a_sentence(steer, off, message):
    steer.off.value = off
    with pytest.raises(ValueError, match=message):
        steer.start().result(60)
    assert message.split('=')[0] in steer.viewer.message and not steer.run.disabled and not steer.viewer.busy


def test_a_real_video_cannot_be_made_again(pipe):
    with Worker() as worker:
        steer = Steer(hold(pipe, world.clip('a red circle moves right', seed=3)), worker=worker)
        with pytest.raises(ValueError, match='one that was made'):
            steer.start().result(60)


@pytest.mark.slow
def test_channels_are_those_of_the_verbs(pipe, engine):
    with Worker() as worker:
        channels = Channels(engine, State(step=5, layer=3), worker)
        channels.viewer.picked = [4, 20., 40., 1]
        channels.job.result(60)
        assert channels.viewer.maps == _packed(eval(channels.call, dict(engine=engine))[None])[0]
        lines = channels.curves.children[0].data
        curves = channel_curves(engine.features(5, 3))
        number = int(lines[0].name.split()[1])
        assert torch.allclose(torch.tensor(lines[0].y, dtype=torch.float32), curves[:, number], atol=1e-5)
        channels.look(8).result(120)
        channels.job.result(60)
        want = moft(pipe, layer=3, step=5, of=8, n=8)
        assert torch.equal(channels.found.channels.index, want.channels.index) and len(channels.scatter.children[0].data) == 4
        assert torch.equal(channels.similarity, engine.similar((4, 20., 40.), 5, 3, want.channels))
        channels.state.layer = 2                      # nothing was found for this layer: all channels again
        channels.job.result(60)
        assert channels.channels is None and 'all channels' in channels.viewer.panels[0]
