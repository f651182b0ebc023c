"""Explorers without a browser: what is on the screen is what the call beside it says; errors and stale questions."""
import time
from types import SimpleNamespace

import pytest
import torch
from seam import model_elsewhere

from vidlens import world
from vidlens.live.explorer import Explorer, State
from vidlens.live.heads_explorer import CRITERIA, HeadsExplorer
from vidlens.live.match_explorer import MatchExplorer
from vidlens.live.video_explorer import VideoExplorer
from vidlens.live.viewer import pack_maps
from vidlens.live.words_explorer import METHODS, WordsExplorer
from vidlens.live.worker import Worker
from vidlens.points.matching import Matching
from vidlens.points.scoring import Scoring, score
from vidlens.points.tracking import point_map, track
from vidlens.seam.traces import Trace, trace, word_kinds
from vidlens.words.selection import score_heads
from vidlens.words.word_maps import imap


CALLS = dict(track=track, point_map=point_map, imap=imap, Matching=Matching)


@pytest.fixture(scope='module')
def traced(pipe):
    return trace(pipe, world.clip('a red circle moves right', seed=3))


@pytest.fixture
def match(traced):
    with Worker() as worker:
        yield MatchExplorer(traced, worker=worker)


def shown(explorer):
    explorer.job.result(60)
    return explorer.viewer


def test_what_is_shown_is_what_the_call_says(traced, match):
    for changed in (dict(layer=1), dict(step=3), dict(head=2), dict(point=[4, 40., 20.]), dict(head=-1, layer=5)):
        match.state.set_trait('frame', 4)
        for name, value in changed.items():
            setattr(match.state, name, value)
        viewer = shown(match)
        path, said = (eval(line, CALLS | dict(trace=traced)) for line in match.call.splitlines())
        assert torch.equal(path.xy, match.track.xy)
        assert viewer.maps == pack_maps(said[None])[0] and viewer.frame == 4
        path = track(traced, points=[match.options['point']], steps=match.state.step, layers=match.state.layer,
                     heads=match.options['heads'])
        assert torch.allclose(torch.tensor(viewer.tracks)[..., :2], path.xy) and not viewer.busy and viewer.message == ''


def test_the_other_layers_of_a_step_are_run_meanwhile(pipe, traced):
    "So that a layer costs no forward; not where the budget is too small for a step, and not while more is asked."
    for budget, all_of_them in (('2 GiB', True), ('3 MiB', False)):
        few = trace(pipe, traced.clip, budget=budget)
        with Worker() as worker:
            match = MatchExplorer(few, State(step=7, layer=2), worker)
            shown(match)
            assert worker._jobs['ahead'].result(60) == all_of_them
            assert ({n for s, n in few.held if s == 7} == set(range(6))) == all_of_them
            before = match.job
            match.state.step = 8
            assert match.job is not before and shown(match).message == ''


def test_a_click_is_a_question(traced, match):
    shown(match)
    x, y = traced.clip.tracks[-1, 0].tolist()
    match.viewer.picked = [0, x, y, 1]
    viewer = shown(match)
    x, y = match.state.point[1:]
    assert match.state.point == [0, x, y] and torch.allclose(torch.tensor(viewer.truth)[0, :, :2], traced.clip.tracks[-1])
    said = []
    match.viewer.observe(lambda change: said.append(change['new']), 'pending')
    match.symmetric.value = True
    shown(match)
    assert [v for v in said if v][0] == 'computing the symmetric map'
    assert match.score_line.value.startswith('step 18, layer 4: 1.00')
    want = point_map(traced, point=(0, x, y), step=match.state.step, layer=match.state.layer, symmetric=True)
    assert torch.equal(match.field, want)


def test_explorers_of_one_video_move_together(traced):
    with Worker() as worker:
        state = State(step=18, layer=4)
        one, other = MatchExplorer(traced, state, worker), MatchExplorer(traced, state, worker)
        plain = Explorer(traced, state, worker)
        one.state.layer, one.viewer.frame = 2, 7
        assert other.state.layer == 2 and other.viewer.frame == plain.viewer.frame == 7
        one.job.result(60), other.job.result(60)
        assert one.viewer.maps == other.viewer.maps and plain.call == 'trace.video'


def test_an_error_is_a_sentence_and_the_next_answer_clears_it(traced, match):
    shown(match)
    before = match.viewer.maps
    match.state.point = [0, 900., 3.]
    with pytest.raises(ValueError, match='query 0 is'):
        match.job.result(60)
    assert 'but the clip has' in match.viewer.message and not match.viewer.busy and match.viewer.maps == before
    match.state.point = [0, 20., 3.]
    assert shown(match).message == ''


def test_the_budget_is_said_in_the_widget(pipe, traced):
    with Worker() as worker:
        match = MatchExplorer(trace(pipe, world.clip('a red circle moves right', seed=3), budget=1000), worker=worker)
        with pytest.raises(RuntimeError):
            match.job.result(60)
        assert 'alone takes' in match.viewer.message and 'budget=' in match.viewer.message


def test_all_steps_are_scored_and_clicked(traced):
    few = Trace(traced.pipe, traced.clip, traced.plan[::10], lambda i: traced._inputs(10 * i), traced.grid, '2 GiB', None)
    with Worker() as worker:
        match = MatchExplorer(few, worker=worker)
        match.score_all().result(120)
        assert not match.scores.isnan().any() and match.score_task.cancel_button.disabled and not match.score_task.running
        for step in range(3):
            assert torch.equal(match.scores[step], score(few, steps=step).map('accuracy')[0])
        match.go_to(1, 2)
        assert (match.state.step, match.state.layer) == (1, 2) and match.score_map.maximum.value.startswith('highest: step')
        match.best_button.click()
        assert match.scores[match.state.step, match.state.layer] == match.scores.max()


def test_without_true_tracks_steps_are_scored_by_how_sure_they_are(pipe, traced):
    untold = trace(pipe, traced.video, num_inference_steps=3)
    xy = untold.grid.centres().flatten(0, 1)
    with Worker() as worker:
        match = MatchExplorer(untold, worker=worker)
        assert shown(match) and match.score_line.value == ''
        match.score_all().result(120)
        queries = torch.cat([torch.zeros(len(xy), 1), xy], 1)
        want = score(untold, steps=1, scoring=Scoring(queries=queries)).map('confidence_cross')[0]
        assert torch.equal(match.scores[1], want) and 0 < want.min() and want.max() < 1
        match.best_button.click()
        shown(match)
        best = match.scores.max()
        assert match.scores[match.state.step, match.state.layer] == best and f'{best:.2f} confidence' in match.score_line.value
        assert 'confidence' in match.score_map.maximum.value


# Words and heads

def test_words_are_those_of_the_call(traced):
    with Worker() as worker:
        words = WordsExplorer(traced, State(step=12, layer=3), worker)
        shown(words)
        assert words.box.value == 'red, circle' and words.options['source'] == 'prompt'
        for box, ways in (('red, moves right', ['GramCol', 'cross-attention', 'ConceptAttention']), ('square, red', ['IMAP'])):
            words.box.value = box
            words.methods.value = ways
            viewer = shown(words)
            said = eval(words.call, CALLS | dict(trace=traced))
            assert words.state.words == box.split(', ') and words.options['source'] == ('concepts' if 'square' in box else 'prompt')
            n = len(words.state.words)
            assert viewer.shape[0] == n * len(ways) and viewer.maps[:2 * n * traced.grid.n] == pack_maps(said.maps)[0]
            assert set(said.baselines) == {METHODS[v] for v in ways} - {'maps'}
            assert len(words.spans.figure.data) == n and viewer.message == ''
        baseline = imap(traced, words=['red', 'moves right'], steps=12, layers=[3], baselines=['cross']).baselines['cross']
        words.box.value, words.methods.value = 'red, moves right', ['cross-attention']
        assert shown(words).maps == pack_maps(baseline)[0]
        assert [c.description for c in words.chips.children if c.value] == ['red', 'moves right']
        next(c for c in words.chips.children if c.description == 'circle').value = True
        assert words.state.words == ['red', 'moves right', 'circle'] and words.box.value == 'red, moves right, circle'
        shown(words)
        words.box.value = ' , '
        assert words.request() is None and 'enter a word, for example red' in words.viewer.message
        words.box.value = 'zebra'
        with pytest.raises(ValueError):
            words.job.result(60)
        assert "does not know 'zebra'" in words.viewer.message


def test_chosen_heads_are_read(traced):
    with Worker() as worker:
        heads = HeadsExplorer(traced, State(step=12, words=['red']), worker)
        shown(heads)
        best = heads.table.flatten().argmax()
        assert int(best % 4) in heads.chosen[int(best // 4)] and sum(map(len, heads.chosen.values())) == 5
        scores = score(traced, steps=12, scoring=Scoring(sample=64))
        wants = {n: scores.map(n, heads=True)[0] for n in ('accuracy', 'evenness', 'distance')}
        wants['dbi'] = score_heads(traced, by=['dbi'], steps=12).heads('dbi')
        for by, want in wants.items():
            heads.by.value = next(n for n, c in CRITERIA.items() if c == by)
            shown(heads)
            low = by in ('dbi', 'distance')
            best = int((want if low else -want).nan_to_num(torch.inf).argmin())
            assert best % 4 in heads.chosen[best // 4]
            assert torch.equal(heads.table.nan_to_num(-1), want.nan_to_num(-1))
        heads.choose((2, 3)).result(60)
        assert 3 in heads.chosen[2] and len(heads.atlas.figure.layout.shapes) == 6
        heads.state.layer = 2
        shown(heads)
        for h in range(4):                                          # each head of the layer, small
            alone = imap(traced, words='red', steps=12, heads={2: [h]}).maps[0]
            assert torch.allclose(heads.small.shown[f'2.{h}' + (' selected' if h in heads.chosen[2] else '')], alone, atol=1e-5)
        heads.small.picked = [0, 5., 5., 1, 3]                      # a click on the last of them
        shown(heads)
        assert 3 not in heads.chosen.get(2, [])
        assert torch.equal(heads.maps.maps, eval(heads.call, CALLS | dict(trace=traced)).maps)
        for n, hs in list(heads.chosen.items()):
            for h in list(hs):
                heads.choose((n, h)).result(60)
        assert sum(map(len, heads.chosen.values())) == 1       # the last one stays
        heads.choose(None).result(60)
        assert sum(map(len, heads.chosen.values())) == 5


@pytest.mark.parametrize('made', [True, False])
def test_heads_and_layers_are_measured_without_true_tracks(pipe, traced, made, monkeypatch):
    "Of a real video and of a generated one alike, which no tracker is asked about."
    monkeypatch.setattr('vidlens.points.scoring.require_opencv', lambda: pytest.fail('tracked'))
    video, prompt = (None, 'a red circle') if made else (traced.video, '')
    untold = trace(pipe, video, prompt, seed=1, num_inference_steps=4)
    with Worker() as worker:
        heads = HeadsExplorer(untold, State(step=2, layer=3, words=['red']), worker)
        for by in heads.by.options:
            heads.by.value = by
            assert shown(heads).message == '' and not heads.table.isnan().all(), by
        match = MatchExplorer(untold, heads.state, worker)
        match.score_all().result(120)
        assert not match.scores.isnan().any() and match.scores.min() > 0
        if not made:
            xy = untold.grid.centres().flatten(0, 1)
            want = score(untold, steps=2, scoring=Scoring(queries=torch.cat([torch.zeros(len(xy), 1), xy], 1)))
            assert torch.equal(match.scores[2], want.map('confidence_cross')[0])


def test_words_in_other_families():
    from seam import pipe_of
    video = torch.rand(9, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    with Worker() as worker:
        words = WordsExplorer(trace(pipe_of('wan'), video, 'a cat runs', num_inference_steps=4), worker=worker)
        assert 'ConceptAttention' not in [c.description for c in words.methods.chips] and shown(words).panels == ['cat', 'runs']
        heads = HeadsExplorer(words.trace, words.state, worker)
        assert shown(heads).panels[0].startswith('runs, heads') and 'matching accuracy on the known tracks' not in heads.by.options


def test_a_unet_is_explored_by_its_own_layers():
    "Few of its layers match, fewer read words: the rest of the tables is empty, and layers keep their numbers."
    from vidlens.seam.families import tiny
    video = torch.rand(4, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    traced = trace(tiny('animatediff'), video, 'a cat runs', num_inference_steps=4)
    with Worker() as worker:
        able = traced.layers_for(word_kinds(traced.pipe))
        heads = HeadsExplorer(traced, State.of(traced), worker)
        for by in heads.by.options:
            heads.by.value = by
            assert shown(heads).message == '' and set(heads.chosen) <= set(able), by
            rows = {n for n in range(len(traced.stacks)) if not heads.table[n].isnan().all()}
            assert rows and rows <= set(able)
        heads.state.layer = next(n for n in range(len(traced.stacks)) if n not in able)
        assert shown(heads).message == '' and not heads.small.shown and 'cannot map words' in heads.small.pending
        heads.small.picked = [0, 1., 1., 1, 0]
        assert not heads._by_hand
        assert shown(WordsExplorer(traced, State.of(traced), worker)).message == ''


def test_free_words_where_few_layers_read_them():
    from seam import pipe_of
    video = torch.rand(5, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    traced = trace(pipe_of('hunyuanvideo'), video, num_inference_steps=4)
    with Worker() as worker:
        state = State.of(traced)
        assert state.layer in traced.layers_for('concepts')
        for kind in (HeadsExplorer, WordsExplorer):
            each = kind(traced, State(step=2, layer=state.layer, words=['cat']), worker)
            assert shown(each).message == '' and each.viewer.panels


def test_what_the_curve_is_of_is_what_is_shown(traced):
    from vidlens.words.spans import motion_span
    with Worker() as worker:
        words = WordsExplorer(traced, State(step=12, layer=3, words=['red']), worker)
        shown(words)
        words.methods.value = ['cross-attention']
        shown(words)
        want = motion_span(words.viewer.shown['red'], traced.grid).curve
        assert torch.allclose(torch.tensor(words.spans.figure.data[0].y), want.float())
        assert words.spans.figure.layout.yaxis.title.text == 'evidence, cross-attention'
        words.methods.value = ['IMAP', 'cross-attention']
        shown(words)
        plain, selected = (eval(line, CALLS | dict(trace=traced)) for line in words.viewer.code.splitlines())
        assert torch.equal(words.viewer.shown['red: IMAP'], selected.maps[0])
        assert torch.equal(words.viewer.shown['red: cross-attention'], plain.baselines['cross'][0])


def test_a_click_is_asked_as_the_call_says_it(traced, match):
    shown(match)
    match.viewer.picked = [0, 15.97, 63.999, 1, 0]
    viewer = shown(match)
    assert match.state.point == [0, 15.9, 63.9] and '(0, 15.9, 63.9)' in viewer.code
    assert viewer.maps == pack_maps(eval(viewer.code.splitlines()[-1], CALLS | dict(trace=traced))[None])[0]


def test_a_path_is_never_that_of_another_question(traced, match, monkeypatch):
    shown(match)
    assert match.viewer.tracks
    monkeypatch.setattr('vidlens.live.match_explorer.track', lambda *_, **__: (_ for _ in ()).throw(ArithmeticError()))
    match.state.layer = 1
    with pytest.raises(ArithmeticError):
        match.job.result(60)
    assert not match.viewer.tracks and 'layer 1' in match.viewer.panels[0] and match.viewer.message == 'ArithmeticError'


def test_an_older_answer_does_not_take_a_sentence_away(traced):
    with Worker() as worker:
        words = WordsExplorer(traced, State(step=12, layer=3, words=['red']), worker)
        shown(words)
        worker.submit('wait', lambda job: time.sleep(.3))
        words.state.layer = 2
        words.box.value = ''
        worker.submit('end', lambda job: None).result(10)
        assert 'enter a word' in words.viewer.message and not words.viewer.busy


def test_a_tab_that_is_left_lets_go_of_the_thread(traced):
    with Worker() as worker:
        match, words = MatchExplorer(traced, worker=worker), WordsExplorer(traced, State(step=12, layer=3, words=['red']), worker)
        shown(match), shown(words)
        worker.submit('wait', lambda job: time.sleep(.2))
        words.state.layer = 2
        words.visible = False
        assert words.job.cancelled and not words.viewer.busy
        words.visible = True
        assert shown(words).message == '' and not words.job.cancelled


def test_typing_leaves_no_widgets_behind(traced):
    from ipywidgets.widgets.widget import _instances
    with Worker() as worker:
        words = WordsExplorer(traced, State(step=12, layer=3, words=['red']), worker)
        shown(words)
        counts = []
        for typed in ('red, circle', 'a', 'b, c', 'red', 'moves', 'red'):
            words.box.value = typed
            worker.submit('end', lambda job: None).result(60)
            counts.append(len(_instances))
        assert counts[-1] == counts[3] and [c.description for c in words.chips.chips] == words.known
        state = words.state
        words.close()
        for _ in range(2):
            MatchExplorer(traced, state, worker).close()
        assert not any(x for kinds in state._trait_notifiers.values() for x in kinds.get('change', []))


# What they share

def test_a_place_is_that_of_all(traced):
    state = State.of(traced)
    with Worker() as worker:
        match, words, video = (kind(traced, state, worker) for kind in (MatchExplorer, WordsExplorer, VideoExplorer))
        words.viewer.picked = [4, 20.04, 30.9, 1, 0]
        assert state.point == [4, 20., 30.9] == match.viewer.point == video.viewer.point
        assert match.options['point'] == (4, 20., 30.9) and shown(match).message == ''
        video.viewer.picked = [0, 8., 8., 1, 0]
        assert match.options['point'] == (0, 8., 8.)


def test_a_head_that_is_taken_in_is_looked_at(traced):
    state = State(step=12, layer=3, words=['red'])
    with Worker() as worker:
        heads, match = HeadsExplorer(traced, state, worker), MatchExplorer(traced, state, worker)
        shown(heads)
        free = next((n, h) for n in (5, 1) for h in range(4) if h not in heads.chosen.get(n, []))
        heads.choose(free).result(60)
        assert (state.layer, state.head) == free and match.options['heads'] == [free[1]] and heads._drawn == free[0]
        heads.choose((3, 1) if 1 in heads.chosen.get(3, []) else free).result(60)   # out: nothing to look at
        assert (state.layer, state.head) == free


def test_the_atlas_is_not_measured_again_for_heads_or_words(traced, monkeypatch):
    with Worker() as worker:
        heads = HeadsExplorer(traced, State(step=12, layer=3, words=['red']), worker)
        shown(heads)
        measured = []
        monkeypatch.setattr('vidlens.live.heads_explorer.score_heads',
                            lambda t, **how: measured.append(how['steps']) or score_heads(t, **how))
        heads.choose((4, 1)).result(60)
        heads.state.words = ['circle']
        shown(heads)
        assert not measured
        heads.state.step = 13
        shown(heads)
        assert measured == [13]


def test_a_model_without_text(pipe, traced, monkeypatch):
    "Said by the call, and in the widget: by the tab that cannot be opened, or beside the picture."
    untold = trace(pipe, traced.video, num_inference_steps=4)
    with Worker() as worker, monkeypatch.context() as without:
        without.setattr(pipe, 'tokenizer', None)
        for asked in (lambda: trace(pipe, traced.video), lambda: WordsExplorer(untold, worker=worker),
                      lambda: point_map(untold, point=(0, 8, 8), step=0)):
            with pytest.raises(ValueError, match='has no tokenizer, so it reads no words'):
                asked()
        assert State.of(traced).words == []
        match = MatchExplorer(untold, worker=worker)
        with pytest.raises(ValueError):
            match.job.result(60)
        assert 'has no tokenizer' in match.viewer.message and not match.viewer.busy


def test_a_video_wears_what_another_shows(traced):
    state = State.of(traced)
    with Worker() as worker:
        match, words, video = (kind(traced, state, worker) for kind in (MatchExplorer, WordsExplorer, VideoExplorer))
        for each in (match, words):
            shown(each)
        match.viewer.cmap, match.viewer.alpha = 'viridis', .3
        worn = video.viewer
        video.offer(dict(Match=match, Words=words, Video=video))
        assert list(video.over.options) == ['video only', 'Match', 'Words'] and not worn.shown and worn.tool == 'none'
        video.over.value = 'Match'
        assert worn.maps == match.viewer.maps != b'' and worn.tracks == match.viewer.tracks != [] and worn.tool == 'point'
        assert worn.code == match.viewer.code == video.call and (worn.cmap, worn.alpha) == ('viridis', .3)
        match.visible = False                  # its tab is left
        worn.picked = [0, 10., 50., 1, 0]    # a click asks what is worn
        video.request()
        shown(match)
        assert worn.point == [0, 10., 50.] and '(0, 10, 50)' in worn.code and worn.maps == match.viewer.maps
        worn.picked = [0, 10., 90., 2, 0]
        with pytest.raises(ValueError):
            shown(match)
        assert 'query 0' in worn.message and not worn.busy
        video.over.value = 'Words'
        assert not match.visible and worn.panels == words.viewer.panels and worn.tracks == [] and worn.tool == 'none'
        state.layer = 1
        shown(words)
        video.offer(dict(Words=words))
        assert worn.maps == words.viewer.maps and worn.message == ''
        worker.submit('end', lambda job: None).result(60)   # other layers were run meanwhile
        assert worn.pending == words.viewer.pending == ''
        video.over.value = 'video only'
        assert worn.panels == [] and worn.code == 'trace.video' and not worn.busy


def test_sliders_are_always_what_the_state_is(traced):
    with Worker() as worker:
        match = MatchExplorer(traced, State.of(traced), worker)
        state, sliders = match.state, {x.description: x for x in match.children[0].children}
        state.step, state.layer, state.frame = -3, -1, -2
        assert (state.step, state.layer, state.frame) == (len(traced.plan) - 3, 5, len(traced.video) - 2)
        assert sliders['step'].value == state.step and sliders['layer'].value == 5
        for name, value in dict(step=len(traced.plan), layer=6, head=-2, frame=-99).items():
            before = getattr(state, name)
            with pytest.raises(ValueError, match=f'{name}={value} is out of range: there are'):
                setattr(state, name, value)
            assert getattr(state, name) == before
        assert sliders['head'].value == -1
        shown(match)
        assert f"step {len(traced.plan) - 3}, layer 5" in match.viewer.panels[0]
    with pytest.raises(ValueError, match='step=99 is out of range'):
        MatchExplorer(traced, State(step=99))
    state, less = State.of(traced), trace(traced.pipe, traced.video, traced.prompt, num_inference_steps=4)
    with pytest.raises(ValueError, match='there are 4'):
        state.within(less)
    state.step = 25     # its own limits are those that it had


@pytest.mark.parametrize('point', [[3, 3], ['a', 3, 3], [0, 3, float('nan')], [0, 3, None]])
def test_what_is_no_place_is_refused(traced, point):
    state = State.of(traced)
    with pytest.raises(ValueError, match='must be three numbers'):
        state.point = point
    assert state.point == []
    state.point = (1, 3., 4)
    assert state.point == [1, 3., 4]


def test_words_are_spelled_as_in_the_box(traced):
    state = State.of(traced)
    with Worker() as worker:
        words = WordsExplorer(traced, state, worker)
        for asked in (['red,circle'], ['red ', ' ', 'circle'], ['red', 'circle', 'red']):
            state.words = asked
            assert state.words == ['red', 'circle'] == words.chips.value and words.box.value == 'red, circle'
        state.words = [3]
        assert state.words == ['3']
        state.words = ['  ']
        assert state.words == [] and 'enter a word' in words.viewer.message


def test_the_call_of_heads_is_never_that_of_another_measure(traced):
    with Worker() as worker:
        heads = HeadsExplorer(traced, State.of(traced), worker)
        assert 'heads={}' not in heads.call
        heads.by.value = next(n for n in heads.by.options if n.startswith('compactness'))
        said = heads.call
        assert str(heads.chosen) in said and heads.job.value[1] == heads.chosen


def test_a_clip_without_tracks_is_matched(pipe):
    clip = world.clip('a red circle moves right', seed=3)
    traced = trace(pipe, SimpleNamespace(video=clip.video, caption=clip.caption, tracks=clip.tracks[:0], visible=clip.visible[:0]))
    with Worker() as worker:
        match = MatchExplorer(traced, worker=worker)
        assert shown(match).tracks and not match.viewer.truth and match.viewer.message == '' and match.unit == 'confidence'


def test_why_there_is_no_answer_yet_is_said(pipe, traced):
    with Worker() as worker:
        match = MatchExplorer(traced, State.of(traced), worker)
        shown(match)
        with model_elsewhere(pipe):
            match.state.step = 2
            while not match.viewer.pending:
                time.sleep(.01)
            assert 'waiting for the model' in match.viewer.pending and match.viewer.busy
        shown(match)
        assert 'waiting' not in match.viewer.pending and 'step 2' in match.viewer.panels[0]
