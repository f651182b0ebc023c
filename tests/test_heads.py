"""Heads, layers and steps: published silhouettes, planted heads, a streaming pass over a whole generation."""
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import silhouette_score
from seam import call, pipe_of
from test_golden_maps import close, grid_of, hidden, load

from vidlens.seam.card import card_of, model_of
from vidlens.seam.families import tiny
from vidlens.core.grid import Grid
from vidlens.words.heads import (SCORES, HeadChoice, HeadProbe, HeadTable, lambda2, select_heads, separability,
                                 silhouette)
from vidlens.seam.capturing import capture
from vidlens.seam.run import renoise

GRID = Grid(4, 3, 5)


@pytest.mark.parametrize('case', ['back', 'front', 'subsampled'])
def test_07_silhouette(case):
    z, seen = load(f'07_select_head__{case}'), 0
    scores = silhouette(hidden(z), grid_of(z))
    close(scores, z['out_score_Silhouette'])
    for key, want in z.items():
        if not key.startswith('out_heads_Silhouette_'):
            continue
        what, seen = key.removeprefix('out_heads_Silhouette_'), seen + 1
        if what.startswith('threshold'):
            at = z['p_threshold_Silhouette' if 'custom' in what else 'p_default_threshold_Silhouette']
            got = sorted(select_heads(scores, HeadChoice(None, 'silhouette', at), strict=False).tolist())
        else:
            k, skip = [int(v) for v in what.removeprefix('topk').split('_except')] if 'topk' in what else (2, 0)
            got = select_heads(scores, HeadChoice(k, 'silhouette', skip=skip), strict=False).tolist()
        assert got == want.tolist(), key
    assert seen >= 1


def test_07_silhouette_of_constant_heads():
    z = load('07_select_head__degenerate')
    published = silhouette(hidden(z), grid_of(z), degenerate='published')
    close(published, z['out_score_Silhouette'])
    ours = silhouette(hidden(z), grid_of(z))
    assert ours[1:3].isnan().all() and torch.equal(ours[[0, 3]], published[[0, 3]])


def test_silhouette_keeps_its_digits_beside_a_frame_far_away():
    near = outputs([1], 0, 3)
    o, frame = near.clone(), GRID.place(torch.arange(GRID.n))[0]
    o[0, frame == 0] += 1e5
    o[2, 7, 3] = torch.nan
    for how in ('nan', 'published'):
        found = silhouette(o, GRID, degenerate=how)
        for h in (0, 1):
            assert found[h] == pytest.approx(silhouette_score(o[h].double().numpy(), frame.numpy()), abs=1e-5)
        assert found[2].isnan()


def outputs(knowing, seed, heads=6, constant=None):
    g = torch.Generator().manual_seed(seed)
    o = torch.randn(heads, *GRID.shape, 8, generator=g)
    for h in knowing:
        o[h] += 3 * torch.randn(GRID.frames, 1, 1, 8, generator=g)
    if constant is not None:
        o[constant] = torch.randn(GRID.frames, 1, 1, 8, generator=g)
    return o.flatten(1, 3)


PLANTED = {0: [1, 4], 3: [0, 5]}


def planted_table(by=('chi', 'fisher', 'dbi', 'silhouette'), videos=3):
    probe = HeadProbe(by)
    for v in range(videos):
        for step in (2, 9):
            for layer, knowing in PLANTED.items():
                o = outputs(knowing, 100 * v + 10 * step + layer, constant=2)
                probe(SimpleNamespace(step=step, layer=layer, grid=GRID), o[None])
    return probe.result(dict(seed=1))


@pytest.mark.parametrize('by', ['chi', 'fisher', 'dbi', 'silhouette'])
@pytest.mark.parametrize('over', ['layer', 'model'])
@pytest.mark.parametrize('step', [None, 9])
def test_planted_heads_are_found(by, over, step):
    table = planted_table()
    k = 2 if over == 'layer' else 4
    assert {n: sorted(h) for n, h in table.select(HeadChoice(k, by, over=over), step).items()} == PLANTED
    assert table.scores[by].shape == (3, 2, 2, 6) and table.scores[by][..., 2].isnan().all()
    assert table.select(HeadChoice(1, by), layers=[3]).keys() == {3}
    assert table.facts == dict(videos=3, seed=1)


def test_table_speaks_of_what_was_measured():
    table = planted_table(('chi',))
    assert table.names == ['chi'] and '2 layers' not in repr(table) and 'layers [0, 3], 6 heads' in repr(table)
    assert table.map().shape == (2, 2) and torch.allclose(table.map(), table.scores['chi'].nanmean((0, 3)))
    for over, numbers in (('layers', [0, 3]), ('steps', [2, 9])):
        curve = table.curve('chi', over)
        assert [n for n, _ in curve] == numbers and all(i.lo <= i.mean <= i.hi for _, i in curve)
    assert table.select_layers(0., 'chi') == [0, 3] and table.select_steps(0.) == [2, 9]
    low, high = sorted(table.scores['chi'].nanmean((0, 2, 3)).tolist())
    assert len(table.select_steps((low + high) / 2)) == 1
    first = table.select(HeadChoice(1))
    assert all(table.select(HeadChoice(1, skip=1))[n] != first[n] for n in first)


@pytest.mark.parametrize('ask, says', [
    (lambda t: t.select(HeadChoice(by='fisher')), 'was not measured'), (lambda t: t.select(step=5), 'choose among'),
    (lambda t: t.select(HeadChoice(threshold=1e9)), 'no head is left'),
    (lambda t: t.select(layers=[7]), 'layer 7 was not measured'),
    (lambda t: t.select(layers=[0, 99]), 'layer 99 was not measured'),
    (lambda t: t.select(layers=[]), 'none of them'),
    (lambda t: t.select_layers(float('nan'), 'chi'), 'nanmean'),
    (lambda t: HeadChoice(over='step'), 'unknown'), (lambda t: t.select_layers(1e9, 'chi'), 'no layer'),
    (lambda t: t.select_steps(1e9), 'no step'),
    (lambda t: t.curve('chi', 'heads'), 'unknown'), (lambda t: HeadProbe(['chi', 'best']), "not 'best'"),
    (lambda t: HeadProbe([]), 'at least one'), (lambda t: HeadProbe().result(), 'no attention'),
    (lambda t: HeadProbe.kinds(['lambda2'], cross=True), 'self-attention'),
    (lambda t: silhouette(torch.randn(2, 1, 4, 3)), 'one frame'),
    (lambda t: silhouette(torch.randn(2, 3, 4, 3), sample=1), 'at least 2')])
def test_bad_input(ask, says):
    with pytest.raises(ValueError, match=says):
        ask(planted_table(('chi',), 1))


@pytest.mark.parametrize('family', ['cogvideox', 'wan', 'hunyuanvideo'])
def test_one_pass_over_a_generation(family):
    pipe, probe = pipe_of(family), HeadProbe(SCORES)
    plain = call(pipe)
    with capture(pipe, HeadProbe.kinds(SCORES), probe=probe, tokens='video') as nothing:
        assert torch.equal(plain, call(pipe))
    with capture(pipe, 'q k o', tokens='video') as tape:
        call(pipe)
    table = probe.result()
    assert len(nothing) == 0 and isinstance(table, HeadTable) and table.steps == [0, 1]
    for i, step in enumerate(table.steps):
        for j, layer in enumerate(table.layers):
            q, k, o = (tape.get(x, layer, step)[0] for x in 'qko')
            want = separability(o, tape.grid) | dict(silhouette=silhouette(o, tape.grid), lambda2=lambda2(q, k))
            for by in SCORES:
                torch.testing.assert_close(table.scores[by][0, i, j], want[by].float(), equal_nan=True)


def test_every_row_is_a_video():
    pipe, probe = pipe_of('wan'), HeadProbe(('chi',))
    with capture(pipe, HeadProbe.kinds(('chi',), cross=True), probe=probe):
        call(pipe, ['a cat runs', 'two dogs'])
    assert probe.result().scores['chi'].shape == (2, 2, 3, 2)


def test_bounds_are_told_of_the_layers_that_have_a_score():
    table = planted_table(('chi',))
    some = replace(table, scores=dict(chi=table.scores['chi'].index_fill(2, torch.tensor(1), torch.nan)))
    best = float(some.scores['chi'][:, :, 0].nanmean())
    with pytest.raises(ValueError, match=f'no layer has chi above .*: it runs from {best:.4g} to {best:.4g}$'):
        some.select_layers(1e9, 'chi')
    assert some.select_layers(0., 'chi') == [0]


def test_lambda2_of_attention_within_frames_is_the_mean_over_frames():
    pipe = tiny('animatediff')
    framed = [i for i, (_, _, stack) in enumerate(card_of(pipe).blocks(model_of(pipe))) if stack.over == 'frame']
    probe = HeadProbe(['lambda2'], iterations=200, framed=framed)
    v = torch.rand(3, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    with capture(pipe, 'q k o') as tape, capture(pipe, HeadProbe.kinds(['lambda2']), probe=probe):
        renoise(pipe, v, 'a dog', step=-1, num_inference_steps=4)
    table, wide = probe.result(), set()
    for j, layer in enumerate(table.layers):
        grid = tape.grids.get(layer, tape.grid)
        q, k = (grid.unflatten(tape.get(n, layer)[0]).flatten(2, 3).double() for n in 'qk')
        mixing = (q @ k.mT / q.shape[-1] ** .5).softmax(-1)                                 # (heads, frames, tokens, tokens)
        wide.add(grid.per_frame > 1)
        want = torch.linalg.eigvals(mixing).abs().sort(descending=True).values[..., 1].mean(1) if grid.per_frame > 1 else \
            torch.full((len(q),), torch.nan)
        got = table.scores['lambda2'][0, 0, j]
        torch.testing.assert_close(got, want.float(), atol=1e-3, rtol=1e-2, equal_nan=True)
    assert wide == {True, False}, 'a layer of one token a frame is among them'


@pytest.mark.parametrize('facts', [{}, dict(seed=1, sigmas=[.5, .25], words=[['cat']], normalise=None)])
def test_a_table_is_kept_in_a_file(tmp_path, facts):
    table = planted_table()
    table = replace(table, facts=table.facts | facts)
    again = HeadTable.load(table.save(tmp_path / 'heads.safetensors'))
    assert (again.steps, again.layers, again.facts) == (table.steps, table.layers, table.facts)
    assert list(again.scores) == list(table.scores)
    for by, x in table.scores.items():
        torch.testing.assert_close(again.scores[by], x, rtol=0, atol=0, equal_nan=True)
    assert again.select(HeadChoice(2)) == table.select(HeadChoice(2)) and repr(again) == repr(table)
    assert np.array_equal(again.sigmas, table.sigmas, equal_nan=True)
    with pytest.raises(FileExistsError, match='force=True'):
        table.save(tmp_path / 'heads.safetensors')
    assert table.save(tmp_path / 'heads.safetensors', force=True).is_file()
    with pytest.raises(FileNotFoundError):
        HeadTable.load(tmp_path / 'no.safetensors')


def test_a_damaged_table_is_refused(tmp_path):
    path = planted_table(('chi',)).save(tmp_path / 'heads.safetensors')
    whole, bad = path.read_bytes(), tmp_path / 'bad.safetensors'
    np.savez(tmp_path / 'none.npz')
    np.save(tmp_path / 'one.npy', np.zeros(3))
    files = [(tmp_path / n).read_bytes() for n in ('none.npz', 'one.npy')]
    start = bytes(255 - b for b in whole[:len(whole) // 4])
    for data in (b'', b'nothing', whole[:len(whole) // 2], whole[len(whole) // 2:], *files, start + whole[len(start):]):
        bad.write_bytes(data)
        with pytest.raises(ValueError, match='bad.safetensors cannot be read as a result'):
            HeadTable.load(bad)
    for scores in ({}, dict(chi=torch.zeros(1, 2, 2, 3)), dict(chi=torch.zeros(1, 1, 2)), dict(chi='a'),
                   dict(chi=torch.zeros(1, 1, 2, 3), dbi=torch.zeros(2, 1, 2, 3))):
        with pytest.raises(ValueError, match='scores'):
            HeadTable([2], [.5], [0, 3], scores)


def test_the_best_head_is_a_site():
    table = planted_table()
    with pytest.raises(ValueError, match='num_inference_steps'):
        table.best()
    table = replace(table, facts=table.facts | dict(num_inference_steps=30), sigmas=[.75, .5])
    for by in table.scores:
        best, means = table.best(by), table.scores[by].nanmean(0)
        assert best.head in PLANTED[best.layer] and best.num_inference_steps == 30
        assert best.sigma == {2: .75, 9: .5}[best.step]
        want = means.nan_to_num(torch.inf).min() if by == 'dbi' else means.nan_to_num(0).max()
        assert best[by].mean == pytest.approx(float(want))
        assert set(best.scores) == set(table.scores) and best[by].lo <= best[by].mean <= best[by].hi
    blind = replace(table, scores=dict(chi=torch.full((1, 2, 2, 6), torch.nan)))
    with pytest.raises(ValueError, match='no head has a score'):
        blind.best()


def test_the_probe_keeps_the_share_of_noise():
    probe = HeadProbe(('chi',))
    for step, sigma in ((2, .75), (9, .5)):
        probe(SimpleNamespace(step=step, layer=0, grid=GRID, sigma=sigma), outputs([1], step)[None])
    assert probe.result().sigmas == [.75, .5]
    assert all(np.isnan(s) for s in planted_table(('chi',), 1).sigmas)


def test_a_table_is_labelled():
    table = planted_table(('chi', 'dbi'))
    data, frame = table.to_xarray(), table.to_dataframe()
    assert data['chi'].dims == ('video', 'step', 'layer', 'head') and data.coords['layer'].values.tolist() == [0, 3]
    assert float(data['dbi'].sel(step=9, layer=3)[1, 4]) == float(table.scores['dbi'][1, 1, 1, 4])
    assert set(frame.columns) == {'video', 'step', 'layer', 'head', 'chi', 'dbi'} and len(frame) == 3 * 2 * 2 * 6


def test_choices_are_checked_and_published():
    assert HeadChoice.published() == HeadChoice(5, 'chi', None, 0, 'layer') and HeadChoice.published(3).k == 3
    assert HeadChoice(np.int64(3), threshold=torch.tensor(2.5)) == HeadChoice(3, threshold=2.5)
    assert HeadChoice(by='dbi').lowest and not HeadChoice().lowest
