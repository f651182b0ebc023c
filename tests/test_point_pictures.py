"""Pictures of the room of points: every result has one, and it shows the result's own numbers."""
import pytest
import torch
from planted import rng

from vidlens.core.grid import Grid
from vidlens.core.pictures import show
from vidlens.points.attention import attention_scores, head_statistics
from vidlens.points.matching import Tracks
from vidlens.points.pictures import bars_of, draw
from vidlens.points.score_tables import ProbeOptions, ScoreProbe
from vidlens.points.tapvid import TapVidScores

GRID = Grid(3, 4, 5, stride=16)
Q = torch.randn(3, GRID.n, 8, generator=rng())
VIDEO = torch.rand(9, 64, 80, 3, generator=rng())
QUERIES = torch.tensor([[0, 8., 8.], [0, 40., 24.], [4, 70., 60.]])


def tracks(frames=9):
    xy = torch.rand(3, frames, 2, generator=rng()) * 60
    return Tracks(xy, torch.ones(3, frames).bool(), torch.ones(3, frames), torch.linspace(0, 8, frames))


def results():
    probe = ScoreProbe(GRID, QUERIES, torch.rand(3, 9, 2, generator=rng()) * 60, options=ProbeOptions(sample=8))
    for step in (1, 4):
        for layer in (0, 2):
            probe.add(Q, Q * (1 + step + layer), layer, step, .5)
    scores = TapVidScores(['a', 'b'], torch.rand(2, 8, generator=rng()), [3, 4], 'first', None)
    return dict(tracks=tracks(), table=probe.result(), tapvid=scores, attention=attention_scores(Q, Q, GRID, QUERIES),
                heads=attention_scores(Q, Q, GRID, QUERIES, per_head=True), statistics=head_statistics(Q, Q, GRID))


@pytest.mark.parametrize('name', ['tracks', 'table', 'tapvid', 'attention', 'heads', 'statistics'])
def test_show_draws_every_result(name):
    assert 'data:image' in show(results()[name], kilobytes=400).data


def test_tracks_are_drawn_over_a_video_of_more_frames():
    over = draw(tracks(3), VIDEO)
    assert over.shape[0] == 9 and not torch.equal(over[:, :64, :80], VIDEO)
    heads = Tracks(torch.zeros(2, 3, 9, 2), torch.ones(2, 3, 9).bool(), torch.ones(2, 3, 9), torch.arange(9.))
    with pytest.raises(ValueError, match='tracks of 2 heads'):
        draw(heads)


def test_a_table_has_a_map_for_each_criterion_and_the_heads():
    pictures = draw(results()['table'])
    assert list(pictures) == ['accuracy', 'confidence_cross', 'attention_cross', 'heads']


def test_bars_stand_at_the_values():
    figure = bars_of({'a': .2, 'b': .7})
    assert [line.get_xdata()[0] for line in figure.axes[0].lines if len(line.get_xdata()) == 1][::3] == [.2, .7]


def test_what_has_no_picture_says_so():
    with pytest.raises(TypeError, match='there is no picture of a int'):
        draw(3)
