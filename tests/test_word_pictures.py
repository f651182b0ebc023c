"""Pictures and files of words: in the frames of the file, of one run, and none of what does not fit."""
import csv

import pytest
import torch

from vidlens.core.grid import Grid
from vidlens.core.video import VideoFacts, probe_video, read_video
from vidlens.core.pictures import show
from vidlens.core.stats import Interval
from vidlens.words.heads import HeadTable
from vidlens.words.judging import JudgeScores
from vidlens.words.pictures import (WORD_FILES, baselines_figure, draw, map_rows, origin_of, span_figure, words_figure,
                                    write_words)
from vidlens.words.segmentation import Segmentation, SegmentationTable
from vidlens.words.spans import Origin
from vidlens.words.word_maps import ConceptMaps

GRID, VIDEO = Grid(5, 8, 8, 8, 4), torch.rand(17, 64, 64, 3, generator=torch.Generator().manual_seed(0))
LONG = VideoFacts(97, 64, 64, 24., 97 / 24, 'h264', 'yuv420p')      # the clip has every sixth frame


def planted(baselines=False, origin=None):
    "A word that is there in token frames 2 and 3, RGB frames 5 to 12."
    x = torch.zeros(1, *GRID.shape)
    x[0, 2:4, 1, 1] = 1.
    return ConceptMaps(['red'], x, GRID, {}, torch.zeros(1, 1), dict(origin=origin) if origin else {},
                       dict(centre=x) if baselines else {})


def test_pictures_name_the_frames_of_the_file():
    origin = Origin.of(LONG, VIDEO)
    mine, of_file = planted(baselines=True), planted(baselines=True, origin=origin)
    ax = span_figure(of_file).axes[0]
    assert ax.get_title('left') == 'red: 30 to 72' and ax.get_xlabel() == 'frame of the file'
    assert ax.lines[0].get_xdata().tolist() == pytest.approx((6 * GRID.times()).tolist())
    shaded = ax.patches[0].get_extents().transformed(ax.transData.inverted())
    assert (shaded.x0, shaded.x1) == pytest.approx((27, 75))
    ax = span_figure(mine).axes[0]
    assert ax.get_title('left') == 'red: 5 to 12' and ax.get_xlabel() == 'RGB frame'
    for figure in (lambda m: map_rows(VIDEO, {'red': m['red']}, GRID, origin=origin_of(m)), lambda m: words_figure(m, VIDEO),
                   lambda m: baselines_figure(m, VIDEO, 'red'), words_figure):
        ours, told = ([a.get_title() for a in figure(m).axes[:5]] for m in (mine, of_file))
        assert ours == [f'frame {int(t)}' for t in GRID.times()] and told == [f'frame {6 * int(t)}' for t in GRID.times()]


def test_table_and_pictures_agree(tmp_path, monkeypatch):
    origin, drawn = Origin.of(LONG, VIDEO), []
    monkeypatch.setattr('vidlens.words.pictures.figure_bytes', lambda f: drawn.append(f) or b'')
    write_words(planted(baselines=True, origin=origin), VIDEO, tmp_path)
    row = next(csv.DictReader((tmp_path / 'words.csv').open()))
    words, spans, baselines = drawn
    assert spans.axes[0].get_title('left') == f"red: {row['start']} to {row['end']}" == 'red: 30 to 72'
    assert words.axes[4].get_title() == baselines.axes[4].get_title() == f'frame {6 * int(GRID.times()[4])}'


def test_an_origin_of_another_clip_is_refused():
    maps = planted(origin=Origin.of(LONG, VIDEO[:9]))
    for figure in (span_figure, words_figure, lambda m: write_words(m, VIDEO, 'nowhere'),
                   lambda m: map_rows(VIDEO, {'a': m['red']}, GRID, origin=origin_of(m))):
        with pytest.raises(ValueError, match='the origin is of a clip of 9 frames'):
            figure(maps)


def test_nothing_of_another_run_stays(tmp_path):
    write_words(planted(baselines=True), VIDEO, tmp_path)
    assert (tmp_path / 'baselines.png').is_file()
    files = write_words(planted(), VIDEO, tmp_path, force=True)
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in files} == {*WORD_FILES, 'video.mp4'}


def test_another_runs_baselines_are_not_removed_without_force(tmp_path):
    (tmp_path / 'baselines.png').write_bytes(b'mine')
    with pytest.raises(FileExistsError, match='baselines.png exists'):
        write_words(planted(), VIDEO, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ['baselines.png']


@pytest.mark.parametrize('video, smooth', [(VIDEO[:9], True), (VIDEO[:, :32], True), (VIDEO, 'sharp')])
def test_what_does_not_fit_leaves_nothing(tmp_path, video, smooth):
    with pytest.raises(ValueError):
        write_words(planted(), video, tmp_path / 'out', smooth=smooth)
    assert not (tmp_path / 'out').exists()


def test_a_video_that_is_in_no_file_is_written(tmp_path):
    files = write_words(planted(), VIDEO, tmp_path / 'made', fps=4)
    assert files[-1].name == 'video.mp4' and probe_video(files[-1]).fps == 4 and read_video(files[-1]).shape == VIDEO.shape
    assert 'video.mp4' not in {p.name for p in write_words(planted(origin=Origin.of(LONG, VIDEO)), VIDEO, tmp_path / 'read')}


def test_an_origin_is_kept_in_a_file(tmp_path):
    origin = Origin.of(LONG, VIDEO)
    again = ConceptMaps.load(planted(origin=origin).save(tmp_path / 'maps.safetensors'))
    assert origin_of(again) == origin and origin_of(planted()) is None


ONE = Segmentation(.5, {'wall': .25, 'door': .75}, {8: Interval(.5, .4, .6)})
RESULTS = [HeadTable([3, 9], [.5, .25], [0, 4], dict(chi=torch.rand(2, 2, 2, 3), dbi=torch.rand(2, 2, 2, 3))),
           HeadTable([3], [.5], [4], dict(chi=torch.rand(1, 1, 1, 3))), ONE,
           SegmentationTable(dict(GramCol=ONE, centre=ONE), 2, {}),
           JudgeScores(torch.rand(2, 5), {k: Interval(.5, .4, .6) for k in 'abcde'}, Interval(.5, .4, .6), [], ['x', 'y'])]


@pytest.mark.parametrize('result', [*RESULTS, planted(), planted(baselines=True)], ids=lambda r: type(r).__name__)
def test_show_draws_every_result_of_words(result):
    assert 'src="data:image/' in show(result, kilobytes=200).data


def test_what_is_drawn():
    assert set(draw(RESULTS[0])) == {'chi', 'dbi', 'all'} and set(draw(RESULTS[1])) == {'chi'}
    assert [t.get_text() for t in draw(RESULTS[3]).axes[0].get_yticklabels()] == ['GramCol', 'centre']
    assert [b.get_width() for b in draw(ONE).axes[0].patches] == [.25, .75]
    over = draw(planted(), VIDEO)
    assert over.ndim == 4 and len(over) == 17 and 'image/webp' in show(planted(), over=VIDEO).data
    with pytest.raises(TypeError, match='no picture of a str'):
        draw('maps')
