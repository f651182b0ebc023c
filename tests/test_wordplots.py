"""Pictures and files of words: in the frames of the file, of one run, and none of what does not fit."""
import csv

import pytest
import torch

from vidlens.core.grid import Grid
from vidlens.core.video import VideoFacts, probe_video, read_video
from vidlens.words.pictures import WORD_FILES, Origin, map_rows, baselines_figure, span_figure, write_words
from vidlens.words.word_maps import ConceptMaps

GRID, VIDEO = Grid(5, 8, 8, 8, 4), torch.rand(17, 64, 64, 3, generator=torch.Generator().manual_seed(0))
LONG = VideoFacts(97, 64, 64, 24., 97 / 24, 'h264', 'yuv420p')      # the clip has every sixth frame


def planted(baselines=False):
    "A word that is there in token frames 2 and 3, RGB frames 5 to 12."
    x = torch.zeros(1, *GRID.shape)
    x[0, 2:4, 1, 1] = 1.
    return ConceptMaps(['red'], x, GRID, {}, torch.zeros(1, 1), baselines=dict(centre=x) if baselines else {})


def test_pictures_name_the_frames_of_the_file():
    maps, origin = planted(baselines=True), Origin.of(LONG, VIDEO)
    ax = span_figure(maps, origin=origin).axes[0]
    assert ax.get_title('left') == 'red: 30 to 72' and ax.get_xlabel() == 'frame of the file'
    assert ax.lines[0].get_xdata().tolist() == pytest.approx((6 * GRID.times()).tolist())
    shaded = ax.patches[0].get_extents().transformed(ax.transData.inverted())
    assert (shaded.x0, shaded.x1) == pytest.approx((27, 75))
    mine = span_figure(maps).axes[0]
    assert mine.get_title('left') == 'red: 5 to 12' and mine.get_xlabel() == 'RGB frame'
    for draw, what in ((map_rows, ({'red': maps['red']}, GRID)), (baselines_figure, (maps, 'red'))):
        ours, told = ([a.get_title() for a in draw(VIDEO, *what, **how).axes[:5]] for how in ({}, dict(origin=origin)))
        assert ours == [f'frame {int(t)}' for t in GRID.times()] and told == [f'frame {6 * int(t)}' for t in GRID.times()]


def test_table_and_pictures_agree(tmp_path, monkeypatch):
    origin, drawn = Origin.of(LONG, VIDEO), []
    monkeypatch.setattr('vidlens.words.pictures.figure_bytes', lambda f: drawn.append(f) or b'')
    write_words(planted(baselines=True), VIDEO, tmp_path, origin=origin)
    row = next(csv.DictReader((tmp_path / 'words.csv').open()))
    words, spans, baselines = drawn
    assert spans.axes[0].get_title('left') == f"red: {row['start']} to {row['end']}" == 'red: 30 to 72'
    assert words.axes[4].get_title() == baselines.axes[4].get_title() == f'frame {6 * int(GRID.times()[4])}'


def test_an_origin_of_another_clip_is_refused():
    other = Origin.of(LONG, VIDEO[:9])
    maps = planted()
    for draw in (lambda: span_figure(maps, origin=other), lambda: map_rows(VIDEO, {'a': maps['red']}, GRID, origin=other)):
        with pytest.raises(ValueError, match='the origin is of a clip of 9 frames'):
            draw()


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
    assert 'video.mp4' not in {p.name for p in write_words(planted(), VIDEO, tmp_path / 'read', origin=Origin.of(LONG, VIDEO))}
