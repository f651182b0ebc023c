"""Metrics against the official results, against slow definitions, and at their edges."""
from pathlib import Path

import numpy as np
import pytest
import torch
from planted import rng

from vidlens.core.grid import Grid
from vidlens.core.stats import altered_order, auc, bootstrap, paired_difference
from vidlens.points.score_tables import harmonic_mean
from vidlens.points.metrics import evaluated_frames, pck, tapvid_metrics
from vidlens.words.metrics import centre_prior, energy, iou, pointing_game
from vidlens.bundled.inside import mass

GOLDEN = Path(__file__).parent / 'golden'


def load(name):
    with np.load(GOLDEN / f'{name}.npz') as z:
        return {k: z[k] for k in z.files}


# golden vectors

def test_golden_pck():
    z = load('04_matching_accuracy_pck')
    pred = torch.tensor(z['in_pred_tracks_px']).float().transpose(-2, -3)[:, :, 0]
    truth = torch.tensor(z['in_gt_tracks_px']).float()[0].transpose(0, 1)
    visible = torch.tensor(z['in_gt_visibility'])[0].T
    score = pck(pred, truth, visible, float(z['p_threshold_px']), evaluate='published')
    torch.testing.assert_close(100 * score, torch.tensor(z['out_pck_percent']), rtol=1e-5, atol=0)
    fair = pck(pred, truth, visible, float(z['p_threshold_px']))
    assert fair.shape == score.shape and not torch.equal(fair, score)
    assert (pck(pred.double(), truth.double(), visible, 8.) == fair).all()


@pytest.mark.parametrize('mode', ['first', 'strided'])
@pytest.mark.parametrize('said', ['pred_occ', 'zero_occ'])
@pytest.mark.parametrize('name', ['b1', 'b2'])
def test_golden_tapvid(name, said, mode):
    z = load(f'04_tapvid_metrics__{name}')
    query = torch.tensor(z['in_query_points_tyx']).float()[..., [0, 2, 1]]
    said_hidden = torch.tensor(z['in_pred_occluded'])
    said_hidden = said_hidden if said == 'pred_occ' else torch.zeros_like(said_hidden)
    args = (query, torch.tensor(z['in_gt_occluded']), torch.tensor(z['in_gt_tracks_xy']).float(), said_hidden,
            torch.tensor(z['in_pred_tracks_xy']).float(), mode)
    out = tapvid_metrics(*args, occlusion='published')
    names = {'OA': 'occlusion_accuracy', 'AJ': 'average_jaccard', 'd_avg': 'average_pts_within_thresh',
             **{f'd{k}': f'pts_within_{2 ** k}' for k in range(5)}, **{f'j{k}': f'jaccard_{2 ** k}' for k in range(5)}}
    assert set(out) == set(names)
    for ours, theirs in names.items():
        np.testing.assert_allclose(out[ours].numpy(), z[f'out_{mode}__{said}__{theirs}'], rtol=1e-5)
    for i in range(len(query)):     # by default each video stands alone, in a batch or not
        alone = tapvid_metrics(*(a[i] for a in args[:5]), mode)
        for key, value in tapvid_metrics(*args).items():
            torch.testing.assert_close(value[i], alone[key])


@pytest.mark.parametrize('name', ['plain', 'chain', 'zero_row', 'one_nan', 'constant_table'])
def test_golden_harmonic_mean(name):
    z = load(f'05_harmonic_mean__{name}')
    # the chain of the published scripts stores the accuracy with four digits
    accuracy = z['in_acc_layers_steps'].round(4) if name == 'chain' else z['in_acc_layers_steps']
    tables = accuracy.T, z['in_conf_cross_steps_layers'], z['in_attn_cross_steps_layers']
    expected = z['out_harmonic_mean_steps_layers']
    np.testing.assert_allclose(harmonic_mean(*tables, undefined='published').numpy(), expected, rtol=1e-6, atol=1e-9)
    ours = harmonic_mean(*tables).numpy()
    if name in ('one_nan', 'constant_table'):
        assert not expected.any() and np.nanmax(ours) > .2 and np.isnan(ours).sum() == (name == 'one_nan')
    else:
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-9)


def test_golden_chain():
    "From per-video tables to the harmonic mean."
    z = load('05_harmonic_mean__chain')
    accuracy = z['in_acc_per_video'].mean(0).round(4)
    np.testing.assert_allclose(accuracy, z['out_acc_mean_csv_layers_1plus_steps'][:, 1:], atol=1e-9)
    cross = z['p_type_order'].item().split(',').index('cross')
    shares = [z[f'in_{name}_per_video_steps_type_layers'].mean(0)[:, cross] for name in ('conf', 'attn')]
    expected = z['out_harmonic_mean_steps_layers']
    ours = harmonic_mean(accuracy.T, *shares)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-6, atol=1e-9)
    assert ours.argmax() == expected.argmax()


# slow definitions

def slow_tapvid(query, hidden, truth, said, pred, mode):
    "Frame by frame, from the definitions."
    right, total, agree, frames = np.zeros(5), 0, 0, 0
    tp, fp = np.zeros(5), np.zeros(5)
    for p in range(len(truth)):
        for f in range(truth.shape[1]):
            t = int(query[p, 0])
            if f == t or (mode == 'first' and f < t):
                continue
            frames += 1
            agree += bool(hidden[p, f] == said[p, f])
            total += not hidden[p, f]
            for k in range(5):
                hit = not hidden[p, f] and float((pred[p, f] - truth[p, f]).norm()) < 2 ** k
                right[k] += hit
                tp[k] += hit and not said[p, f]
                fp[k] += not hit and not said[p, f]
    return right / total, tp / (total + fp), agree / frames


@pytest.mark.parametrize('mode', ['first', 'strided'])
def test_tapvid_by_definition(mode):
    g = rng(3)
    truth = torch.rand(7, 9, 2, generator=g) * 200
    pred = truth + torch.randn(7, 9, 2, generator=g) * 5
    hidden, said = (torch.rand(7, 9, generator=g) < .3 for _ in range(2))
    query = torch.cat([torch.randint(0, 8, (7, 1), generator=g).float(), torch.zeros(7, 2)], 1)
    d, j, oa = slow_tapvid(query, hidden, truth, said, pred, mode)
    out = tapvid_metrics(query, hidden, truth, said, pred, mode)
    np.testing.assert_allclose([out[f'd{k}'] for k in range(5)], d, rtol=1e-6)
    np.testing.assert_allclose([out[f'j{k}'] for k in range(5)], j, rtol=1e-6)
    assert abs(out['OA'] - oa) < 1e-6 and abs(out['AJ'] - j.mean()) < 1e-6
    wide = torch.tensor([2., .5])   # the same tracks in a frame of 128 rows and 512 columns
    scaled = tapvid_metrics(query, hidden, truth * wide, said, pred * wide, mode, size=(128, 512))
    assert all(torch.allclose(scaled[k], out[k]) for k in out)
    perfect = tapvid_metrics(query, hidden, truth, hidden, truth, mode)
    assert all(v == 1 for v in perfect.values())


def test_pck_keeps_leading_axes_and_takes_masks():
    g = rng(1)
    truth = torch.rand(5, 6, 2, generator=g)
    pred = truth + torch.randn(4, 3, 5, 6, 2, generator=g)
    visible = torch.rand(5, 6, generator=g) < .7
    mask = evaluated_frames(torch.tensor([0, 1, 2, 3, 0]), 6)
    score = pck(pred, truth, visible, 1., evaluate=mask)
    hit = [float((pred[2, 1, p, f] - truth[p, f]).norm()) < 1 for p in range(5) for f in range(6)
           if visible[p, f] and mask[p, f]]
    assert score.shape == (4, 3) and abs(score[2, 1] - np.mean(hit)) < 1e-6
    assert pck(pred[0, 0], truth, torch.zeros(5, 6).bool(), 1.).isnan()


def test_a_nan_prediction_is_a_miss():
    truth = torch.zeros(1, 3, 2)
    pred = truth.clone()
    pred[0, 1] = torch.nan
    assert pck(pred, truth, torch.ones(1, 3).bool(), 1.) == .5


@pytest.mark.parametrize('ties', [False, True])
def test_auc_by_definition(ties):
    g = rng(2)
    scores = torch.randn(6, 20, generator=g)
    scores = scores.round() if ties else scores
    labels = torch.rand(6, 20, generator=g) < .4
    for s, l, a in zip(scores, labels, auc(scores, labels)):
        pairs = [(x > y).item() + .5 * (x == y).item() for x in s[l] for y in s[~l]]
        assert abs(a - np.mean(pairs)) < 1e-6
    assert auc(scores, labels).add(auc(-scores, labels)).sub(1).abs().max() < 1e-6
    assert torch.equal(auc(scores[:1], labels), auc(scores[:1].expand(6, -1), labels))


def test_auc_undefined():
    assert auc([.1, .2], [True, True]).isnan() and auc([.1, float('nan')], [True, False]).isnan()


def test_energy_is_the_share_of_a_planted_map():
    mask = torch.zeros(3, 5).bool()
    mask[1, 1:4] = True
    x = torch.full((3, 5), .25)
    x[1, 1:4] = 2.
    assert energy(x, mask) == 6 / 9 and energy(x, ~mask) == 3 / 9
    assert energy(x, mask, 'minimum') == 1 and energy(x - 1, mask, 'minimum') == 1, 'a shift changes nothing'
    assert energy(x - .5, mask) == 1, 'what is negative counts as nothing'
    signed = torch.where(mask, -1., x)
    assert energy(signed, mask) == 0
    share = mask.float() / 2                            # half of each token is inside
    assert energy(x, share) == 3 / 9
    stack = torch.stack([x, 3 * x, torch.ones(3, 5)])[:, None].expand(3, 2, 3, 5)
    found = energy(stack, torch.stack([mask, torch.zeros_like(mask)]))
    assert found.shape == (3, 2) and found[:, 1].isnan().all()
    torch.testing.assert_close(found[:, 0], torch.tensor([6 / 9, 6 / 9, 3 / 15]))
    assert energy(torch.zeros(3, 5), mask).isnan() and energy(torch.ones(3, 5), mask, 'minimum').isnan()
    assert energy(x.masked_fill(mask, torch.nan), mask).isnan() and energy(x.double(), mask).dtype == torch.float64


def test_energy_above_the_minimum_is_the_mass_of_the_model_card():
    maps, where = torch.randn(4, 3, 6, 7, generator=rng()), torch.rand(3, 6, 7, generator=rng(1))
    assert torch.equal(energy(maps, where, 'minimum').mean(-1), mass(maps, where))


def test_altered_orders():
    assert altered_order('reversed', 4).tolist() == [3, 2, 1, 0] and altered_order('static', 3).tolist() == [0, 0, 0]
    a, b = altered_order('shuffled', 17, 3), altered_order('shuffled', 17, 4)
    assert a.sort().values.tolist() == list(range(17)) and not torch.equal(a, b)
    assert torch.equal(a, altered_order('shuffled', 17, 3))


def test_pointing_game_and_iou():
    mask = torch.zeros(3, 5).bool()
    mask[0, :2] = True
    two = torch.zeros(3, 5)
    two[0, 0] = two[2, 4] = 1
    assert pointing_game(two, mask) == .5 and abs(pointing_game(torch.zeros(3, 5), mask) - 2 / 15) < 1e-6
    assert pointing_game(two, torch.zeros(3, 5).bool()).isnan()
    assert iou(two, mask, threshold=.5) == 1 / 3 and iou(mask.float(), mask) == 1
    assert iou(mask * .5, mask) == .5 and iou(torch.zeros(3, 5), torch.zeros(3, 5).bool()).isnan()
    stack = torch.stack([two, mask.float()]).expand(4, 2, 3, 5)
    assert pointing_game(stack, mask).shape == iou(stack, mask).shape == (4, 2)
    assert torch.equal(iou(stack, mask)[0], torch.tensor([1 / 3, 1]))


def test_centre_prior_beats_nothing_but_is_symmetric():
    grid = Grid(3, 6, 9)
    prior = centre_prior(grid)
    assert prior.shape == grid.shape and prior.max() == 1 and prior.min() > 0
    torch.testing.assert_close(prior, prior.flip(1, 2))
    narrow, wide = centre_prior(grid, .1).sum(), centre_prior(grid, 1.).sum()
    assert narrow < prior.sum() < wide


# intervals

def test_bootstrap_agrees_with_theory():
    x = torch.randn(400, generator=rng(4))
    mean, lo, hi = bootstrap(x)
    assert isinstance(lo, float) and abs(mean - x.mean()) < 1e-6
    assert abs((hi - lo) / 2 - 1.96 * x.std() / 20) < .01
    assert bootstrap(x) == bootstrap(x) != bootstrap(x, seed=1)
    narrow = bootstrap(x, level=.5)
    assert lo < narrow.lo < mean < narrow.hi < hi


def test_bootstrap_of_groups_is_the_bootstrap_of_group_means():
    means = torch.randn(40, generator=rng(5))
    labels = np.repeat([f'video {i}' for i in range(40)], 7)
    by_group, by_mean = bootstrap(means.repeat_interleave(7), labels), bootstrap(means)
    order = np.argsort([f'video {i}' for i in range(40)])
    assert np.allclose(by_group, bootstrap(means[order])) and abs(by_group.mean - by_mean.mean) < 1e-6


def test_bootstrap_of_tables_is_column_by_column():
    x = torch.randn(30, 2, 3, generator=rng(6))
    x[4, 0, 1] = torch.nan
    groups = torch.arange(30) // 3
    table = bootstrap(x, groups)
    assert table.mean.shape == table.lo.shape == (2, 3)
    one = bootstrap(x[:, 0, 1], groups)
    assert np.allclose([t[0, 1] for t in table], one, atol=1e-6)
    assert abs(one.mean - x[:, 0, 1].nanmean()) < 1e-6


def test_bootstrap_in_blocks(monkeypatch):
    "Many groups are resampled in blocks: memory stays small, and the interval is right."
    x = torch.rand(3000, generator=rng(7))
    mean, lo, hi = bootstrap(x, n=3000)
    assert abs((hi - lo) / 2 - 1.96 * .2887 / 3000 ** .5) < 1e-3 and lo < mean < hi


@pytest.mark.parametrize('groups', [[0, 0, 0], None])
def test_too_few_groups_give_no_interval(groups):
    values = [1., 2., 3.] if groups else [2.]
    mean, lo, hi = bootstrap(values, groups)
    assert mean == 2 and np.isnan(lo) and np.isnan(hi)


def test_coverage():
    "Of 200 intervals of 90 %, about nine in ten hold the truth."
    g = rng(8)
    x = torch.randn(30, 200, generator=g)
    _, lo, hi = bootstrap(x, level=.9, n=500)
    assert .82 < ((lo < 0) & (hi > 0)).float().mean() < .95


def test_paired_difference_sees_what_two_intervals_do_not():
    g = rng(9)
    base = torch.randn(50, generator=g) * 10
    d = paired_difference(base + .2 + .3 * torch.randn(50, generator=g), base)
    assert d.lo > 0 and bootstrap(base + .2).lo < bootstrap(base).hi
    a = torch.tensor([1., torch.nan, 3., 4.])
    assert paired_difference(a, torch.zeros(4)).mean == pytest.approx(8 / 3)


def test_devices_and_types():
    "Lists, arrays, halves and integers give the same numbers."
    truth, pred = np.zeros((1, 2, 2)), np.ones((1, 2, 2))
    visible = np.ones((1, 2), bool)
    assert pck(pred, truth, visible, 2) == pck(torch.ones(1, 2, 2).half(), truth, visible, 2) == 1
    assert pck(pred.tolist(), truth.tolist(), visible.astype(int), 1) == 0
    assert harmonic_mean([[1, 2, 3]], np.array([[3, 4, 5]])).tolist() == [[0, .5, 1]]


TRACKS, FLAGS = torch.zeros(3, 4, 2), torch.ones(3, 4).bool()
BAD = {
    'flat tracks': (lambda: pck(torch.zeros(4, 2), TRACKS, FLAGS, 8),
                    r'shape \(4, 2\), but must be \(points, frames, 2\)'),
    'latent frames': (lambda: pck(TRACKS[:, :2], TRACKS, FLAGS, 8), r'tracks\.at_frames\(n\)'),
    'visibility of another length': (lambda: pck(TRACKS, TRACKS, FLAGS[:, :3], 8),
                                     r'visible has shape \(3, 3\).*\(3, 4\)'),
    'confidence': (lambda: pck(TRACKS, TRACKS, torch.rand(3, 4), 8), r'visible > 0\.5'),
    'threshold 0': (lambda: pck(TRACKS, TRACKS, FLAGS, 0), 'distance in pixels above 0'),
    'evaluate': (lambda: pck(TRACKS, TRACKS, FLAGS, 8, evaluate='all'), "'all' is unknown.*evaluated_frames"),
    'evaluate shape': (lambda: pck(TRACKS, TRACKS, FLAGS, 8, evaluate=FLAGS[:2]), r'evaluate has shape \(2, 4\)'),
    'words': (lambda: pck(['a'], TRACKS, FLAGS, 8), 'must be a tensor, an array or a list of numbers'),
    'mode': (lambda: evaluated_frames([0], 4, 'last'), "'last' is unknown: use 'first' or 'strided'"),
    'query time': (lambda: evaluated_frames([7], 4), 'from 7 to 7, but the tracks end at frame 3'),
    'queries': (lambda: tapvid_metrics(torch.zeros(2, 3), ~FLAGS, TRACKS, ~FLAGS, TRACKS), '2 query points, but 3 tracks'),
    'occlusion': (lambda: tapvid_metrics(torch.zeros(3, 3), ~FLAGS, TRACKS, ~FLAGS, TRACKS, occlusion='x'), 'per_video'),
    'no table': (harmonic_mean, 'must be of one shape, not empty'),
    'tables': (lambda: harmonic_mean(torch.ones(2, 3), torch.ones(3, 2)),
               r'\(2, 3\), \(3, 2\)\], but must be of one shape'),
    'undefined': (lambda: harmonic_mean(torch.ones(2), undefined='zero'), "use 'local' or 'published'"),
    'energy shape': (lambda: energy(torch.zeros(3, 4), torch.zeros(4, 3).bool()), r'\(3, 4\).*\(4, 3\).*same rows'),
    'energy shares': (lambda: energy(torch.ones(3, 4), torch.full((3, 4), 2.)), 'from 2 to 2, but must be bool'),
    'energy signs': (lambda: energy(torch.ones(3, 4), -torch.ones(3, 4)), 'run from -1 to -1'),
    'energy floor': (lambda: energy(torch.ones(3, 4), torch.ones(3, 4), 'mean'), "'mean' is unknown"),
    'order': (lambda: altered_order('slow', 3), "'slow' is unknown"),
    'map shape': (lambda: pointing_game(torch.zeros(3, 4), torch.zeros(4, 3).bool()), r'\(3, 4\).*\(4, 3\).*same rows'),
    'soft iou': (lambda: iou(torch.full((2, 2), 3.), torch.ones(2, 2).bool()),
                 'from 3 to 3.*scale them, or give a threshold'),
    'auc': (lambda: auc([1., 2.], [True]), 'last axes must be equally long'),
    'no values': (lambda: bootstrap([]), 'at least one unit'),
    'groups': (lambda: bootstrap([1., 2.], [0]), 'one label for each of the 2 values'),
    'level': (lambda: bootstrap([1., 2.], level=95), 'level must be between 0 and 1'),
    'pairs': (lambda: paired_difference([1., 2.], [1.]), r'\(2,\) and b \(1,\)'),
    'sigma': (lambda: centre_prior(Grid(1, 2, 2), 0), 'above 0'),
}


@pytest.mark.parametrize('name', BAD)
def test_messages(name):
    call, message = BAD[name]
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_a_constant_table_is_told(caplog):
    harmonic_mean([1., 2.], [5., 5.])
    assert 'table 1 is constant' in caplog.text
    assert harmonic_mean([5., 5.]).isnan().all()
