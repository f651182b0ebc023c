"""`score` on the bundled model: against the world's truth, against the untrained model, and while a video is generated."""
from types import SimpleNamespace

import pytest
import torch

from vidlens.core.stats import paired_difference
from vidlens.points.score_tables import ProbeOptions, ScoreProbe
from vidlens.points.matching import match, points_on_grid
from vidlens.points.metrics import pck
from vidlens.points.scoring import Scoring, best_layer, score, world_clips
from vidlens.points.tapvid import PointClip, read_tapvid, write_tapvid
from vidlens.points.trackers import stand_still
from vidlens.seam.card import card_of, model_of
from vidlens.seam.capturing import capture
from vidlens.seam.editing import edit
from vidlens.seam.families import tiny
from vidlens.seam.loading import load
from vidlens.seam.run import generate, renoise, text_of
from vidlens.seam.traces import trace

SHARES = [f'{kind}_{part}' for kind in ('attention', 'confidence') for part in ('cross', 'self', 'text')]
STATISTICS = ['entropy', 'evenness', 'distance', 'lag', 'sink', 'first']


@pytest.fixture(scope='module')
def clips(pipe):
    return world_clips(pipe, 6, seed=11)


@pytest.fixture(scope='module')
def scores(pipe, clips):
    return score(pipe, clips, steps=[-20, -10], scoring=Scoring(sample=64))


class Forwards:
    "Counts calls of a pipeline's denoiser."

    def __init__(self, pipe):
        self.n, self.model = 0, model_of(pipe)

    def __enter__(self):
        self.hook = self.model.register_forward_pre_hook(lambda *_: setattr(self, 'n', self.n + 1))
        return self

    def __exit__(self, *_):
        self.hook.remove()


def test_score_is_labelled_and_bounded(scores):
    assert scores.names == ['accuracy', *SHARES, *STATISTICS]
    assert scores.steps == [10, 20] and scores.sigmas[0] > scores.sigmas[1] and scores.layers == list(range(6))
    for name in scores.names:
        x, each = scores.values(name), scores.values(name, True)
        assert x.shape == (6, 2, 6) and each.shape == (6, 2, 6, 4), name
        assert not x.isnan().any() and x.min() >= 0, name
        if name not in ('entropy', 'distance', 'lag'):
            assert max(x.max(), each.max()) <= 1 + 1e-5, name
    assert scores.map('entropy').max() < 6 and scores.map('lag').max() <= 4 and scores.map('distance').max() < 10
    assert len(scores.to_dataframe()) == 2 * 6 * 5 and scores.clips == 6
    assert {n: scores.facts[n] for n in ('num_inference_steps', 'seed', 'clips', 'moved',
                                         'threshold')} == dict(num_inference_steps=30, seed=0, clips=6,
                                                                                               moved=8., threshold=8.)


def test_shares_of_attention_are_all_of_it(scores):
    "Padding gets nothing, so own frame, other frames and words make one."
    total = sum(scores.map(f'attention_{n}', heads=True) for n in ('cross', 'self', 'text'))
    assert torch.allclose(total, torch.ones(2, 6, 4), atol=1e-4) and scores.map('attention_text').min() > 0


def test_best_is_the_largest_entry_and_lies_in_its_interval(scores):
    best = scores.best('accuracy')
    assert best['accuracy'].mean == pytest.approx(float(scores.map('accuracy').max()), abs=1e-5)
    assert best['accuracy'].lo <= best['accuracy'].mean <= best['accuracy'].hi
    assert scores.best('accuracy', heads=True).head in range(4)
    for over in ('clips', 'points', 'both'):
        i = scores.interval('accuracy', best.step, best.layer, over=over)
        assert i.lo <= i.mean <= i.hi
    assert scores.best().layer in range(6) and scores.best('harmonic').layer in range(6)


def test_accuracy_is_the_pck_of_matching(pipe, clips, scores):
    "The table holds what `match` gives on the tape of the same forward."
    clip, times = clips[0], torch.arange(5) * 4
    with capture(pipe, 'q k', layers=3) as tape:
        renoise(pipe, clip.video, clip.caption, step=20, num_inference_steps=30)
    first = clip.visible[:, 0]
    truth, seen = clip.tracks[first][:, times], clip.visible[first][:, times]
    far = ((truth - truth[:, :1]).norm(dim=-1) >= 8) & (times > 0)
    asked = torch.cat([torch.zeros(len(truth), 1), truth[:, 0]], 1)
    found = match(*(tape.get(n, 3)[0] for n in 'qk'), tape.grid, asked)
    assert float(scores.values('accuracy')[0, 1, 3]) == pytest.approx(float(pck(found.xy, truth, seen, 8., far)))


def test_one_forward_for_each_clip_and_step(pipe, clips):
    with Forwards(pipe) as ran:
        found = score(pipe, clips[:2], steps=[3, 9, -27], num_inference_steps=30)   # -27 is 3 again
    assert ran.n == 4 and found.steps == [3, 9] and len(found.layers) == 6


def test_statistics_of_heads_come_if_asked_for(pipe, clips):
    found = score(pipe, clips[0], layers=[4])
    assert found.names == ['accuracy', *SHARES] and found.layers == [4]


def test_trained_model_matches_better_than_untrained(clips, scores):
    "Paired over clips, best layer of each: the interval lies above 0."
    other = score(load(untrained=True), clips, steps=[-20, -10], num_inference_steps=30)
    best = [s.best('accuracy') for s in (scores, other)]
    a, b = (s.values('accuracy')[:, s.steps.index(at.step), s.layers.index(at.layer)]
            for s, at in zip((scores, other), best))
    assert paired_difference(a, b).lo > 0


def test_points_that_stay_do_not_count_unless_asked(pipe):
    "A clip that stands still scores nothing by default, and everything that looks at the same place with moved=0."
    clip = world_clips(pipe, 1, seed=3, motions='still')[0]
    still = score(pipe, clip, layers=5, steps=-8)
    for by in ('rank', 'harmonic', 'accuracy'):
        with pytest.raises(ValueError, match='value of accuracy.*moved=0'):
            still.best(by, scores=['accuracy', 'attention_cross'])
    assert score(pipe, clip, layers=5, steps=-8, scoring=Scoring(moved=0)).best('accuracy')['accuracy'].mean > .5


def test_perfect_features_score_one(pipe):
    "Queries and keys that move as the object does score one: the scorer itself loses nothing."
    clip = world_clips(pipe, 1, seed=3)[0]
    owner = clip.owner >= 0
    way = clip.tracks[owner][0]
    tokens = ((way - way[0]) / 8).round().long()[::4]   # whole tokens by which it has moved, in each token frame
    field = torch.randn(4, 8, 8, 32, generator=torch.Generator().manual_seed(0)) * 9
    moved = torch.stack([field.roll((int(y), int(x)), (1, 2)) for x, y in tokens], 1).flatten(1, 3)

    def plant(site, q, k):
        q, k = q.clone(), k.clone()
        q[..., site.video, :], k[..., site.video, :] = moved, moved
        return q, k

    with edit(pipe, 'q k', plant, layers=0):
        found = score(pipe, PointClip('planted', clip.tracks[owner], clip.visible[owner], clip.video, prompt=clip.caption),
                      layers=0, steps=-10)
    assert float(found.map('accuracy')) == 1 and found.map('accuracy', heads=True).min() == 1


def generations(pipe, prompts, seed=0, num_inference_steps=30, **generation):
    "Traces of videos that are to be generated; video i has seed + i."
    return [trace(pipe, prompt=p, seed=seed + i, num_inference_steps=num_inference_steps, generation=generation)
            for i, p in enumerate(prompts)]


@pytest.fixture(scope='module')
def made(pipe):
    traces = generations(pipe, ['a red circle moves left', 'a blue star moves up'], 5, 4)
    return score(traces, steps=[1, -1], scoring=Scoring(sample=64, seed=5)), traces


def test_a_generation_is_scored_in_its_one_pass(pipe, made):
    "All layers, steps and heads, and the video is the one that is made without observation."
    scores, traces = made
    assert scores.names == ['accuracy', *SHARES, *STATISTICS] and scores.clips == 2
    assert scores.steps == [1, 3] and scores.layers == list(range(6))
    assert scores.values('accuracy', True).shape == (2, 2, 6, 4)
    assert scores.facts | dict(num_inference_steps=4, seed=5, clips=2, moved=8., threshold=8.) == scores.facts
    with Forwards(pipe) as ran:
        plain = generate(pipe, 'a blue star moves up', 6, 4)
        score(pipe, prompt='a blue star moves up', num_inference_steps=4, steps=None, layers=2, scoring=Scoring(seed=6,
                tracker=stand_still))
    assert ran.n == 2 * 4 and torch.equal(plain.video, traces[1].video)
    assert traces[0].believed.xy.shape == (100, 17, 2)


def test_a_generation_is_scored_as_by_a_probe_that_knows_the_truth(pipe, made):
    "With the tracks of the tracker at hand the same seed gives the same table."
    (scores, traces), text, points = made, 'a red circle moves left', points_on_grid(10, 64, 64)
    believed = traces[0].believed
    probe = ScoreProbe(card_of(pipe).grid(pipe, 17, 64, 64), points, believed.xy, believed.visible, valid=~text_of(pipe, text).pad,
                       options=ProbeOptions(moved=8., seed=5))
    with capture(pipe, 'q k', steps=[1, -1], tokens='all', probe=probe):
        generate(pipe, text, 5, 4)
    again = probe.result()
    for name in again.names:
        assert torch.equal(scores.values(name)[:1].nan_to_num(-1), again.values(name).nan_to_num(-1)), name
        assert torch.equal(scores.values(name, True)[:1].nan_to_num(-1), again.values(name, True).nan_to_num(-1))


def test_a_generation_is_judged_by_the_tracker_that_is_given(pipe):
    "Points of any frame; where all are said to stay, a point that counts stays."
    ask = [[0, 20., 20.], [9, 40., 31.5]]
    seen = []
    def tracker(video, queries):
        seen.append((video.shape, queries.tolist()))
        return stand_still(video, queries)
    one = generations(pipe, ['a red circle moves left'], 0, 3, guidance=1.)
    found = score(one, layers=[0, 3], steps=None, scoring=Scoring(moved=0, queries=ask, tracker=tracker))
    assert seen == [((17, 64, 64, 3), ask)] and found.map('accuracy').shape == (3, 2)
    with pytest.raises(ValueError, match='moved=0'):
        score(pipe, prompt='a red circle moves left', num_inference_steps=2, steps=None,
              scoring=Scoring(queries=ask, tracker=stand_still)).best()


def test_a_kept_trace_scores_as_the_clip(pipe, clips):
    "From what is kept, or passing by: the same table; and again without a forward."
    want = score(pipe, clips[0], steps=[5, -10], scoring=Scoring(sample=8))
    with trace(pipe, clips[0]) as t:
        got = score(t, steps=[5, -10], scoring=Scoring(sample=8))
        with Forwards(pipe) as ran:
            again = score(t, steps=[5, -10], scoring=Scoring(sample=8))
    assert ran.n == 0 and got.facts == want.facts
    for name in want.names:
        assert torch.equal(got.values(name, True).nan_to_num(-1), want.values(name, True).nan_to_num(-1)), name
        assert torch.equal(again.values(name).nan_to_num(-1), want.values(name).nan_to_num(-1)), name


def test_points_without_truth_have_confidence_alone(pipe, clips):
    found = score(pipe, clips[0].video, layers=3, scoring=Scoring(queries=clips[0].queries))
    assert 'accuracy' not in found.names and 0 < found.map('confidence_cross') <= 1
    with pytest.raises(ValueError, match=r'no tracks are known .* Scoring\(tracker=lucas_kanade\)'):
        score(pipe, clips[0].video)


def test_the_best_site_is_handed_on(pipe, clips, scores):
    best = scores.best('accuracy')
    again = score(pipe, clips, site=best, scoring=Scoring(sample=64))
    assert (again.layers, again.steps) == ([best.layer], [best.step]) and best.num_inference_steps == 30
    assert float(again.map('accuracy')) == pytest.approx(best['accuracy'].mean, abs=1e-5)
    for wrong in (dict(layers=2), dict(steps=4)):
        with pytest.raises(ValueError, match='site says which layer and step'):
            score(pipe, clips, site=best, **wrong)
    with pytest.raises(TypeError, match='must be a BestSite'):
        score(pipe, clips, site=3)


def test_clips_of_point_sets_are_scored(pipe, clips, tmp_path):
    "As the same video with its tracks; a clip without words takes the prompt."
    clip = clips[0]
    plain = PointClip('goat', clip.tracks, clip.visible, clip.video)
    write_tapvid([plain], tmp_path / 'set.pkl')
    found = [score(pipe, list(read_tapvid(tmp_path / 'set.pkl', size=64)), steps=-12, layers=3),
             score(pipe, PointClip('goat', clip.tracks, clip.visible, clip.video), steps=-12, layers=3),
             score(pipe, SimpleNamespace(video=clip.video, tracks=clip.tracks.tolist(), visible=clip.visible.numpy()),
                   steps=-12, layers=3),
             score(pipe, SimpleNamespace(video=clip.video, tracks=clip.tracks.numpy().astype('float64'),
                                         visible=clip.visible), steps=-12,
                   layers=3)]
    assert all(abs(float(f.map('accuracy') - found[1].map('accuracy'))) < .05 for f in found)
    assert torch.equal(found[1].map('accuracy'), found[2].map('accuracy'))
    assert torch.equal(score(pipe, plain, clip.caption, steps=-12).map('accuracy'), score(pipe, clip, steps=-12).map('accuracy'))
    hidden = clip.tracks.masked_fill(~clip.visible[..., None], torch.nan)
    assert torch.equal(score(pipe, PointClip('goat', hidden, clip.visible, clip.video), steps=-12, layers=3).map('accuracy'),
                       found[1].map('accuracy'))


def test_all_steps_are_scored(pipe, clips):
    every = score(pipe, clips[0], layers=2, steps='all', num_inference_steps=3)
    assert every.steps == [0, 1, 2] == score(pipe, clips[0], layers=2, steps=slice(None), num_inference_steps=3).steps


def test_best_layer_is_measured_once(pipe, monkeypatch):
    calls = []
    monkeypatch.setattr('vidlens.points.scoring.score', lambda *a, **k: calls.append(1) or score(*a, **k))
    first = best_layer(pipe, -12)
    assert best_layer(pipe, -12) == first and first in range(6) and len(calls) <= 1


@pytest.mark.parametrize('family', ['cogvideox', 'wan', 'hunyuanvideo'])
def test_score_runs_on_every_family(family):
    pipe, clip = tiny(family), SimpleNamespace(video=torch.rand(9, 32, 32, 3), caption='a cat runs', tracks=torch.full((3, 9,
                                                                                                                        2), 12.))
    found = score(pipe, clip, steps=-2, num_inference_steps=4, scoring=Scoring(sample=8))
    assert found.map('accuracy').shape == (1, len(found.layers)) and found.map('sink').max() <= 1
    assert bool((found.map('attention_text') > 0).all()) == (family != 'wan')
    made = score(generations(pipe, ['a cat runs'], 0, 2, frames=9, size=(32, 32)), steps=None,
                 scoring=Scoring(moved=0, tracker=stand_still))
    assert made.map('accuracy').shape == (2, len(found.layers)) and not made.map('accuracy').isnan().any()
    total = sum(made.map(f'attention_{n}', True) for n in ('cross', 'self', 'text'))
    assert torch.allclose(total, torch.ones_like(total), atol=1e-4)


def with_tracks(tracks, visible=None):
    return SimpleNamespace(video=torch.rand(17, 64, 64, 3), tracks=tracks, visible=visible)


@pytest.mark.parametrize('call, says', [
    (lambda p: score(p, SimpleNamespace(**vars(with_tracks(torch.zeros(3, 17, 2))), caption=''), 'a dragon'), 'dragon'),
    (lambda p: score(p, with_tracks(torch.zeros(3, 17, 2), torch.ones(2, 17))), 'visible has shape'),
    (lambda p: score(p, world_clips(p, 1), steps=[]), 'steps=.*no number at all'),
    (lambda p: score(p, world_clips(p, 1), scoring=Scoring(threshold=0)), 'above 0'),
    (lambda p: score(p, torch.rand(17, 64, 64, 3)), 'no tracks are known'),
    (lambda p: score(p, with_tracks(torch.zeros(3, 9, 2))), r'must be \(points, 17 frames, 2\)'),
    (lambda p: score(p, []), 'a list of such clips'),
    (lambda p: score([]), 'no trace to score'),
    (lambda p: score(p, with_tracks('abc')), 'tracks is a str that makes no tensor'),
    (lambda p: score(p, with_tracks([[1], [1, 2]])), 'tracks is a list that makes no tensor'),
    (lambda p: score(p, with_tracks([1., 2.])), r'tracks have shape \(2,\)'),
    (lambda p: score(p, world_clips(p, 1), 'a blue star moves up'), 'a clip has its own caption'),
    (lambda p: score(trace(p, prompt='a red circle'), world_clips(p, 1)), 'leave clips and prompt out'),
    (lambda p: score(p, PointClip('a', torch.zeros(1, 17, 2), torch.ones(1, 17).bool(), size=(64, 64))), 'has no video'),
    (lambda p: score(p, world_clips(p, 1), steps='most'), "steps='most' is neither"),
    (lambda p: score(p, world_clips(p, 1), steps=40), 'outside this run.*30 steps'),
    (lambda p: score(p, world_clips(p, 1), layers=9), '0 to 5'),
    (lambda p: score(p, world_clips(p, 1), scoring=Scoring(sample=-1)), 'sample=-1 must be'),
    (lambda p: score(p, world_clips(p, 1), scoring=Scoring(moved=-1)), 'moved=-1 must be'),
    (lambda p: score(p), "give prompt='a red circle moves left'"),
    (lambda p: score(generations(p, ['a red circle'], num_videos_per_prompt=2)), 'leave num_videos_per_prompt out'),
    (lambda p: score(p, prompt='a dragon'), 'dragon'),
    (lambda p: score(p, prompt='a red circle', scoring=Scoring(queries=[[0, 99., 5.]])), '99'),
    (lambda p: score(generations(p, ['a red circle'], size=(60, 64))), 'use 56 or 64'),
    (lambda p: score(p, prompt='a red circle', steps=9, num_inference_steps=4), 'outside this run'),
    (lambda p: score(p, prompt='a red circle', layers=7), '0 to 5'),
])
def test_bad_input_names_the_fix(pipe, call, says):
    with pytest.raises((ValueError, TypeError), match=says):
        call(pipe)
