"""Experiments of the explorers: what is asked with a brush is what the call makes; cancelling leaves the last result."""
import threading
import time
from concurrent.futures import CancelledError

import pytest
import torch
from seam import model_elsewhere

from vidlens import world
from vidlens.seam import hooks
from vidlens.seam.card import model_of
from vidlens.motion.channels import channel_curves
from vidlens.live.channels_explorer import ChannelsExplorer
from vidlens.live.explorer import State
from vidlens.live.steer_explorer import SteerExplorer, ablated, parse_heads
from vidlens.live.tabs import Explorers, explore
from vidlens.motion.one_site import features, moft, motion_map
from vidlens.seam.run import generate
from vidlens.motion.regions import Region
from vidlens.motion.steering import Guide, control
from vidlens.live.viewer import pack_maps
from vidlens.live.worker import Worker
from vidlens.seam.traces import Trace, trace

PROMPT = 'a red circle'


@pytest.fixture(scope='module')
def traced(pipe):
    return trace(pipe, prompt=PROMPT, seed=1, num_inference_steps=8)


@pytest.fixture
def steer(traced):
    with Worker() as worker:
        yield SteerExplorer(traced, worker=worker)


@pytest.mark.slow
def test_a_painted_part_and_an_arrow_are_a_region(pipe, traced, steer):
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[16:48, 16:48] = True
    steer.viewer.mask, steer.viewer.arrow = mask.to(torch.uint8).numpy().tobytes(), [26., 32., 42., 32.]
    told = []
    steer.viewer.observe(lambda change: told.append(change['new']), 'progress')
    steer.start().result(300)
    want = control(pipe, PROMPT, Region((1., 0.), mask), seed=1, num_inference_steps=8, guide=Guide(steps=range(1, 7), rate=.3))
    assert torch.equal(steer.video, want.video) and torch.equal(steer.steered.masks, want.masks)
    assert max(told) > 0 and steer.viewer.progress == -1 and not steer.viewer.busy and not steer.run.running
    said = eval(steer.call, dict(control=control, Guide=Guide, Region=Region, pipe=pipe, mask=mask))
    assert torch.equal(said.video, want.video) and steer.viewer.code == steer.call
    assert torch.equal(steer.after.pixels, want.video) and steer.result.layout.display == 'flex'
    steer.clear.click()
    assert steer.viewer.painted is None and steer.viewer.arrow == []


def test_silenced_heads_change_the_video_and_leave_the_model(pipe, traced, steer):
    steer.off.value = '4.0, 4.1'
    steer.start().result(120)
    assert torch.equal(steer.video, eval(steer.call, dict(ablated=ablated, pipe=pipe)).video)
    assert not torch.equal(steer.video, traced.video) and not hooks.OPEN_SEAMS
    assert torch.equal(generate(pipe, PROMPT, 1, 8).video, traced.video)
    assert parse_heads('4.0, 4.1 2.3') == {4: [0, 1], 2: [3]}


def test_a_whole_layer_is_ablated(pipe, traced, steer):
    steer.off.value = '4'
    steer.start().result(120)
    assert '{4: None}' in steer.call and torch.equal(steer.video, eval(steer.call, dict(ablated=ablated, pipe=pipe)).video)
    every = ablated(pipe, PROMPT, {4: list(range(traced.n_heads))}, seed=1, num_inference_steps=8).video
    assert torch.equal(steer.video, every) and not torch.equal(steer.video, traced.video)
    assert parse_heads('4.0 4 4.1, 2.1') == {4: None, 2: [1]}


@pytest.mark.parametrize('text', ['x', '4.', '.4', '4.x', '-1', '4.0.1', '²'])
def test_what_names_no_head_is_said(text):
    with pytest.raises(ValueError, match='write layer.head, for example 4.0, 4.1, or 4 for all of layer 4'):
        parse_heads(text)


def test_cancelling_acts_in_steps_that_nothing_guides(traced, steer):
    "Guided up to the second step only: the rest of the run stops, too."
    steer.last.value, steer.viewer.arrow = 2, [26., 32., 42., 32.]
    seen = []
    steer.viewer.observe(lambda change: seen.append(change['new']) or steer.run.cancel() if change['new'] > 0 else None, 'progress')
    with pytest.raises(CancelledError):
        steer.start().result(120)
    assert steer.video is None and len(seen) <= 2 and not model_of(traced.pipe)._forward_pre_hooks


def test_what_is_asked_is_what_was_there_when_run_was_pressed(traced, steer):
    steer.off.value = '2.0'
    job = steer.start()
    steer.off.value = '4.0, 4.1'
    job.result(120)
    want = ablated(traced.pipe, PROMPT, {2: [0]}, seed=1, num_inference_steps=8)
    assert "{2: [0]}" in steer.viewer.code and torch.equal(steer.video, want.video)


def test_cancelling_keeps_the_last_result(traced, steer):
    steer.off.value = '3.0'
    steer.start().result(120)
    before = steer.video
    steer.off.value = '2.0'
    steer.viewer.observe(lambda change: steer.run.cancel_button.click() if change['new'] > .2 else None, 'progress')
    job = steer.start()
    with pytest.raises(CancelledError):
        job.result(120)
    assert torch.equal(steer.video, before) and not steer.viewer.busy and steer.run.cancel_button.disabled and not hooks.OPEN_SEAMS


@pytest.mark.parametrize('off, message', [('4.', 'write layer.head'), ('9', 'layers=9 is outside'), ('9.0', 'layers=9 is outside'),
                                          ('', 'draw an arrow first')])
def test_what_cannot_be_is_a_sentence(steer, off, message):
    steer.off.value = off
    if (job := steer.start()) is not None:
        with pytest.raises(ValueError, match=message):
            job.result(60)
    assert message in steer.viewer.message and not steer.run.running and not steer.viewer.busy


def test_a_real_video_cannot_be_made_again(pipe):
    with Worker() as worker:
        steer = SteerExplorer(trace(pipe, world.clip('a red circle moves right', seed=3)), worker=worker)
        steer.viewer.arrow = [1., 1., 9., 9.]
        assert steer.start() is None and 'needs a generated video' in steer.viewer.message


def test_sliders_answer_while_channels_are_looked_for(traced):
    channels = ChannelsExplorer(traced, State(step=5, layer=3))
    channels.job.result(60)
    job = channels.find_channels()
    while not channels.find.progress.value:
        time.sleep(.01)
    channels.state.step = 2
    channels.job.result(60)
    assert job.running and channels.options['step'] == 2
    channels.find.cancel()
    channels.close()


@pytest.mark.slow
def test_channels_are_those_of_the_verbs(pipe, traced):
    with Worker() as worker:
        channels = ChannelsExplorer(traced, State(step=5, layer=3), worker)
        channels.viewer.picked = [4, 20., 40., 1]
        channels.job.result(60)
        assert channels.viewer.maps == pack_maps(eval(channels.call, dict(trace=traced, motion_map=motion_map))[None])[0]
        lines = channels.curves.figure.data
        curves = channel_curves(features(traced, step=5, layer=3))
        number = int(lines[0].name.split()[1])
        assert torch.allclose(torch.tensor(lines[0].y, dtype=torch.float32), curves[:, number], atol=1e-5)
        channels.find_channels().result(120)
        channels.job.result(60)
        want = moft(pipe, layer=3, step=5, num_inference_steps=8)
        assert torch.equal(channels.found.channels.index, want.channels.index) and len(channels.scatter.figure.data) == 4
        assert torch.equal(channels.similarity, motion_map(traced, point=(4, 20., 40.), step=5, layer=3, channels=want.channels))
        channels.state.layer = 2                      # nothing was found for this layer: all channels again
        channels.job.result(60)
        assert channels.options['channels'] is None and 'all channels' in channels.viewer.panels[0]


# All of them

def test_a_tab_that_is_not_seen_asks_nothing(traced):
    every = Explorers(traced)
    match, words = every.made['Match'], every.select('Words')
    words.job.result(60)
    before = match.job
    every.state.step = 3
    words.job.result(60)
    assert match.job is before and words.options['steps'] == 3
    every.select('Match').job.result(60)
    assert match.job is not before and 'step 3' in match.viewer.panels[0]
    every.close()
    with pytest.raises(ValueError, match='there is no explorer'):
        every.select('Nothing')


def test_closing_stops_a_run_that_others_wait_for(pipe):
    "The worker waits for the model, which the run has: the run is stopped, not waited for."
    every = explore(pipe, prompt=PROMPT, seed=1, num_inference_steps=8)
    steer = every.select('Steer')
    steer.off.value = '2.0'
    steps, hook = [], model_of(pipe).register_forward_pre_hook(lambda *_: steps.append(time.sleep(.2)))
    try:
        steer.start()
        while not steps:
            time.sleep(.01)
        every.select('Match')
        every.state.step = 2
        every.close()
    finally:
        hook.remove()
    assert steer.run.job.cancelled and steer.video is None and len(steps) < 6


def test_an_engine_with_a_prompt_of_its_own_takes_no_other(traced):
    with pytest.raises(ValueError, match=r'explore\(pipe, video, prompt\)'):
        explore(traced, None, 'a blue square')
    with pytest.raises(ValueError, match='its own caption'):
        trace(traced.pipe, world.clip('a red circle moves right', seed=3), 'a blue square')


def test_closing_ends_threads_widgets_and_what_is_held(pipe):
    from ipywidgets.widgets.widget import _instances

    widgets, threads = set(_instances), set(threading.enumerate())
    every = explore(pipe, world.clip('a red circle moves right', seed=3))
    for name in ('Match', 'Words', 'Steer'):
        every.select(name)
    every.worker.submit('end', lambda job: None).result(60)
    every.close()
    left = {k: type(v).__name__ for k, v in _instances.items() if k not in widgets}
    assert set(left.values()) <= {'Layout'} and len(left) <= 1, left
    assert every.trace.closed and not [t for t in threading.enumerate() if t not in threads and t.name.startswith('vidlens')]


def test_a_cell_that_is_run_again_closes_what_it_showed(traced, monkeypatch):
    monkeypatch.setattr('vidlens.live.tabs._cell', lambda: ('this', 'run 1'))
    first, beside = explore(traced), explore(traced)
    beside.made['Match'].job.result(60)     # two in one cell stand side by side
    assert first.made['Match'].request() is not None
    monkeypatch.setattr('vidlens.live.tabs._cell', lambda: ('this', 'run 2'))
    second = explore(traced)
    monkeypatch.setattr('vidlens.live.tabs._cell', lambda: ('another', 'run 3'))
    third = explore(traced)
    for each in (first, beside):
        with pytest.raises(RuntimeError):
            each.made['Match'].request()
    second.made['Match'].job.result(60), third.made['Match'].job.result(60)
    assert not traced.closed        # it was given, not made here
    second.close(), third.close()


def test_a_tab_that_cannot_be_says_why_and_the_others_stay(traced, monkeypatch):
    def none(*_):
        raise ValueError('this model reads no text')
    every = Explorers(traced)
    monkeypatch.setattr('vidlens.live.explorer.text_of', none)
    with pytest.raises(ValueError, match='reads no text'):
        every.select('Words')
    assert every.children[2].children[0].value == 'this model reads no text'
    every.select('Match').job.result(60)
    every.close()


# A video that is still to be made

def test_a_video_is_made_in_the_background(pipe, traced):
    told = []
    every = explore(pipe, prompt=PROMPT, seed=1, num_inference_steps=8)
    every.opening.progress.observe(lambda change: told.append(change['new']), 'value')
    every.selected_index = 1                   # another tab, before there is anything
    assert [box.children[0] for box in every.children] == [every.opening] * 6 or every.made
    assert torch.equal(every.trace.video, traced.video) and list(every.made) == ['Heads']
    assert any('of 8 steps' in far for far in told) and every.state is every.made['Heads'].state
    every.close()
    assert every._trace.closed


def test_making_a_video_is_cancelled_and_begun_again(pipe):
    steps, hook = [], model_of(pipe).register_forward_pre_hook(lambda *_: steps.append(time.sleep(.2)))
    try:
        every = explore(pipe, prompt=PROMPT, seed=1, num_inference_steps=8)
        while not steps:
            time.sleep(.01)
        every.opening.cancel_button.click()
        with pytest.raises(CancelledError):
            every.select('Match')
    finally:
        hook.remove()
    assert len(steps) < 8 and not every.made and not every.opening.start_button.disabled
    every.opening.start_button.click()
    assert len(every.trace.plan) == 8 and list(every.made) == ['Match']
    every.close()


def test_what_cannot_be_made_is_said_at_once_or_in_the_tabs(pipe):
    with pytest.raises(ValueError, match="does not know 'zebra'"):
        explore(pipe, prompt='a zebra')
    with pytest.raises(ValueError, match='60'):
        explore(pipe, prompt=PROMPT, generation=dict(size=(60, 64)))
    every = explore(pipe, prompt=PROMPT, generation=dict(zebra=1))
    with pytest.raises(TypeError, match='zebra'):
        every.select('Match')
    assert all('zebra' in box.children[1].value for box in every.children) and not every.opening.start_button.disabled
    every.close()


def test_the_result_says_what_was_done(traced, steer):
    assert steer.title == 'moved along the arrow'
    steer.off.value = '2.0'
    assert steer.title == 'without head 2.0'
    steer.viewer.arrow = [26., 32., 42., 32.]
    steer.start().result(120)
    assert steer.after.panels == ['without head 2.0 (the arrow has no effect while heads are ablated)']


def test_the_call_of_a_result_stays_while_others_look_elsewhere(traced, steer):
    steer.off.value = '2.0'
    steer.start().result(120)
    before, job = steer.viewer.code, steer.job
    steer.state.step, steer.state.frame = 1, 3
    assert steer.job is job and steer.viewer.code == before == steer.call


def test_what_was_painted_for_a_result_is_kept(traced, steer):
    mask = torch.zeros(64, 64, dtype=torch.uint8)
    mask[16:48, 16:48] = 1
    steer.viewer.mask, steer.viewer.arrow, steer.last.value = mask.numpy().tobytes(), [26., 32., 42., 32.], 2
    told = []
    steer.viewer.observe(lambda change: told.append(change['new']), 'progress')
    job = steer.start()
    steer.viewer.mask = torch.ones(64, 64, dtype=torch.uint8).numpy().tobytes()   # painted on
    job.result(120)
    assert torch.equal(steer.mask, mask.bool()) and steer.viewer.painted.all()
    steps = [v for v in told if v > 0]
    assert steps == sorted(steps) and steps[0] == 1 / 16 and steps[-1] == 1     # of the unguided run, too


def test_a_clip_is_opened_in_the_background_and_what_does_not_fit_is_said_at_once(pipe):
    clip = world.clip('a red circle moves right', seed=3)
    with model_elsewhere(pipe):
        every = explore(pipe, clip)
        while not every.opening.progress.value:
            time.sleep(.01)
        assert 'waiting for the model' in every.opening.progress.value and not every.made
    assert every.select('Match').job.result(60) is not None
    every.close()
    with pytest.raises(RuntimeError, match='these explorers are closed'):
        every.select('Words')
    for wrong, message in ((dict(video=clip.video[:, :60]), 'fit_video'), (dict(video=clip, budget='x'), 'not a size'),
                           (dict(), 'neither a video nor a prompt'), (dict(video=clip, seed=None), 'must be a whole number')):
        with pytest.raises(ValueError, match=message):
            explore(pipe, **wrong)


def test_explorers_that_are_closed_while_a_video_is_opened_keep_nothing(pipe, monkeypatch):
    kept, within, go = [], threading.Event(), threading.Event()

    def slowly(self):
        kept.append(make(self))
        within.set()
        go.wait(30)
        return self
    make = Trace.make
    monkeypatch.setattr(Trace, 'make', slowly)
    every = explore(pipe, world.clip('a red circle moves right', seed=3))
    within.wait(30)
    closing = threading.Thread(target=every.close)
    closing.start()
    while not every._closed:
        time.sleep(.01)
    go.set()
    closing.join(30)
    assert not every.made and kept[0].closed


def test_a_question_of_another_tab_leaves_a_run_its_bar(traced):
    with Worker() as worker:
        steer = SteerExplorer(traced, worker=worker)
        steer.off.value = '2.0'
        job = steer.start()
        steer.visible = False
        steer.visible = True
        assert steer.request() is None and (steer.viewer.busy or not job.running)
        job.result(120)
        assert steer.viewer.code.startswith('ablated(') and not steer.viewer.busy
