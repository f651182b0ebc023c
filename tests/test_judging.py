"""The judge hook: what a judge sees, how its marks are read, and that time is not taken out of the pictures."""
import numpy as np
import pytest
import torch

from vidlens.core.grid import Grid
from vidlens.words.judging import RUBRIC, JudgeItem, JudgeScores, Sheet, judge_maps, judge_question, judge_sheets
from vidlens.core.stats import bootstrap

GRID = Grid(4, 2, 3, 8, 4)                                   # 13 frames of 16x24
VIDEO = torch.linspace(0, 1, 13)[:, None, None, None].expand(13, 16, 24, 3)
MAPS = torch.zeros(4, 2, 3)
MAPS[:, 0, 1] = torch.tensor([1., .5, .25, 0])              # one token, that fades
ITEM = JudgeItem(VIDEO, MAPS, 'fading', 'a grey room', GRID)
FULL = dict(SL=1, TL=2, PR=3, SS=4, OBJ=5)


def cells(sheet):
    "The frames of a sheet, (12, 16, 24) brightness in 0 to 255."
    x = torch.from_numpy(np.array(sheet)).float().mean(-1)
    assert x.shape == (4 * 18 - 2, 3 * 26 - 2)
    return x.unfold(0, 16, 18).unfold(1, 24, 26).flatten(0, 1)


def sheets(**how):
    return judge_sheets(ITEM, Sheet(height=16, **how))


def test_sheets_show_the_same_frames():
    found = sheets()
    assert set(found) == {'raw', 'overlay', 'heat'}
    at = torch.linspace(0, 12, 12).round()
    assert (cells(found['raw']).mean((1, 2)) - at / 12 * 255).abs().max() < 1
    hot = cells(found['heat'])
    where = hot.amax((1, 2)) > hot.min()
    assert where[:8].all() and not where[8:].any(), 'frames 9 to 12 are of token frame 3, which is cold'
    assert hot[0].argmax() // 24 < 8 and 8 <= hot[0].argmax() % 24 < 16
    bigger = judge_sheets(ITEM, Sheet(6, 2, 32))['raw']
    assert bigger.size == (2 * 50 - 2, 3 * 34 - 2)


def test_one_colour_scale_for_the_clip():
    "A map that fades fades in the pictures; stretched frame by frame, as released, it does not."
    clip, frame = (cells(sheets(scale=s)['heat']).amax((1, 2)) for s in ('video', 'frame'))
    assert clip[0] > clip[2] + 10 > clip[6] + 20, 'frames 0, 2 and 7 are of token frames 0, 1 and 2'
    assert (frame[:8] - frame[0]).abs().max() < 2


def test_question_holds_the_request():
    text = judge_question(ITEM)
    assert '"fading"' in text and '"a grey room"' in text and '12 frames' in text and 'mean the same in all frames' in text
    assert all(key in text and name in text and question in text for key, (name, question) in RUBRIC.items())
    assert 'mean the same' not in judge_question(ITEM._replace(caption=''), Sheet.published())
    assert 'described' not in judge_question(ITEM._replace(caption=''))


@pytest.mark.parametrize('answer', [
    FULL, FULL | dict(why='because'), {k: float(v) for k, v in FULL.items()}, {k: str(v) for k, v in FULL.items()},
    '\n'.join(f'{k}: {v}' for k, v in FULL.items()), str(FULL), ''.join(f'<{k}>{v}</{k}>' for k, v in FULL.items()),
    '\n'.join(f'{k}-{v}' for k, v in FULL.items()), ', '.join(f'{k} ({RUBRIC[k][0]})-{v}' for k, v in FULL.items()),
    ' '.join(f'{k} - {v};' for k, v in FULL.items()),
    'I looked.\n' + ', '.join(f'**{k}** ({RUBRIC[k][0]}) = {v}/5' for k, v in FULL.items()) + '\nAgain, SL: 1'])
def test_answers(answer):
    found = judge_maps(lambda pictures, question: answer, [ITEM])
    assert found.scores.tolist() == [[0, .25, .5, .75, 1]] and found.mean.mean == .5 and found.answers == [answer]


@pytest.mark.parametrize('answer, says', [
    (FULL | dict(TL=6), r"item 1 \('fading'\): TL \(temporal localisation\) is 6, but"), (FULL | dict(SL=0), 'SL .* is 0'),
    (FULL | dict(SL=2.5), 'is 2.5'), (FULL | dict(SL=True), 'is True'), (FULL | dict(SL=None), 'is None'),
    ({'SL': 1}, r"TL .* is missing in .*'SL': 1"), ('no marks', "SL .* is missing in 'no marks'"),
    ('SL: -1 TL: 2 PR: 3 SS: 4 OBJ: 5', 'SL .* is -1'), ('SL:-1 TL: 2 PR: 3 SS: 4 OBJ: 5', 'SL .* is -1'),
    ('<SL>-1</SL>', 'SL .* is -1'), ('SL=-3', 'SL .* is -3'), ('SL -3', 'SL .* is -3'),
    ('SL: 1 TL: 2 PR: 3 SS: 4 OBJ: 5 SL: 2', 'SL .* is 1 and 2'),
    ('SL is poor, TL: 2 PR: 3 SS: 4 OBJ: 5', 'SL .* is missing'), ('SL: 10 TL: 2 PR: 3 SS: 4 OBJ: 5', 'SL .* is 10')])
def test_answers_that_are_refused(answer, says):
    answers = iter([FULL, answer])
    with pytest.raises(ValueError, match=says):
        judge_maps(lambda pictures, question: next(answers), [ITEM, ITEM])


class Stopped(BaseException):
    "Not an error: what an interrupt is."


@pytest.mark.parametrize('bad, error', [('no marks', ValueError), (3, TypeError), (OSError('no network'), OSError),
                                        (Stopped(), Stopped)])
def test_answers_before_a_failure_are_kept(bad, error):
    "They may have cost something: the error carries them, and another call goes on behind them."
    asked = []

    def judge(replies):
        def answer(pictures, question):
            asked.append(question.split('"')[-4])
            if isinstance(reply := next(replies), BaseException):
                raise reply
            return reply
        return answer

    items = [ITEM._replace(word=w) for w in 'abcd']
    with pytest.raises(error) as failed:
        judge_maps(judge(iter([FULL, str(FULL), bad])), items)
    assert failed.value.answers == [FULL, str(FULL)] and (error is not ValueError or "item 2 ('c')" in str(failed.value))
    found = judge_maps(judge(iter([FULL] * 2)), items, answers=failed.value.answers)
    assert asked == list('abccd') and found.answers == [FULL, str(FULL), FULL, FULL]
    assert torch.equal(found.scores, judge_maps(lambda p, q: FULL, items).scores)
    with pytest.raises(ValueError, match=r"item 1 .*answers=error.answers") as failed:
        judge_maps(judge(iter([])), items[:2], answers=[FULL, 'no marks'])
    assert failed.value.answers == [FULL]


def test_means_and_intervals():
    marks = torch.randint(1, 6, (6, 5), generator=torch.Generator().manual_seed(0))
    answers = iter([dict(zip(RUBRIC, row)) for row in marks.tolist()] * 2)
    found = judge_maps(lambda pictures, question: next(answers), [ITEM] * 6)
    unit = (marks.float() - 1) / 4
    assert torch.equal(found.scores, unit) and found.mean == bootstrap(unit.mean(1))
    assert found.parts == {key: bootstrap(x) for key, x in zip(RUBRIC, unit.T)}
    grouped = judge_maps(lambda pictures, question: next(answers), [ITEM] * 6, groups='aabbcc')
    assert grouped.mean == bootstrap(unit.mean(1), list('aabbcc')) and grouped.mean.mean == found.mean.mean


@pytest.mark.parametrize('ask, error, says', [
    (lambda: judge_maps(lambda p, q: FULL, []), ValueError, '0 items'),
    (lambda: judge_maps(lambda p, q: FULL, [ITEM], groups=[1, 2]), ValueError, '1 items with 2 groups'),
    (lambda: judge_maps(lambda p, q: FULL, [ITEM], answers=[FULL] * 2), ValueError, '2 answers for 1 items'),
    (lambda: judge_maps(lambda p, q: 3, [ITEM]), TypeError, "answer is int"),
    (lambda: judge_sheets(ITEM, Sheet(frames=14)), ValueError, 'the video has 13'),
    (lambda: Sheet(scale='all'), ValueError, "scale='all' is unknown"),
    (lambda: Sheet(frames=0), ValueError, 'frames=0 must be a whole number of at least 1'),
    (lambda: Sheet(columns=1.5), ValueError, 'columns=1.5 must be'),
    (lambda: judge_sheets(ITEM._replace(maps=MAPS[:3])), ValueError, 'do not fit the grid')])
def test_bad_input(ask, error, says):
    with pytest.raises(error, match=says):
        ask()


def test_scores_are_a_result(tmp_path):
    found = judge_maps(lambda pictures, question: FULL, [ITEM, ITEM._replace(word='b')])
    again = JudgeScores.load(found.save(tmp_path / 'scores.safetensors'))
    assert torch.equal(again.scores, found.scores) and again.answers == [FULL, FULL] and again.parts == found.parts
    table = found.to_dataframe()
    assert len(table) == 10 and set(table['point']) == set(RUBRIC) and again.words == ['fading', 'b']
