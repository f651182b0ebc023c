"""What explorers are put together from: a task's end of each kind, chips, charts that change in place."""
import json
import time

import pytest
import torch

from vidlens.live.widgets import Chart, Chips, Task


@pytest.fixture
def heard():
    return []


@pytest.fixture
def task_of(heard):
    made = []

    def make(work, begin=None, **how):
        made.append(Task('Do', 'it', begin or (lambda: work), lambda v: heard.append(('done', v)),
                         lambda s: heard.append(('said', s)), **how))
        return made[-1]
    yield make
    for each in made:
        each.close()


def test_what_fails_after_the_work_is_said(heard):
    def fails(value):
        raise RuntimeError('cannot be shown')
    task = Task('Do', 'it', lambda: lambda job: 1, fails, lambda s: heard.append(('said', s)))
    with pytest.raises(RuntimeError, match='cannot be shown'):
        task.start().result(60)
    assert heard[-1] == ('said', 'cannot be shown') and not task.running
    task.close()


def test_an_error_is_a_sentence_and_the_button_is_ready_again(task_of, heard):
    def fails(job):
        raise RuntimeError('no room')
    task = task_of(fails)
    with pytest.raises(RuntimeError):
        task.start().result(5)
    assert heard == [('said', 'no room')] and not task.running and not task.start_button.disabled
    task._prepare = lambda: lambda job: 'again'
    task.start().result(5)                   # takes its own sentence away, and nobody else's
    task.start().result(5)
    assert heard[1:] == [('said', ''), ('done', 'again'), ('done', 'again')]


def test_what_cannot_be_asked_never_begins(task_of, heard):
    def begin():
        raise ValueError('draw first')
    task = task_of(None, begin)
    assert task.start() is None and heard == [('said', 'draw first')] and task.worker is None


def test_a_cancelled_task_says_nothing_and_runs_again(task_of, heard):
    def slow(job):
        for i in range(200):
            job.step(i, 200)
            time.sleep(.01)
        return 'late'
    task = task_of(slow)
    job = task.start()
    while not task.progress.value:
        time.sleep(.01)
    task.cancel_button.click()
    assert job.cancelled and not task.running and task.cancel_button.disabled
    task._prepare = lambda: lambda job: 'again'
    task.start().result(5)
    assert heard == [('done', 'again')]


def test_a_second_press_takes_the_place_of_the_first(task_of, heard):
    task = task_of(lambda job: time.sleep(.05) or job.check() or 1)
    first, second = task.start(), task.start()
    second.result(5)
    assert first.cancelled and heard.count(('done', 1)) == 1


def test_chips_keep_one_and_the_order_of_pressing():
    chips = Chips(['a', 'b', 'c'], ['b'])
    told = []
    chips.observe(lambda change: told.append(change['new']), 'value')
    chips.children[0].value = True
    chips.children[1].value = False
    chips.children[0].value = False
    assert told == [['b', 'a'], ['a']] and chips.children[0].value
    chips.value = ['d <b>', 'c']
    assert [(c.description, c.value) for c in chips.children] == [('a', False), ('b', False), ('c', True), ('d <b>', True)]
    assert all(c.tooltip for c in chips.children)


def test_charts_change_in_place():
    chart = Chart()
    chart.fit(300)
    chart.lines([dict(x=[0, 1], y=[1, 2], name='one')], 'x', 'y')
    figure = chart.figure
    chart.lines([dict(x=[0, 1], y=[3, 4], name='two')], 'x', 'y')
    assert chart.figure is figure and figure.data[0].y == (3, 4) and figure.data[0].name == 'two' and figure.layout.width == 300
    chart.lines([dict(x=[0], y=[3]), dict(x=[0], y=[3])], 'x', 'y')
    assert len(chart.figure.data) == 2 and chart.children[0] is chart.figure
    for width, want in ((20, 200), (400, 400), (2000, 640)):
        chart.fit(width)
        assert chart.figure.layout.width == want


def test_a_map_of_values_says_its_highest():
    chart = Chart()
    chart.heat(torch.full((2, 3), torch.nan), ('step', 'layer'), '<accuracy>')
    assert chart.maximum.value == 'nothing measured yet'
    x = torch.tensor([[.1, .2, torch.nan], [.3, .9, .4]])
    figure = chart.figure
    json.dumps(figure.get_state()['_widget_data'], allow_nan=False)
    chart.heat(x, ('step', 'layer'), '<accuracy>', framed=[(1, 2)])
    assert chart.maximum.value == 'highest: step 1, layer 1: 0.9 &lt;accuracy&gt;' and chart.figure is figure
    shape = figure.layout.shapes[0]
    assert (shape.x0, shape.x1, shape.y0, shape.y1) == (1.5, 2.5, .5, 1.5) and figure.data[0].z[1][1] == x[1, 1]
    json.dumps(figure.get_state()['_widget_data'], allow_nan=False)
    chart.heat(x, ('layer', 'head'), 'another')        # colours, axes and what the pointer says are of it
    assert chart.figure is not figure and chart.figure.data[0].colorbar.title.text == 'another'


def test_a_chart_that_is_disturbed_is_drawn_once_more(monkeypatch):
    "What a browser says of a figure is taken in by another thread, while the figure is being read."
    chart, left = Chart(), ['dictionary changed size during iteration']
    put = Chart._put

    def disturbed(self, figure):
        if left:
            raise RuntimeError(left.pop())
        put(self, figure)
    monkeypatch.setattr(Chart, '_put', disturbed)
    chart.lines([dict(x=[0], y=[3])], 'x', 'y')
    assert chart.figure.data[0].y == (3,) and not left
    left.append('no room')
    with pytest.raises(RuntimeError, match='no room'):
        chart.lines([], 'x', 'y')
