"""Where words are best read: planted maps, every family, results that last."""
import pytest
import torch

from vidlens import world
from vidlens.core.results import load_result
from vidlens.points.scoring import world_clips
from vidlens.seam.families import tiny
from vidlens.words import grounding
from vidlens.words.grounding import WordScores, phrases, score_words


def planted(steps=3, layers=4, good=((1, 2),)):
    "Maps of one object in which only some sites lie on it; the others lie elsewhere."
    cover = torch.zeros(1, 5, 6, 6)
    cover[..., 1:3, 1:3] = 1
    maps = cover.flip(-1, -2).repeat(steps, layers, 1, 1, 1, 1).clone()
    for step, layer in good:
        maps[step, layer] = cover
    return maps, cover


def test_the_planted_site_is_chosen():
    pairs = [planted(), planted()]
    pointing = grounding._mean_score(grounding._points, pairs)
    assert pointing.shape == (3, 4) and pointing[1, 2] == 1 and pointing.sum() == 1
    assert grounding._choose(pairs, pointing) == ([1], [2], 1)


def test_sites_that_complete_each_other_are_joined():
    "One site finds the object in the first frames, its neighbour in the last."
    maps, cover = planted(good=())
    maps[0, 1], maps[1, 1] = cover, cover
    maps[0, 1, :, 3:], maps[1, 1, :, :3] = 0, 0
    pointing = grounding._mean_score(grounding._points, [(maps, cover)])
    rows, layers, joined = grounding._choose([(maps, cover)], pointing)
    assert (rows, layers, joined) == ([0, 1], [1], 1)


def test_a_dark_peak_does_not_count():
    maps, cover = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)
    cover[..., 1, 1] = 1
    maps[0, :, 1, 1] = torch.tensor([.1, 1])
    assert grounding._points(maps, cover).tolist() == [[0, 1]]


def test_phrases_name_the_objects():
    clip = world.clip('a yellow circle moves down while a blue square stays still', seed=2)
    assert phrases(clip) == ['yellow circle', 'blue square']


@pytest.mark.parametrize('family', ['wan', 'hunyuanvideo', 'animatediff'])   # the tiny CogVideoX reads 16 letters
def test_every_family(family, tmp_path):
    pipe = tiny(family)
    clips = world_clips(pipe, 2, seed=3)
    done = []
    found = score_words(pipe, clips, [0, -1], 4, on_clip=lambda i, n: done.append((i, n)))
    assert found.steps == [0, 3] and done == [(1, 2), (2, 2)]
    assert found.pointing.shape == found.energy.shape == (2, len(found.layers))
    assert set(found.read_layers) <= set(found.layers) and set(found.read_steps) <= {0, 3} and 0 <= found.joined <= 1
    assert found.facts['phrases'] == [p for c in clips for p in phrases(c)] and 'read layers' in repr(found)
    again = load_result(found.save(tmp_path / 'words'))
    assert isinstance(again, WordScores) and torch.equal(again.pointing.nan_to_num(-1), found.pointing.nan_to_num(-1))
    assert again.best('energy').layer in found.layers and len(found.to_dataframe()) == found.pointing.numel()


def test_bad_input():
    pipe = tiny('cogvideox')
    with pytest.raises(ValueError, match='needs clips of the world'):
        score_words(pipe, [])
    with pytest.raises(ValueError, match='step=9 is outside a run of 4'):
        score_words(pipe, world_clips(pipe, 1), [9], 4)
