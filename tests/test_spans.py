"""When a word is expressed and how it moves: planted spans, and motions under planted cameras."""
import pytest
import torch

from vidlens.core.grid import Grid
from vidlens.words.spans import camera_field, evidence, map_displacement, motion_span

GRID = Grid(9, 6, 8, 8, 4)


def noise(*shape, seed=0, size=.2):
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize('first, last', [(0, 3), (2, 4), (5, 8), (0, 0), (8, 8), (3, 3)])
@pytest.mark.parametrize('seed', range(4))
def test_planted_spans_are_found_to_the_frame(first, last, seed):
    maps = noise(*GRID.shape, seed=seed)
    maps[first:last + 1, 2:4, 3:6] += 3
    span = motion_span(maps, GRID)
    assert (span.start, span.end) == (GRID.span(first)[0], GRID.span(last)[1]) and not span.whole and span.varies > .5
    assert torch.equal(span.curve, evidence(maps, GRID))


@pytest.mark.parametrize('seed', range(4))
def test_a_word_that_is_always_there_has_no_span(seed):
    maps = noise(*GRID.shape, seed=seed)
    maps[:, 2:4, 3:6] += 4
    span = motion_span(maps, GRID)
    assert span.whole and (span.start, span.end) == (0, GRID.video_frames - 1)


def test_only_the_run_around_the_strongest_frame():
    maps = torch.zeros(GRID.shape)
    maps[1:3, 0, 0], maps[6:8, 0, 0] = 2., 3.
    assert motion_span(maps, GRID, share=1 / 48)[:2] == (GRID.span(6)[0], GRID.span(7)[1])


def cameras(case, steps=8):
    at = GRID.centres() - torch.tensor([GRID.width / 2, GRID.height / 2])
    turn = torch.stack([-at[..., 1], at[..., 0]], -1)
    field = {'still': 0 * at, 'pan': 0 * at + torch.tensor([-6., 3.]), 'zoom': .1 * at, 'roll': .08 * turn,
             'all': .06 * at + .05 * turn + torch.tensor([4., 2.])}[case]
    return field.expand(steps, -1, -1, -1).clone()


@pytest.mark.parametrize('case', ['still', 'pan', 'zoom', 'roll', 'all'])
@pytest.mark.parametrize('moved', [(8., 0.), (0., -4.), (0., 0.)])
def test_the_displacement_inside_a_map_is_without_the_cameras(case, moved):
    field = cameras(case)
    flow = field + noise(*field.shape, seed=1)
    flow[:, 1:4, 2:5] += torch.tensor(moved)
    maps = torch.zeros(GRID.shape)
    maps[:, 1:4, 2:5] = 1
    found = map_displacement(maps, flow, GRID, share=9 / 48)
    assert (camera_field(flow, GRID) - field).abs().mean() < .25
    assert (found.mean - torch.tensor(moved) / GRID.temporal).norm() < .15 and found.each.shape == (8, 2)
    raw = map_displacement(maps, flow, GRID, share=9 / 48, camera=False)
    here = field[:, 1:4, 2:5].mean((0, 1, 2))
    assert (raw.mean - (torch.tensor(moved) + here) / GRID.temporal).norm() < .1


def test_words_are_told_apart():
    flow = cameras('pan')
    flow[:, 0:2, 0:2] += torch.tensor([8., 0.])
    flow[:, 4:6, 6:8] += torch.tensor([0., 8.])
    maps = torch.zeros(3, *GRID.shape)
    maps[0, :, 0:2, 0:2] = maps[1, :, 4:6, 6:8] = maps[2, :, 2:4, 3:5] = 1
    found = map_displacement(maps, flow, GRID, share=4 / 48)
    assert (found.mean - torch.tensor([[2., 0.], [0., 2.], [0., 0.]])).abs().max() < .1


@pytest.mark.parametrize('ask, says', [
    (lambda: evidence(torch.zeros(9, 6, 7), GRID), r'\(9, 6, 7\), but must'),
    (lambda: evidence(torch.full(GRID.shape, torch.nan), GRID), 'finite'),
    (lambda: evidence(torch.zeros(GRID.shape), GRID, 0), 'share=0'),
    (lambda: motion_span(torch.zeros(2, *GRID.shape), GRID), 'one word'),
    (lambda: motion_span(torch.zeros(GRID.shape), GRID, level=1), 'level=1'),
    (lambda: map_displacement(torch.zeros(GRID.shape), torch.zeros(9, 6, 8, 2), GRID), '9 steps'),
    (lambda: map_displacement(torch.zeros(GRID.shape), torch.zeros(8, 6, 7, 2), GRID), 'steps, rows, cols, 2')])
def test_bad_input(ask, says):
    with pytest.raises(ValueError, match=says):
        ask()
