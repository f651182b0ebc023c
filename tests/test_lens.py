"""The verbs on the bundled model, against the world's truth and the random-weight twin."""
import pytest
import torch

from vidlens import world
from vidlens.hooks import capture
from vidlens.lens import best_layer, features, imap, moft, score, track, world_clips
from vidlens.metrics import paired_difference
from vidlens.run import generate, load, renoise
from vidlens.families import tiny


@pytest.fixture(scope='module')
def pipe():
    pipe = load()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope='module')
def clips(pipe):
    return world_clips(pipe, 6, seed=11)


@pytest.fixture(scope='module')
def scores(pipe, clips):
    return score(pipe, clips, steps=[-20, -10], of=30)


def test_score_is_labelled_and_bounded(scores):
    assert scores.mean.shape == (6, 2, 6) and scores.heads.shape == (6, 2, 6, 4)
    assert 0 <= float(scores.mean.nanmean()) <= 1 and scores.threshold == 8
    assert scores.steps == [10, 20] and scores.sigmas[0] > scores.sigmas[1]
    assert len(scores.table()) == 2 * 6 * 5


def test_best_is_the_largest_entry_and_lies_in_its_interval(scores):
    best = scores.best()
    assert best['accuracy'] == pytest.approx(float(scores.map.max()), abs=1e-5)
    assert best['lo'] <= best['accuracy'] <= best['hi']
    assert scores.best(heads=True)['head'] in range(4)


def test_trained_model_matches_better_than_its_twin(clips, scores):
    "Paired over clips, best layer of each: the interval lies above 0."
    other = score(load(random=True), clips, steps=[-20, -10], of=30)
    a, b = (s.mean[:, s.steps.index(s.best()['step']), s.layers.index(s.best()['layer'])] for s in (scores, other))
    assert paired_difference(a, b).lo > 0


def test_points_that_stay_do_not_count_unless_asked(pipe):
    "A clip that stands still scores nothing by default, and everything that looks at the same place with moved=0."
    clip = world_clips(pipe, 1, seed=3, motions='still')[0]
    with pytest.raises(ValueError, match='moved=0'):
        score(pipe, clip, layers=5, steps=-8).best()
    assert score(pipe, clip, layers=5, steps=-8, moved=0).best()['accuracy'] > .5


def test_perfect_features_score_one(pipe, clips, monkeypatch):
    "A matcher that is always right scores one: the scorer itself loses nothing."
    clip = world_clips(pipe, 1, seed=3)[0]
    times = torch.tensor([0, 4, 8, 12, 16])
    owner = clip.owner >= 0
    truth = clip.tracks[owner][:, times]

    def oracle(q, k, grid, points, per_head=False, **_):
        from vidlens.matching import Tracks

        xy = truth[clip.visible[owner][:, 0]]
        sure = torch.ones(xy.shape[:2])
        return Tracks(xy[None] if per_head else xy, sure.bool(), sure, grid.times())

    monkeypatch.setattr('vidlens.lens.match', oracle)
    found = score(pipe, clip.video, clip.caption, clip.tracks[owner], clip.visible[owner], layers=0, steps=-10)
    assert float(found.mean) == 1


def test_track_follows_planted_points(pipe):
    errors, still = [], []
    for clip in world_clips(pipe, 4, seed=21):
        q = clip.queries[clip.owner >= 0]
        found = track(pipe, clip.video, q, clip.caption, step=-10)
        truth, seen = clip.tracks[clip.owner >= 0], clip.visible[clip.owner >= 0]
        errors.append((found.xy - truth).norm(dim=-1)[seen].mean())
        still.append((q[:, None, 1:] - truth).norm(dim=-1)[seen].mean())
        assert found.xy.shape == truth.shape
    assert torch.stack(errors).mean() < torch.stack(still).mean(), 'no better than standing still'


def test_track_from_a_tape_of_the_same_forward_is_the_same(pipe, clips):
    clip = clips[0]
    with capture(pipe, 'q k', layers=4) as tape:
        renoise(pipe, clip.video, clip.caption, step=-10, steps=30)
    a = track(pipe, clip.video, clip.queries, clip.caption, layer=4, step=-10)
    b = track(pipe, queries=clip.queries, layer=4, tape=tape)
    assert torch.equal(a.xy, b.xy)


def test_tape_of_a_generation_serves_all_methods(pipe):
    with capture(pipe, 'q k o', steps=-5) as tape:
        generate(pipe, 'a red circle moves left', steps=10)
    assert track(pipe, layer=4, tape=tape).xy.shape == (36, 17, 2)
    assert imap(pipe, words='circle', prompt='a red circle moves left', tape=tape).maps.shape == (1, 5, 8, 8)


def test_concept_map_points_at_the_object_more_often_than_a_random_token(pipe):
    "The brightest token of its colour's map lies on the object; that other words' maps do so too is not denied here."
    hits, area = [], []
    for clip in world_clips(pipe, 8, seed=31, shapes=['circle', 'square', 'star', 'triangle']):
        colour = world.parse(clip.caption).things[0].colour
        maps = imap(pipe, clip.video, colour, clip.caption)
        inside = torch.nn.functional.avg_pool2d(clip.masks[0][::4].float()[:, None], 8)[:, 0] > .5
        peak = maps[colour].flatten(1).argmax(1)
        hits.append(inside.flatten(1)[torch.arange(5), peak].float().mean())
        area.append(inside.float().mean())
    assert paired_difference(torch.stack(hits), torch.stack(area)).lo > 0


def test_imap_default_does_not_depend_on_what_else_is_asked(pipe, clips):
    clip = clips[0]
    colour = world.parse(clip.caption).things[0].colour
    alone = imap(pipe, clip.video, colour, clip.caption)
    both = imap(pipe, clip.video, [colour, 'moves'], clip.caption)
    assert torch.allclose(alone[colour], both[colour], atol=1e-6)


def test_all_channels_of_a_middle_layer_tell_pans_apart(pipe):
    "Above chance with its interval; the chosen channels come with their control."
    found = moft(pipe, n=24, layer=4)
    assert found.every.removed.interval[0] > found.every.chance
    assert 0 <= found.random <= 1 and found.probe is not None
    assert sorted(set(found.labels)) == ['pan down', 'pan left', 'pan right', 'pan up']
    assert all(found.labels.count(v) == 6 for v in set(found.labels))
    assert found.curves.shape == (24, 5, len(found.channels)) and found.channels.width == 128
    assert found.curves.mean(1).abs().max() < 1e-4, 'content is gone'


def test_features_are_those_of_the_block(pipe, clips):
    x = features(pipe, clips[0].video, layer=1)
    with capture(pipe, 'hidden', layers=[1, 2]) as tape:
        renoise(pipe, clips[0].video, step=-12, steps=30)
    assert torch.equal(x.flatten(0, 2), tape.get('hidden', 1)[0])


def test_best_layer_is_measured_once(pipe, monkeypatch):
    calls = []
    monkeypatch.setattr('vidlens.lens.score', lambda *a, **k: calls.append(1) or score(*a, **k))
    first = best_layer(pipe, -12)
    assert best_layer(pipe, -12) == first and first in range(6) and len(calls) <= 1


def test_default_layer_is_measured_at_the_size_of_the_video():
    "Wan's own default size would be 81 frames of 480x832."
    assert track(tiny('wan'), torch.rand(9, 32, 32, 3), [[0, 8, 8]], step=-1, of=4).xy.shape == (1, 9, 2)


def test_a_tape_knows_its_prompts(pipe):
    with capture(pipe, 'q k o', layers=4, steps=-1) as tape:
        generate(pipe, ['a red circle moves left', 'a blue star moves up'], steps=3)
    assert imap(pipe, words='star', tape=tape, item=1).facts['prompt'] == 'a blue star moves up'
    with pytest.raises(ValueError, match="made with 'a red circle moves left'"):
        imap(pipe, words='star', prompt='a blue star moves up', tape=tape)
    assert track(pipe, tape=tape, item=1).xy.shape == (36, 17, 2)  # the only layer of the tape


def test_step_chooses_where_a_tape_holds_several(pipe):
    with capture(pipe, 'q k', steps=[1, 2]) as tape:
        generate(pipe, 'a red circle moves left', steps=3)
    a, b = (track(pipe, tape=tape, layer=4, step=s) for s in (1, 2))
    assert not torch.equal(a.xy, b.xy)
    with pytest.raises(ValueError, match=r'holds layers \[0, 1, 2, 3, 4, 5\]'):
        track(pipe, tape=tape)


@pytest.mark.parametrize('family', ['cogvideox', 'wan', 'hunyuanvideo'])
def test_every_verb_runs_on_every_family(family):
    pipe = tiny(family)
    video = torch.rand(9, 32, 32, 3)
    tracks = torch.full((3, 9, 2), 12.)
    found = score(pipe, video, 'a cat runs', tracks, steps=-2, of=4)
    assert found.map.shape == (1, len(found.layers))
    assert track(pipe, video, [[0, 8, 8]], 'a cat runs', layer=1, step=-1, of=4).xy.shape == (1, 9, 2)
    assert imap(pipe, video, 'cat', 'a cat runs', step=-1, of=4).maps.shape[0] == 1
    teach = [torch.rand(9, 32, 32, 3) for _ in range(4)]
    assert moft(pipe, teach, ['left', 'right', 'left', 'right'], layer=1, step=-1, of=4).channels.width > 0


@pytest.mark.parametrize('call, says', [
    (lambda p: track(p), 'track needs a video, or the tape'),
    (lambda p: imap(p, torch.rand(17, 64, 64, 3), 'dog', 'a red circle moves left'), "'dog' is not in the prompt"),
    (lambda p: imap(p, words='red', prompt='a red circle'), 'imap needs a video'),
    (lambda p: imap(p, torch.rand(17, 64, 64, 3)), "give prompt="),
    (lambda p: score(p, torch.rand(17, 64, 64, 3), 'a dragon', torch.zeros(3, 17, 2)), 'dragon'),
    (lambda p: score(p, torch.rand(17, 64, 64, 3), '', torch.zeros(3, 17, 2), torch.ones(2, 17)), 'visible has shape'),
    (lambda p: score(p, world_clips(p, 1), steps=[]), 'steps is empty'),
    (lambda p: score(p, world_clips(p, 1), threshold=0), 'above 0'),
    (lambda p: score(p, torch.rand(17, 64, 64, 3)), 'score needs tracks'),
    (lambda p: score(p, torch.rand(17, 64, 64, 3), tracks=torch.zeros(3, 9, 2)), r'must be \(points, 17 frames, 2\)'),
    (lambda p: score(p, []), 'a list of clips'),
    (lambda p: score(p, world_clips(p, 1), steps=40), 'outside a run of 30 steps'),
    (lambda p: score(p, world_clips(p, 1), layers=9), '0 to 5'),
    (lambda p: moft(p, [torch.rand(17, 64, 64, 3)] * 2, ['left']), '2 clips and 1 labels'),
    (lambda p: track(p, torch.rand(17, 60, 64, 3), layer=1), 'use 56 or 64'),
    (lambda p: track(p, torch.rand(17, 64, 64, 3), [[0, 99, 5]], layer=1), '99'),
])
def test_bad_input_names_the_fix(pipe, call, says):
    with pytest.raises((ValueError, TypeError), match=says):
        call(pipe)
