"""Scores by planted truth: known weights, heads that look at known places, tables whose winner must stand."""
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from planted import rng
from seam import FAMILIES, LENGTH, call, pipe_of
from test_matching import sliding
from torch.utils._python_dispatch import TorchDispatchMode

from vidlens.core.grid import Grid
from vidlens.seam.capturing import capture
from vidlens.points.matching import Matching, match, points_on_grid
from vidlens.core.stats import bootstrap
from vidlens.points.score_tables import harmonic_mean
from vidlens.points.metrics import pck
from vidlens.points.attention import AttentionReading, attention_scores, head_statistics
from vidlens.points.score_tables import ProbeOptions, ScoreProbe, ScoreTable, join_scores, rank_select, score_rows

GRID = Grid(3, 4, 5, stride=16)
PARTS = ('cross', 'self', 'text')


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=rng(seed))


def random_qk(grid=GRID, text=4, heads=3, d=8, first=True, seed=0):
    "q of the video, k of the whole sequence."
    q, k, words = (rand(heads, n, d, seed=seed + i) * 2 for i, n in enumerate((grid.n, grid.n, text)))
    return q, torch.cat([words, k] if first else [k, words], 1)


def dense(q, k):
    "What the scores are made of, without any blocks: (heads, video tokens, keys)."
    return (q.double() @ k.double().mT * q.shape[-1] ** -.5).softmax(-1)


def video_of(w, grid=GRID, text=4):
    return w[..., text:].unflatten(-1, (grid.frames, grid.per_frame))


# attention and confidence

def test_known_weights_are_read():
    "With q = 1 and k = log(weight), every query gives the planted weights."
    grid, text = Grid(3, 2, 3), 2
    weight = torch.rand(2, text + grid.n, generator=rng()).double()
    weight = weight / weight.sum(-1, keepdim=True)
    q, k = torch.ones(2, grid.n, 1).double(), weight.log()[..., None]
    tokens, video = [0, 7, 17], weight[:, text:].unflatten(1, (3, 6))
    found = attention_scores(q, k, grid, tokens, per_head=True, reading=AttentionReading(scale=1.))
    for i, token in enumerate(tokens):
        own, rest = token // 6, [f for f in range(3) if f != token // 6]
        exact = dict(cross=video[:, rest].sum((1, 2)), self=video[:, own].sum(-1), text=weight[:, :text].sum(-1))
        peaks = dict(cross=video[:, rest].amax(-1).mean(-1), self=video[:, own].amax(-1),
                     text=weight[:, :text].amax(-1))
        for part in PARTS:
            torch.testing.assert_close(found.attention[part][:, i], exact[part])
            torch.testing.assert_close(found.confidence[part][:, i], peaks[part])


@pytest.mark.parametrize('first', [True, False])
@pytest.mark.parametrize('block', [1, 150, 400, 2 ** 22])
def test_against_a_dense_softmax(first, block, monkeypatch):
    monkeypatch.setattr('vidlens.points.attention.BLOCK', block)
    q, k = random_qk(first=first)
    w = dense(q, k if first else torch.cat([k[:, GRID.n:], k[:, :GRID.n]], 1))
    for rows, per_head in ((w, True), (w.mean(0), False)):
        found = attention_scores(q, k, GRID, torch.arange(GRID.n), text='first' if first else 'last',
                                 per_head=per_head)
        torch.testing.assert_close(found.total, video_of(rows).sum(-1).float())
        torch.testing.assert_close(found.peak, video_of(rows).amax(-1).float())
        torch.testing.assert_close(found.text, rows[..., :4].sum(-1).float())
        torch.testing.assert_close(found.text_peak, rows[..., :4].amax(-1).float())
        torch.testing.assert_close(sum(found.attention.values()), torch.ones(found.text.shape))


def test_even_attention_has_known_sums():
    found = attention_scores(torch.zeros(2, 60, 8), rand(2, 64, 8), GRID, points_on_grid(4, 64, 80)).means()
    assert {n: round(v * 64, 4) for n, v in found.items()} == {
        'attention_cross': 40, 'attention_self': 20, 'attention_text': 4,
        'confidence_cross': 1, 'confidence_self': 1, 'confidence_text': 1}


def test_the_token_that_holds_the_point_is_asked():
    "On a grid that is not square, in any frame, to the corners."
    grid = Grid(3, 4, 7)
    q = torch.eye(grid.n)[None] * 60
    points = torch.tensor([[0, 0., 0.], [0, 111.9, 63.9], [0, 112., 64.], [1, 40., 10.], [4, 40., 10.], [5, 100., 50.]])
    want = [grid.index(*p) for p in [(0, 0, 0), (0, 3, 6), (0, 3, 6), (1, 0, 2), (1, 0, 2), (2, 3, 6)]]
    found = attention_scores(q, q, grid, points)
    assert found.frame.tolist() == [0, 0, 0, 1, 1, 2] and found.attention['self'].min() > .95
    by_token = attention_scores(q, q, grid, want)
    assert torch.equal(found.total, by_token.total)


def test_lookups():
    q, k = random_qk()
    p = torch.tensor([[0, 55., 20.]])   # column 3.4, row 1.25
    at = {'nearest': (1, 3), 'rounded': (1, 3), 'published': (3, 1)}
    for how, (row, col) in at.items():
        one = attention_scores(q, k, GRID, p, reading=AttentionReading(lookup=how))
        assert torch.equal(one.total, attention_scores(q, k, GRID, [row * 5 + col]).total), how
    # halves go to the even side, and outside is clipped
    p = torch.tensor([[0, 40., 24.], [0, 80., 64.], [0, 90., -9.]])
    one = attention_scores(q, k, GRID, p, reading=AttentionReading(lookup='rounded'))
    assert torch.equal(one.total, attention_scores(q, k, GRID, [2 * 5 + 2, 3 * 5 + 4, 4]).total)


def test_queries_of_the_whole_sequence_are_cut():
    q, k = random_qk(first=False)
    p = points_on_grid(3, 64, 80)
    whole = torch.cat([q, rand(3, 4, 8, seed=9)], 1)
    assert torch.equal(attention_scores(whole, k, GRID, p, text='last').total,
                       attention_scores(q, k, GRID, p, text='last').total)


def test_no_text():
    q, _ = random_qk()
    found = attention_scores(q, q, GRID, points_on_grid(3, 64, 80))
    assert not found.text.any() and not found.text_peak.any()
    assert not head_statistics(q, q, GRID).text.any()


@pytest.mark.parametrize('first', [True, False])
def test_padding_has_no_effect(first):
    q, k = random_qk(first=first)
    valid, text = torch.tensor([True, False, True, False]), 'first' if first else 'last'
    slots = torch.arange(4) + (0 if first else GRID.n)
    loud = k.clone()
    loud[:, slots[~valid]] = 100 * q[:, :2]
    dropped = k[:, [i for i in range(k.shape[1]) if i not in slots[~valid]]]
    p, how = points_on_grid(3, 64, 80), dict(text=text, valid=valid)
    a, b = (attention_scores(q, x, GRID, p, **how) for x in (k, loud))
    c = attention_scores(q, dropped, GRID, p, text=text)
    assert torch.equal(a.total, b.total) and torch.equal(a.text, b.text) and not a.pad.any()
    torch.testing.assert_close(a.total, c.total)
    torch.testing.assert_close(a.text_peak, c.text_peak)
    loud_heads, dropped_heads = head_statistics(q, loud, GRID, **how), head_statistics(q, dropped, GRID, text=text)
    for x, y in zip(vars(loud_heads).values(), vars(dropped_heads).values(), strict=True):
        if x.is_floating_point():   # the place of the sink is among the keys as given
            torch.testing.assert_close(x, y)


def test_padding_apart_and_counted():
    q, k = random_qk()
    valid = torch.tensor([True, False, True, False])
    w = dense(q, k).mean(0).float()
    apart, counted = (attention_scores(q, k, GRID, torch.arange(60), valid=valid, reading=AttentionReading(padding=p))
                      for p in ('apart', 'counted'))
    torch.testing.assert_close(apart.pad, w[:, [1, 3]].sum(-1))
    torch.testing.assert_close(apart.text, w[:, [0, 2]].sum(-1))
    torch.testing.assert_close(counted.text, w[:, :4].sum(-1))
    assert torch.equal(apart.total, counted.total) and not counted.pad.any()


def test_visibility():
    "A frame counts for the confidence if the point is visible in all that it covers; a hidden point is not asked."
    q, k = random_qk()
    p = torch.tensor([[0, 8., 8.], [0, 24., 8.], [0, 40., 8.], [4, 40., 8.]])
    visible = torch.ones(4, 9, dtype=torch.bool)
    visible[0, 3] = False           # in token frame 1
    visible[1, 0] = False           # where it is asked
    visible[2, [1, 8]] = False      # in both others
    found = attention_scores(q, k, GRID, p, visible=visible)
    assert found.seen.tolist() == [[True, False, True], [False, True, True], [True, False, False], [True, True, True]]
    assert found.known.tolist() == [True, False, True, True]
    cross = found.confidence['cross']
    assert torch.equal(cross[0], found.peak[0, 2]) and cross[1:3].isnan().all()
    torch.testing.assert_close(cross[3], (found.peak[3, 0] + found.peak[3, 2]) / 2)
    assert found.attention['cross'].isnan().tolist() == [False, True, False, False]
    theirs = attention_scores(q, k, GRID, p, visible=visible, reading=AttentionReading(hidden='published')).confidence
    assert theirs['cross'][2] == 0 and not theirs['text'].isnan().any()


def test_means():
    q, k = random_qk()
    p = points_on_grid(3, 64, 80)
    one, each = (attention_scores(q, k, GRID, p, per_head=h) for h in (False, True))
    assert isinstance(one.means()['attention_self'], float) and each.means()['attention_self'].shape == (3,)
    assert one.means(2)['attention_cross'] == round(one.means()['attention_cross'], 2)
    assert each.means(2)['attention_cross'].tolist() == [round(v, 2) for v in each.means(6)['attention_cross'].tolist()]
    torch.testing.assert_close(each.total[1], attention_scores(q, k, GRID, p, heads=1).total)
    assert '9 points, 3 frames' in repr(one)


# statistics of heads

@pytest.mark.parametrize('block', [1, 500, 2 ** 22])
def test_statistics_against_a_dense_softmax(block, monkeypatch):
    monkeypatch.setattr('vidlens.points.attention.BLOCK', block)
    q, k = random_qk()
    w, found = dense(q, k), head_statistics(q, k, GRID)
    f, row, col = GRID.place(torch.arange(60))
    far = ((row[:, None] - row) ** 2 + (col[:, None] - col) ** 2).double().sqrt()
    same, lag, video = f[:, None] == f, (f[:, None] - f).abs(), w[..., 4:]
    entropy = -(w * w.log()).sum(-1).mean(-1)
    keys = w.mean(1)
    exact = dict(entropy=entropy, evenness=entropy / np.log(64),
                 distance=(video * far * same).sum((1, 2)) / (video * same).sum((1, 2)),
                 lag=(video * lag).sum((1, 2)) / video.sum((1, 2)), sink=keys.max(-1).values, first=keys[:, 4],
                 text=keys[:, :4].sum(-1))
    for name, value in exact.items():
        torch.testing.assert_close(getattr(found, name), value.float(), msg=lambda m, n=name: f'{n}: {m}')
    assert torch.equal(found.sink_at, keys.argmax(-1))


def test_a_head_that_looks_at_itself_has_no_distance():
    q = torch.eye(60)[None] * 90
    found = head_statistics(q, q, GRID)
    assert found.distance == 0 and found.lag == 0 and found.entropy < 1e-5 and abs(found.sink - 1 / 60) < 1e-6


def test_a_head_that_looks_a_column_aside_and_a_frame_on():
    "Planted: half of the weight one column to the right, half in the next frame."
    grid = Grid(2, 1, 5)
    q, k = torch.eye(10)[None] * 60, torch.zeros(1, 10, 10)
    for i in range(4):              # the last column has nothing to its right
        k[0, i + 1, i], k[0, i + 5, i] = 60, 60
    found = head_statistics(q, k, grid, tokens=[0, 1, 2, 3])
    torch.testing.assert_close(found.distance, torch.ones(1))
    torch.testing.assert_close(found.lag, torch.tensor([.5]))
    torch.testing.assert_close(found.entropy, torch.tensor([2.]).log())


def test_even_attention_statistics():
    found = head_statistics(torch.zeros(2, 60, 8), rand(2, 64, 8), GRID, valid=[True, True, False, False])
    torch.testing.assert_close(found.evenness, torch.ones(2))
    torch.testing.assert_close(found.text, torch.full((2,), 2 / 62))
    torch.testing.assert_close(found.sink, torch.full((2,), 1 / 62))


def test_a_sink_in_the_text():
    q, k = random_qk()
    k[:, 2] = 20 * q.mean(1)
    found = head_statistics(q + 3 * q.mean(1, keepdim=True), k, GRID)
    assert (found.sink_at == 2).all() and (found.text > .9 * found.sink).all()


def test_a_sample():
    q, k = random_qk()
    a, b, c = (head_statistics(q, k, GRID, tokens=20, seed=s) for s in (0, 0, 1))
    assert torch.equal(a.entropy, b.entropy) and not torch.equal(a.entropy, c.entropy)
    every = head_statistics(q, k, GRID, tokens=1000)
    assert torch.equal(every.entropy, head_statistics(q, k, GRID).entropy)


class Largest(TorchDispatchMode):
    "The most entries that any tensor made inside had."
    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(x, torch.Tensor):
                self.entries = max(self.entries, x.numel())
        return out


def test_scratch_memory_is_bounded(monkeypatch):
    monkeypatch.setattr('vidlens.points.attention.BLOCK', 20_000)
    grid = Grid(4, 10, 12)
    q = rand(4, grid.n, 8)
    with Largest() as seen:
        head_statistics(q, q, grid)
        attention_scores(q, q, grid, torch.arange(grid.n))
    assert seen.entries <= 20_000 < grid.n ** 2


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_single(dtype):
    q, k = (x.to(dtype) for x in random_qk())
    found, exact = (attention_scores(*x, GRID, [0, 9]) for x in ((q, k), (q.float(), k.float())))
    assert found.total.dtype == torch.float32 and torch.equal(found.total, exact.total)


# choosing

def tables(n, scores=3, seed=0):
    return list(torch.rand(scores, n, generator=rng(seed)))


def test_no_entry_that_is_added_changes_the_winner():
    "Unless it wins itself; the order of the others stays too. Neither harmonic mean nor a mean of ranks can say that."
    broken = dict(harmonic=0, ranks=0)
    for seed in range(300):
        t = tables(6, seed=seed)
        more = [torch.cat([x, y]) for x, y in zip(t, tables(3, seed=1000 + seed))]
        a, b = rank_select(t), rank_select(more)
        assert b.best == a.best or b.best[0] >= 6
        assert torch.equal(a.rank.argsort(), b.rank[:6].argsort())
        for name, pick in dict(harmonic=lambda x: harmonic_mean(*x).argmax(), ranks=lambda x: torch.stack(
                [y.argsort(descending=True).argsort() for y in x]).sum(0).argmin()).items():
            broken[name] += pick(more) < 6 and pick(more) != pick(t)
    assert min(broken.values()) > 0


def test_an_entry_that_is_best_in_everything_wins():
    t = [x.view(2, 4).clone() for x in tables(8)]
    for x in t:
        x[1, 2] = 1.
    found = rank_select(t)
    assert found.best == (1, 2) and found.rank[1, 2] == 0 and sorted(found.rank.flatten().tolist()) == list(range(8))


def test_no_unit_matters():
    a, b = tables(7), [x * s for x, s in zip(tables(7), (1e-3, 100, .5))]
    assert torch.equal(rank_select(a).rank, rank_select(b).rank)


def test_ties_zeros_and_missing_values():
    nan = torch.nan
    found = rank_select([torch.tensor([.5, .5, 0., nan, .4]), torch.tensor([.2, .2, .9, .9, nan])])
    assert found.best == (0,) and found.rank.tolist() == [0, 0, 2, 5, 5]
    assert found.score[2] == 0 and found.score[3:].isnan().all()


# the table

def table(clips=3, points=5, heads=2, seed=0, steps=(3, 9), layers=(0, 2, 4)):
    "Random accuracies with weights, one score more, and one of heads alone."
    g, n, shape = rng(seed), clips * points, (len(steps), len(layers))
    x = {name: torch.rand(n, *shape, generator=g) for name in ('accuracy', 'attention_cross')}
    w = dict(accuracy=torch.randint(0, 4, (n,), generator=g), attention_cross=torch.ones(n).long())
    x['accuracy'][w['accuracy'] == 0] = torch.nan
    each = {name: torch.rand(clips, *shape, heads, generator=g) for name in (*x, 'entropy')}
    return ScoreTable(list(steps), [.8, .1], list(layers), x, w, torch.arange(clips).repeat_interleave(points), each,
                      dict(threshold=8., num_inference_steps=30))


def test_values_are_weighted_means_of_points():
    t = table()
    x, w = t.points['accuracy'][:5], t.weights['accuracy'][:5].float()
    torch.testing.assert_close(t.values('accuracy')[0], (x.nan_to_num() * w[:, None, None]).sum(0) / w.sum())
    torch.testing.assert_close(t.map('accuracy'), t.values('accuracy').mean(0))
    torch.testing.assert_close(t.values('entropy'), t.heads['entropy'].mean(-1))
    assert t.values('accuracy', heads=True).shape == (3, 2, 3, 2) and t.names[-1] == 'entropy' and t.clips == 3
    assert '2 steps x 3 layers, 3 clips, 15 points' in repr(t)


def test_a_clip_where_nothing_counts_is_left_out():
    t = table()
    t.weights['accuracy'][:5] = 0
    assert t.values('accuracy')[0].isnan().all() and not t.map('accuracy').isnan().any()
    assert t.interval('accuracy', 3, 0).mean == pytest.approx(float(t.values('accuracy')[1:, 0, 0].mean()))


def test_intervals():
    t = table(clips=6, points=30)
    clips, points, both = (t.interval('accuracy', 9, 2, over=o) for o in ('clips', 'points', 'both'))
    assert clips == bootstrap(t.values('accuracy')[:, 1, 1])
    assert abs(points.mean - clips.mean) < 1e-6 and abs(both.mean - clips.mean) < 1e-6
    assert points.lo < points.mean < points.hi and both.hi - both.lo > points.hi - points.lo
    assert t.interval('accuracy', 9, 2, over='both') == both != t.interval('accuracy', 9, 2, over='both', seed=1)
    head = t.interval('entropy', 9, 2, head=1)
    assert head == bootstrap(t.heads['entropy'][:, 1, 1, 1])


def test_the_interval_over_points_has_the_known_width():
    "Of one clip with n points of equal weight: about 1.96 standard errors to each side."
    t = table(clips=1, points=400)
    t.weights['accuracy'][:] = 1
    t.points['accuracy'] = torch.rand(400, 2, 3, generator=rng())
    x = t.interval('accuracy', 3, 0, over='points')
    assert (x.hi - x.lo) / 2 == pytest.approx(1.96 * 12 ** -.5 / 20, rel=.1)
    assert np.isnan(t.interval('accuracy', 3, 0).lo)   # one clip says nothing about other clips
    few = table(clips=2, points=1)
    few.weights['accuracy'][:] = 1
    few.points['accuracy'] = torch.rand(2, 2, 3, generator=rng())
    assert np.isnan(few.interval('accuracy', 3, 0, over='points').lo)
    few.weights['accuracy'][:] = 0
    assert np.isnan(few.interval('accuracy', 3, 0, over='points').mean)


def test_best():
    t = table()
    t.points['accuracy'][:, 1, 2] = t.points['attention_cross'][:, 1, 2] = 1.
    t.heads['accuracy'][:, 0, 1, 1] = t.heads['attention_cross'][:, 0, 1, 1] = 1.
    for by in ('rank', 'harmonic', 'accuracy'):
        found = t.best(by)
        assert (found.step, found.sigma, found.layer, found.head, found.num_inference_steps) == (9, .1, 4, None, 30)
        assert found['accuracy'].mean == 1 and found.facts['clips'] == 3 and found.by == by
    found = t.best('rank', heads=True)
    assert (found.step, found.layer, found.head) == (3, 2, 1) and found['attention_cross'].mean == 1
    assert 'attention_cross' not in t.best('rank', scores=['accuracy']).scores and 'entropy' in t.best('entropy').scores
    assert t.best() == t.best('rank') and t.at(9, 4)['accuracy'].mean == 1 and t.at(9, 4).keys() == set(t.names)
    del t.facts['num_inference_steps']
    with pytest.raises(ValueError, match=r"table.facts\['num_inference_steps'\] = 30"):
        t.best()


def test_rows():
    t = table()
    rows = t.to_dataframe()
    assert len(rows) == 2 * 3 * 3 and list(rows) == ['step', 'sigma', 'layer', 'head', *t.names]
    assert rows['head'][4] == 0 and rows['accuracy'][4] == float(t.map('accuracy', True)[0, 1, 0])
    assert rows['head'].isna().sum() == 6 and rows['accuracy'][3] == float(t.map('accuracy')[0, 1])
    data = t.to_xarray()
    assert data['accuracy'].dims == ('clip', 'step', 'layer') and data['layer'].values.tolist() == [0, 2, 4]
    assert data['entropy_of_heads'].sel(step=9, layer=2).values.tolist() == t.heads['entropy'][:, 1, 1].tolist()


def test_join():
    a, b = table(seed=1), table(clips=2, points=3, seed=2)
    b.facts['num_inference_steps'] = 50
    t = join_scores([a, b])
    assert t.clips == 5 and t.facts == {'threshold': 8.} and len(t.clip) == 21
    both = torch.cat([a.values('accuracy'), b.values('accuracy')])
    torch.testing.assert_close(t.values('accuracy'), both, equal_nan=True)
    torch.testing.assert_close(t.values('entropy', True)[3:], b.heads['entropy'])


def test_round_trip(tmp_path):
    t = join_scores([table(), table(seed=1)])
    again = ScoreTable.load(t.save(tmp_path / 'a.scores'))
    assert (again.steps, again.sigmas, again.layers, again.facts) == (t.steps, t.sigmas, t.layers, t.facts)
    for part in ('points', 'weights', 'heads'):
        assert list(getattr(again, part)) == list(getattr(t, part))
        for name, x in getattr(t, part).items():
            assert torch.equal(getattr(again, part)[name].nan_to_num(-1), x.nan_to_num(-1))
    again.facts['num_inference_steps'] = t.facts['num_inference_steps']
    assert score_rows(again) == score_rows(t) and again.best() == t.best()
    with pytest.raises(FileExistsError, match='pass force=True'):
        t.save(tmp_path / 'a.scores')
    again.save(tmp_path / 'a.scores', force=True)
    assert [f.name for f in tmp_path.iterdir()] == ['a.scores']


def test_bad_files(tmp_path):
    from safetensors.torch import save_file
    path = table().save(tmp_path / 'a.scores')
    cut = tmp_path / 'cut.scores'
    cut.write_bytes(path.read_bytes()[:-40])
    save_file({'x': torch.ones(1)}, tmp_path / 'other.scores')
    for name, message in (('cut', 'cannot be read as a result of vidlens .*not fully covered'),
                          ('other', 'cannot be read as a result of vidlens .*write it again with result.save')):
        with pytest.raises(ValueError, match=message):
            ScoreTable.load(tmp_path / f'{name}.scores')
    with pytest.raises(FileNotFoundError, match='writes one'):
        ScoreTable.load(tmp_path / 'none.scores')
    with pytest.raises(FileNotFoundError, match='make it first'):
        table().save(tmp_path / 'no' / 'a.scores')


# the probe

def moving(grid=GRID, points=12, seed=0):
    "A field that moves right by a token for each token frame, points anywhere in frame 0, their tracks and visibility."
    q = sliding(grid, 1, 0, heads=3, seed=seed)
    xy = torch.rand(points, 2, generator=rng(seed)) * torch.tensor([grid.width, grid.height])
    queries = torch.cat([torch.zeros(points, 1), xy], 1)
    truth = xy[:, None] + torch.arange(grid.video_frames)[:, None] * torch.tensor([grid.stride / grid.temporal, 0.])
    return q, queries, truth, truth[..., 0] < grid.width


def best(t):
    t.facts['num_inference_steps'] = 30
    return t.best()


def counted(grid, queries, truth, seen, moved=0.):
    times = grid.times().long()
    rest = ((truth[:, times] - queries[:, None, 1:]).norm(dim=-1) >= moved) & (times > 0)
    return dict(truth=truth[:, times], visible=seen[:, times], evaluate=rest)


@pytest.mark.parametrize('matching', [{}, dict(readout='soft', window=1), dict(symmetric=True),
                                      dict(lookup='bilinear', readout='soft'), dict(lookup='nearest', scale=.1)])
@pytest.mark.parametrize('block', [200, 2 ** 22])
def test_accuracy_is_the_pck_of_match(matching, block, monkeypatch):
    monkeypatch.setattr('vidlens.points.attention.BLOCK', block)
    q, queries, truth, seen = moving()
    q = q + rand(*q.shape, seed=5) * torch.tensor([.5, 1., 2.])[:, None, None]
    probe = ScoreProbe(GRID, queries, truth, seen, options=ProbeOptions(threshold=12., matching=Matching(**matching)))
    probe.add(q, torch.cat([rand(3, 4, 32), q], 1), layer=2, step=5)
    t, ask = probe.result(), counted(GRID, queries, truth, seen) | dict(threshold=12.)
    tracks = match(q, q, GRID, queries, matching=Matching(**matching))
    assert t.values('accuracy').item() == pytest.approx(float(pck(tracks.xy, **ask)))
    each = pck(match(q, q, GRID, queries, per_head=True, matching=Matching(**matching)).xy, **ask)
    torch.testing.assert_close(t.values('accuracy', True)[0, 0, 0], each)
    assert 0 < each[2] < 1


def test_planted_motion_is_scored_right():
    q, queries, truth, seen = moving()
    probe = ScoreProbe(GRID, queries, truth, seen, options=ProbeOptions(moved=16.))
    probe.add(q, q, 0, 0)
    probe.add(q * 0, q, 1, 0)
    t = probe.result()
    assert t.map('accuracy').tolist() == [[1, 0]]   # even attention stays, and the points have moved
    assert best(t).layer == 0 and best(t)['accuracy'].mean == 1


def test_scores_and_statistics_are_those_of_the_functions():
    q, k = random_qk()
    _, queries, truth, seen = moving()
    probe = ScoreProbe(GRID, queries, truth, seen, options=ProbeOptions(sample=None, padding='apart'),
                       valid=[True, True, False, True])
    probe.add(q, k, 1, 2, sigma=.4)
    t, valid = probe.result(), [True, True, False, True]
    how = dict(valid=valid, reading=AttentionReading(padding='apart'))
    assert (t.steps, t.sigmas, t.layers) == ([2], [.4], [1])
    found = attention_scores(q, k, GRID, queries, visible=seen, **how)
    each = attention_scores(q, k, GRID, queries, visible=seen, per_head=True, **how)
    for n, v in found.means().items():
        assert float(t.map(n)) == pytest.approx(v, rel=1e-5)
        torch.testing.assert_close(t.values(n, True)[0, 0, 0], each.means()[n])
    stats = head_statistics(q, k, GRID, valid=valid, padding='apart')
    for n in ('entropy', 'evenness', 'distance', 'lag', 'sink', 'first'):
        torch.testing.assert_close(t.values(n, True)[0, 0, 0], getattr(stats, n))


def test_queries_of_any_frame():
    "The frame where a point is asked does not count; before and after it do."
    q, queries, truth, seen = moving()
    queries[:, 0], truth = 4, truth - torch.tensor([16., 0.])
    probe = ScoreProbe(GRID, queries, truth, seen & (truth[..., 0] >= 0))
    probe.add(q, q, 0, 0)
    inside = (truth[:, [0, 8], 0] >= 0) & seen[:, [0, 8]]
    assert torch.equal(probe.result().weights['accuracy'], inside.sum(-1)) and probe.result().map('accuracy') == 1


def test_a_point_hidden_when_asked_does_not_count():
    q, queries, truth, seen = moving()
    seen = seen.clone()
    seen[:6, 0] = False
    probe = ScoreProbe(GRID, queries, truth, seen)
    probe.add(q, q, 0, 0)
    w = probe.result().weights
    assert not w['accuracy'][:6].any() and not w['confidence_text'][:6].any() and w['attention_cross'][6:].all()


def test_the_published_accuracy():
    q, queries, truth, seen = moving()
    q = q + rand(*q.shape, seed=5)
    probe = ScoreProbe(GRID, queries, truth, seen, options=ProbeOptions.published())
    probe.add(q, q, 0, 0)
    tracks = match(q, q, GRID, queries, matching=Matching(symmetric=True, lookup='published')).at_frames(9, time='half_pixel')
    want = pck(tracks.xy, truth, seen, 8., evaluate='published')
    assert probe.result().values('accuracy').item() == pytest.approx(float(want))


def test_no_truth_no_accuracy():
    q, k = random_qk()
    probe = ScoreProbe(GRID, [[0, 8., 8.], [4, 8., 8.]], options=ProbeOptions(sample=0))
    probe.add(q, k, 0, 0)
    t = probe.result()
    assert 'accuracy' not in t.names and 'entropy' not in t.names and best(t).layer == 0


@pytest.mark.parametrize('options', [ProbeOptions(), ProbeOptions(matching=Matching(symmetric=True)),
                                 ProbeOptions(matching=Matching(readout='soft')), ProbeOptions.published()])
def test_a_truth_that_comes_later_gives_the_same_scores(options):
    q, queries, truth, seen = moving()
    k = torch.cat([rand(3, 4, 32), q + rand(*q.shape, seed=5)], 1)
    late, known = (ScoreProbe(GRID, queries, *true, options=options, later=not true) for true in ((), (truth, seen)))
    for probe in (late, known):
        for step, layer in ((0, 0), (0, 2), (1, 2)):
            probe.add(q * (1 + step + layer), k, layer, step)
    with pytest.raises(ValueError, match=r'probe.judge\(tracks, visible\)'):
        late.result()
    late.judge(queries[:, None, 1:].expand(-1, 9, -1))   # a first belief, that nothing moves
    still = late.result()
    late.judge(truth, seen)
    a, b = late.result(), known.result()
    assert a.names == b.names and not torch.equal(still.map('accuracy'), a.map('accuracy'))
    for name in a.names:
        torch.testing.assert_close(a.values(name, True), b.values(name, True), equal_nan=True)
        torch.testing.assert_close(a.values(name), b.values(name), equal_nan=True)
    with pytest.raises(ValueError, match='scored already'):
        late.add(q, k, 0, 0)


def test_cells_that_were_not_scored_are_nan():
    q, k = random_qk()
    probe = ScoreProbe(GRID, [[0, 8., 8.]])
    for step, layer in ((7, 1), (2, 3), (2, 1)):
        probe.add(q, k, layer, step)
    t = probe.result()
    assert t.steps == [2, 7] and t.layers == [1, 3] and t.map('attention_cross').isnan().tolist() == [[0, 0], [0, 1]]
    assert best(t).layer in (1, 3) and t.map('entropy').isnan().sum() == 1


def test_the_probe_keeps_numbers_only():
    "Neither q and k nor the memory of what was made of them; in `result` neither."
    q, k = random_qk(heads=8)
    q.requires_grad_()
    _, queries, truth, seen = moving()
    probe = ScoreProbe(GRID, queries, truth, seen)
    for layer in range(3):
        probe.add(q, k, layer, 0)
    kept = [x for points, heads in probe.rows.values() for x in (*points.values(), *heads.values())]
    assert sum(x.untyped_storage().nbytes() for x in kept) <= 3 * (7 * 12 * 4 + 13 * 8 * 4)
    assert not any(x.requires_grad for x in kept)


@pytest.mark.parametrize('family', FAMILIES)
def test_as_the_probe_of_a_capture(family):
    "The scores of a run are those of its tape, the text where the family has it."
    pipe, points = pipe_of(family), torch.tensor([[0, 4., 20.], [0, 28., 9.], [4, 16., 16.]])
    text = 0 if family == 'wan' else LENGTH[family]
    with capture(pipe, 'q k') as tape:
        call(pipe)
    valid = torch.arange(tape.text) < 3
    probe = ScoreProbe(tape.grid, points, valid=valid)
    with capture(pipe, 'q k', tokens='all', probe=probe):
        call(pipe)
    t = probe.result()
    assert t.layers == list(range(tape.num_layers)) and t.steps == [0, 1] and t.sigmas[0] > t.sigmas[1]
    assert (tape.text > 0) == (text > 0)
    q, k = (tape.get(n, 1, 1, tokens='all')[0] for n in 'qk')
    found = attention_scores(q, k, tape.grid, points, text='first' if tape.text_first else 'last', valid=valid)
    for n, v in found.means().items():
        assert float(t.map(n)[1, 1]) == pytest.approx(v, rel=1e-4, abs=1e-7), n
    if text:
        assert (t.map('attention_text') > 0).all()
        with pytest.raises(ValueError, match="tokens='all'"), capture(pipe, 'q k', probe=ScoreProbe(tape.grid, points)):
            call(pipe)


# messages

Q, K = random_qk()
P = torch.tensor([[0, 8., 8.]])
TRUTH, T = torch.zeros(1, 9, 2), table()
SITE = SimpleNamespace(layer=0, step=0, sigma=0., video=slice(4, 64), text=slice(0, 4))
BAD = {
    'keys of the video alone': (lambda: attention_scores(Q, Q, GRID, P, valid=[True] * 4),
                                r"the 0 text tokens.*tokens='all'"),
    'valid as numbers': (lambda: attention_scores(Q, K, GRID, P, valid=[1, 1, 0, 0]), r'valid is \(4,\) torch.int64'),
    'another grid': (lambda: attention_scores(Q, K, Grid(3, 4, 4), P),
                     'q has 60 tokens and k 64.*3x4x4 = 48 video tokens'),
    'keys too short': (lambda: attention_scores(Q, K[:, 5:], GRID, P), 'q has 60 tokens and k 59'),
    'a batch': (lambda: attention_scores(Q[None], K[None], GRID, P), r'of a batch take one item, q\[i\]'),
    'integers': (lambda: attention_scores(Q.long(), K.long(), GRID, P), 'torch.int64'),
    'other heads': (lambda: attention_scores(Q[:1], K, GRID, P), 'of the same heads'),
    'head 3 of 3': (lambda: attention_scores(Q, K, GRID, P, heads=3), r'heads=\[3\] must name some of the 3'),
    'text place': (lambda: attention_scores(Q, K, GRID, P, text='left'), "text='left' is unknown: use 'first' or 'last'"),
    'padding': (lambda: attention_scores(Q, K, GRID, P, reading=AttentionReading(padding='masked')),
                    "use 'excluded', 'apart' or 'counted'"),
    'hidden': (lambda: attention_scores(Q, K, GRID, P, reading=AttentionReading(hidden='zero')), "'left_out' or 'published'"),
    'lookup': (lambda: attention_scores(Q, K, GRID, P, reading=AttentionReading(lookup='bilinear')),
                    "use 'nearest', 'rounded' or 'published'"),
    'no times': (lambda: attention_scores(Q, K, GRID, [[8., 8.]]), r'must be \(points, 3\) as \(t, x, y\)'),
    'tokens as floats': (lambda: attention_scores(Q, K, GRID, [.5]), 'whole numbers from 0 to 59'),
    'token 60': (lambda: attention_scores(Q, K, GRID, [60]), 'whole numbers from 0 to 59'),
    'query outside': (lambda: attention_scores(Q, K, GRID, [[0, 81., 8.]]), r'query 0 is \(t, x, y\) = \(0, 81, 8\)'),
    'nan query': (lambda: attention_scores(Q, K, GRID, [[0, torch.nan, 8.]]), 'query 0 is'),
    'token frames': (lambda: attention_scores(Q, K, GRID, P, visible=torch.ones(1, 3).bool()),
                     r'visible is \(1, 3\).*1 points, 9 RGB frames'),
    'visible as numbers': (lambda: attention_scores(Q, K, GRID, P, visible=torch.ones(1, 9)), 'must be bool'),
    'nan keys': (lambda: attention_scores(Q, K * torch.nan, GRID, P), 'Run the model in float32'),
    'nan keys of statistics': (lambda: head_statistics(Q, K * torch.nan, GRID), 'Run the model in float32'),
    'no tokens': (lambda: head_statistics(Q, K, GRID, 0), 'tokens=0, but must be'),
    'no tables': (lambda: rank_select([]), 'of one shape, not empty'),
    'other shapes': (lambda: rank_select([torch.ones(2), torch.ones(3)]), r'\[\(2,\), \(3,\)\]'),
    'negative': (lambda: rank_select([torch.tensor([-1., 1.])]), 'holds -1, but ratios'),
    'nothing complete': (lambda: rank_select([torch.tensor([torch.nan])]), 'every entry is NaN'),
    'score': (lambda: T.values('pck'), "name='pck' is unknown: use 'accuracy'"),
    'rule': (lambda: T.best('mean'), "by='mean' is unknown: use 'rank', 'harmonic', 'accuracy'"),
    'step': (lambda: T.interval('accuracy', 4, 0), 'step=4 is unknown: use 3 or 9'),
    'head': (lambda: T.interval('accuracy', 3, 0, head=2), 'head 2 is not in the table: it has 2 heads'),
    'points of a head': (lambda: T.interval('accuracy', 3, 0, head=1, over='points'),
                         'points are kept of the mean of heads'),
    'over': (lambda: T.interval('accuracy', 3, 0, over='frames'), "over='frames'"),
    'joining none': (lambda: join_scores([]), 'at least one'),
    'joining others': (lambda: join_scores([T, table(layers=(0, 1, 2))]), r'table 1 has layers \[0, 1, 2\]'),
    'no clip counts': (lambda: ScoreTable([0], [0.], [0], {'accuracy': torch.full((1, 1, 1), torch.nan)}, {
        'accuracy': torch.zeros(1)}, torch.zeros(1).long(), {'accuracy': torch.full((1, 1, 1, 1), torch.nan)}).best(),
        'nothing counted. Give points that are visible'),
    'readout': (lambda: ScoreProbe(GRID, P, options=ProbeOptions(matching=Matching(readout='max'))), "'argmax' or 'soft'"),
    'threshold': (lambda: ScoreProbe(GRID, P, options=ProbeOptions(threshold=0)), 'threshold=0 must be a number of at least 1e-09'),
    'truth of another clip': (lambda: ScoreProbe(GRID, P, TRUTH[:, :8]), r'truth is \(1, 8, 2\).*1 points, 9 RGB'),
    'nan tracks': (lambda: ScoreProbe(GRID, P, TRUTH * torch.nan), 'point 0 is not finite in RGB frame 0'),
    'probe of the video alone': (lambda: ScoreProbe(GRID, P)(SITE, Q[None], Q[None]), "tokens='all', probe=probe"),
    'item': (lambda: ScoreProbe(GRID, P, item=1)(SITE, Q[None], K[None]), 'item=1, but the batch holds 1'),
    'nothing scored': (lambda: ScoreProbe(GRID, P).result(), 'nothing was scored yet'),
    'later, but there': (lambda: ScoreProbe(GRID, P, TRUTH, later=True), 'leave later out'),
    'no later': (lambda: ScoreProbe(GRID, P, TRUTH).judge(TRUTH), 'later=True'),
    'judged by another clip': (lambda: ScoreProbe(GRID, P, later=True).judge(TRUTH[:, :8]), r'truth is \(1, 8, 2\)'),
}


@pytest.mark.parametrize('name', BAD)
def test_messages(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_a_layer_twice():
    probe = ScoreProbe(GRID, P)
    probe.add(Q, K, 0, 0)
    with pytest.raises(ValueError, match='layer 0, step 0 was scored already'):
        probe.add(Q, K, 0, 0)


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_a_gpu_gives_the_same_scores(dtype):
    q, queries, truth, seen = moving()
    q, k = q.to(dtype), torch.cat([rand(3, 4, 32), q], 1).to(dtype)
    for matching in (Matching(), Matching(symmetric=True)):
        both = []
        for device in ('cpu', 'cuda'):
            probe = ScoreProbe(GRID, queries.to(device), truth.to(device), seen.to(device), options=ProbeOptions(matching=matching))
            probe.add(q.to(device), k.to(device), 0, 0)
            both.append(probe.result())
        for n in both[0].names:
            torch.testing.assert_close(both[1].values(n, True), both[0].values(n, True), rtol=1e-3, atol=1e-4)
