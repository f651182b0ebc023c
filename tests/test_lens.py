"""The verbs on the bundled model, against the world's truth and the random-weight twin."""
import pytest
import torch

from vidlens.seam.card import card_of, model_of
from vidlens.points.tapvid import PointClip, read_tapvid, write_tapvid
from vidlens.seam.families import tiny
from vidlens.seam.capturing import capture
from vidlens.seam.editing import edit
from vidlens.motion.clips import labelled_clips
from vidlens.motion.one_site import features, moft
from vidlens.points.scoring import best_layer, score, score_generation, world_clips
from vidlens.points.tracking import track
from vidlens.points.matching import match, points_on_grid
from vidlens.core.stats import paired_difference
from vidlens.points.metrics import pck
from vidlens.seam.loading import load
from vidlens.seam.run import generate, renoise, text_of
from vidlens.points.score_tables import ProbeOptions, ScoreProbe
from vidlens.points.long_videos import track_long
from vidlens.points.trackers import stand_still
from vidlens.words.word_maps import imap

SHARES = [f'{kind}_{part}' for kind in ('attention', 'confidence') for part in ('cross', 'self', 'text')]
STATISTICS = ['entropy', 'evenness', 'distance', 'lag', 'sink', 'first']


@pytest.fixture(scope='module')
def clips(pipe):
    return world_clips(pipe, 6, seed=11)


@pytest.fixture(scope='module')
def scores(pipe, clips):
    return score(pipe, clips, steps=[-20, -10], num_inference_steps=30, sample=64)


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
    assert {n: scores.facts[n] for n in ('num_inference_steps', 'seed', 'clips', 'moved', 'threshold')} == dict(num_inference_steps=30, seed=0, clips=6,
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


def test_trained_model_matches_better_than_its_twin(clips, scores):
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
    assert score(pipe, clip, layers=5, steps=-8, moved=0).best('accuracy')['accuracy'].mean > .5


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
        found = score(pipe, clip.video, clip.caption, clip.tracks[owner], clip.visible[owner], layers=0, steps=-10)
    assert float(found.map('accuracy')) == 1 and found.map('accuracy', heads=True).min() == 1


@pytest.fixture(scope='module')
def made(pipe):
    return score_generation(pipe, ['a red circle moves left', 'a blue star moves up'], num_inference_steps=4, steps=[1, -1], seed=5, sample=64)


def test_a_generation_is_scored_in_its_one_pass(pipe, made):
    "All layers, steps and heads, and the video is the one that is made without looking."
    assert made.scores.names == ['accuracy', *SHARES, *STATISTICS] and made.scores.clips == 2
    assert made.scores.steps == [1, 3] and made.scores.layers == list(range(6))
    assert made.scores.values('accuracy', True).shape == (2, 2, 6, 4)
    assert made.scores.facts | dict(num_inference_steps=4, seed=5, clips=2, moved=8., threshold=8.) == made.scores.facts
    with Forwards(pipe) as ran:
        plain = generate(pipe, 'a blue star moves up', 6, 4)
        score_generation(pipe, 'a blue star moves up', num_inference_steps=4, seed=6, layers=2, tracker=stand_still)
    assert ran.n == 2 * 4 and torch.equal(plain.video, made.samples[1].video)
    assert made.tracks[0].xy.shape == (100, 17, 2)


def test_a_generation_is_scored_as_by_a_probe_that_knows_the_truth(pipe, made):
    "With the believed tracks at hand the same seed gives the same table."
    text, points = 'a red circle moves left', points_on_grid(10, 64, 64)
    probe = ScoreProbe(card_of(pipe).grid(pipe, 17, 64, 64), points, made.tracks[0].xy, made.tracks[0].visible,
                       options=ProbeOptions(moved=8., seed=5), valid=~text_of(pipe, text).pad)
    with capture(pipe, 'q k', steps=[1, -1], tokens='all', probe=probe):
        generate(pipe, text, 5, 4)
    again = probe.result()
    for name in again.names:
        assert torch.equal(made.scores.values(name)[:1].nan_to_num(-1), again.values(name).nan_to_num(-1)), name
        assert torch.equal(made.scores.values(name, True)[:1].nan_to_num(-1), again.values(name, True).nan_to_num(-1))


def test_a_generation_is_judged_by_the_tracker_that_is_given(pipe):
    "Points of any frame; where all are said to stay, a point that counts stays."
    ask = [[0, 20., 20.], [9, 40., 31.5]]
    seen = []
    def tracker(video, queries):
        seen.append((video.shape, queries.tolist()))
        return stand_still(video, queries)
    found = score_generation(pipe, 'a red circle moves left', ask, tracker, layers=[0, 3], num_inference_steps=3, moved=0, guidance=1.)
    assert seen == [((17, 64, 64, 3), ask)] and found.scores.map('accuracy').shape == (3, 2)
    with pytest.raises(ValueError, match='moved=0'):
        score_generation(pipe, 'a red circle moves left', ask, stand_still, num_inference_steps=2).scores.best()


def test_track_follows_planted_points(pipe):
    errors, still = [], []
    for clip in world_clips(pipe, 4, seed=21):
        q = clip.queries[clip.owner >= 0]
        found = track(pipe, clip.video, q, clip.caption, step=-10)
        sure = found.error <= 8
        assert torch.equal(found.visible[:, ::4], sure[:, ::4]) and found.visible[:, 0].all()
        truth, seen = clip.tracks[clip.owner >= 0], clip.visible[clip.owner >= 0]
        errors.append((found.xy - truth).norm(dim=-1)[seen].mean())
        still.append((q[:, None, 1:] - truth).norm(dim=-1)[seen].mean())
        assert found.xy.shape == truth.shape
    assert torch.stack(errors).mean() < torch.stack(still).mean(), 'no better than standing still'


def test_track_from_a_tape_of_the_same_forward_is_the_same(pipe, clips):
    clip = clips[0]
    with capture(pipe, 'q k', layers=4) as tape:
        renoise(pipe, clip.video, clip.caption, step=-10, num_inference_steps=30)
    a = track(pipe, clip.video, clip.queries, clip.caption, layer=4, step=-10)
    b = track(pipe, queries=clip.queries, layer=4, tape=tape)
    assert torch.equal(a.xy, b.xy)


def test_a_tape_of_another_model_or_beside_a_video_is_refused(pipe, clips):
    wan = tiny('wan')
    with capture(pipe, 'q k', layers=1) as tape:
        renoise(pipe, clips[0].video, step=-1, num_inference_steps=4)
    with pytest.raises(ValueError, match='a video and a tape: .* leave one out'):
        track(pipe, clips[0].video, layer=1, tape=tape)
    with pytest.raises(ValueError, match='the tape is of CogVideoXTransformer3DModel with 6 layers, but this pipeline has WanTr'):
        track(wan, layer=1, tape=tape)
    with pytest.raises(ValueError, match='with 6 layers, but this pipeline has CogVideoXTransformer3DModel with'):
        track(tiny('cogvideox'), layer=1, tape=tape)
    tape.facts, tape.num_layers = {}, None
    assert track(pipe, layer=1, tape=tape).xy.shape == (36, 17, 2), 'one that does not tell is taken'


def test_clips_of_point_sets_are_scored(pipe, clips, tmp_path):
    "As the same video with its tracks; a clip without words takes the prompt."
    clip = clips[0]
    plain = PointClip('goat', clip.tracks, clip.visible, clip.video)
    write_tapvid([plain], tmp_path / 'set.pkl')
    found = [score(pipe, list(read_tapvid(tmp_path / 'set.pkl', size=64)), steps=-12, layers=3),
             score(pipe, PointClip('goat', clip.tracks, clip.visible, clip.video), steps=-12, layers=3),
             score(pipe, clip.video, '', clip.tracks.tolist(), clip.visible.numpy(), steps=-12, layers=3),
             score(pipe, clip.video, '', clip.tracks.numpy().astype('float64'), clip.visible, steps=-12, layers=3)]
    assert all(abs(float(f.map('accuracy') - found[1].map('accuracy'))) < .05 for f in found)
    assert torch.equal(found[1].map('accuracy'), found[2].map('accuracy'))
    assert torch.equal(score(pipe, plain, clip.caption, steps=-12).map('accuracy'), score(pipe, clip, steps=-12).map('accuracy'))
    hidden = clip.tracks.masked_fill(~clip.visible[..., None], torch.nan)
    assert torch.equal(score(pipe, PointClip('goat', hidden, clip.visible, clip.video), steps=-12, layers=3).map('accuracy'),
                       found[1].map('accuracy'))


def test_all_steps_are_scored(pipe, clips):
    every = score(pipe, clips[0], layers=2, steps='all', num_inference_steps=3)
    assert every.steps == [0, 1, 2] == score(pipe, clips[0], layers=2, steps=slice(None), num_inference_steps=3).steps


def test_verbs_take_clips(pipe, clips):
    a, b = (track(pipe, x, [[0, 8, 8]], layer=2, step=-1, num_inference_steps=4) for x in (clips[0], clips[0].video))
    assert torch.equal(a.xy, b.xy)
    assert imap(pipe, clips[0], 'circle', 'a red circle moves left', step=-1, num_inference_steps=4).maps.shape[0] == 1
    assert moft(pipe, labelled_clips(clips[:4], ['left', 'right'] * 2), layer=1, num_inference_steps=4).channels.width == 128


def test_visibility_is_predicted_unless_it_is_not_wanted(pipe, clips):
    "The way back may miss by a token's side, in px; a wider or no limit hides fewer."
    found = [track(pipe, clips[0].video, layer=0, **how) for how in ({}, {'cycle': 8.}, {'cycle': 64.}, {'cycle': None})]
    assert torch.equal(found[0].visible, found[1].visible) and torch.equal(found[0].xy, found[3].xy)
    shares = [float(f.visible.float().mean()) for f in found]
    assert shares[0] <= shares[2] <= shares[3] == 1


def test_a_clip_of_any_size_and_length_is_tracked_in_its_own_pixels(pipe):
    video = torch.rand(1, 90, 120, 3).expand(25, -1, -1, -1)
    asked = [[0, 60., 45.], [20, 110., 12.5]]
    found = track(pipe, video, asked, layer=4, num_inference_steps=6, step=-1)
    assert found.xy.shape == (2, 25, 2) and torch.allclose(found.xy[1, 20], torch.tensor([110., 12.5]), atol=1e-3)
    want = track_long(pipe, video, asked, 4, -1, 6)
    assert torch.equal(found.xy, want.xy) and torch.equal(found.visible, want.visible)
    assert track(pipe, video[:3], layer=4, num_inference_steps=6, step=-1, cycle=None).visible.all()


@pytest.mark.parametrize('shape', [(17, 60, 64), (16, 64, 64), (21, 64, 64), (17, 128, 128), (1, 50, 50)])
def test_what_one_pass_does_not_take_goes_in_chunks(pipe, shape, monkeypatch):
    asked = []
    monkeypatch.setattr('vidlens.points.tracking.track_long', lambda *a, **k: asked.append(k) or track_long(*a, **k))
    assert track(pipe, torch.rand(*shape, 3), layer=0, num_inference_steps=4, step=-1).xy.shape == (36, shape[0], 2)
    assert asked == [{}], 'with the defaults of track_long'


def test_several_layers_and_steps_share_a_causal_pass(pipe, clips):
    "For one layer and step in a list that is what one pass gives; more are averaged as the tape's are."
    clip, ask = clips[0], clips[0].queries[::5]
    a, b = (track(pipe, clip.video, ask, clip.caption, layer=n, step=-10) for n in (4, [4]))
    assert torch.allclose(a.xy, b.xy) and torch.equal(a.visible, b.visible)
    found = track(pipe, clip.video, ask, clip.caption, layer=[3, 4], step=[-12, -8])
    with capture(pipe, 'q k', layers=[3, 4]) as tape:
        for step in (-12, -8):
            renoise(pipe, clip.video, clip.caption, step=step, num_inference_steps=30)
    again = track(pipe, queries=ask, layer=[3, 4], step=[-12, -8], tape=tape)
    assert torch.allclose(found.xy, again.xy) and not torch.equal(found.xy, a.xy)


def test_tape_of_a_generation_serves_all_methods(pipe):
    with capture(pipe, 'q k o', steps=-5) as tape:
        generate(pipe, 'a red circle moves left', num_inference_steps=10)
    assert track(pipe, layer=4, tape=tape).xy.shape == (36, 17, 2)
    assert imap(pipe, words='circle', prompt='a red circle moves left', tape=tape).maps.shape == (1, 5, 8, 8)


def test_all_channels_of_a_middle_layer_tell_pans_apart(pipe):
    "Above chance with its interval; the chosen channels come with their control."
    found = moft(pipe, n=24, layer=4)
    assert found.probe_all.removed.interval[0] > found.probe_all.chance
    assert 0 <= found.random_accuracy <= 1 and found.probe is not None
    assert sorted(set(found.labels)) == ['pan down', 'pan left', 'pan right', 'pan up']
    assert all(found.labels.count(v) == 6 for v in set(found.labels))
    assert found.curves.shape == (24, 5, len(found.channels)) and found.channels.width == 128
    assert found.curves.mean(1).abs().max() < 1e-4, 'content is gone'


def test_moft_looks_at_the_published_block_of_a_unet():
    "Up block 1, on its own grid, by itself or by name; two thirds into a transformer."
    unet = tiny('animatediff')
    up = card_of(unet).layer(unet.unet, 'up_blocks.1')
    teach, labels = [torch.rand(9, 32, 32, 3, generator=torch.Generator().manual_seed(i)) for i in range(4)], ['left', 'right'] * 2
    found = [moft(unet, labelled_clips(teach, labels), step=1, num_inference_steps=4, **how) for how in (dict(), dict(layer='up_blocks.1'), dict(layer=up))]
    assert {f.layer for f in found} == {up} and found[0].channels.width == unet.unet.up_blocks[1].resnets[-1].out_channels
    assert all(torch.equal(f.curves, found[0].curves) for f in found) and found[0].curves.shape == (4, 9, 8)
    seen = []
    handle = unet.unet.up_blocks[1].register_forward_hook(lambda m, a, out: seen.append(out.movedim(1, -1)))
    renoise(unet, teach[0], step=1, num_inference_steps=4, full=True)
    handle.remove()
    means = (seen[0] - seen[0].mean(0)).mean((1, 2))
    assert torch.allclose(means[:, found[0].channels.index], found[0].curves[0], atol=1e-5)
    assert moft(tiny('wan'), labelled_clips(teach, labels), step=1, num_inference_steps=4).layer == 2
    with pytest.raises(ValueError, match='shows tq tk tv to, not hidden'):
        moft(unet, labelled_clips(teach, labels), layer=1)


def test_features_are_those_of_the_block(pipe, clips):
    x = features(pipe, clips[0].video, layer=1)
    with capture(pipe, 'hidden', layers=[1, 2]) as tape:
        renoise(pipe, clips[0].video, step=-12, num_inference_steps=30)
    assert torch.equal(x.flatten(0, 2), tape.get('hidden', 1)[0])


def test_best_layer_is_measured_once(pipe, monkeypatch):
    calls = []
    monkeypatch.setattr('vidlens.points.scoring.score', lambda *a, **k: calls.append(1) or score(*a, **k))
    first = best_layer(pipe, -12)
    assert best_layer(pipe, -12) == first and first in range(6) and len(calls) <= 1


def test_default_layer_is_measured_at_the_size_of_the_video():
    "Wan's own default size would be 81 frames of 480x832."
    assert track(tiny('wan'), torch.rand(9, 32, 32, 3), [[0, 8, 8]], step=-1, num_inference_steps=4).xy.shape == (1, 9, 2)


def test_a_tape_knows_its_prompts(pipe):
    with capture(pipe, 'q k o', layers=4, steps=-1) as tape:
        generate(pipe, ['a red circle moves left', 'a blue star moves up'], num_inference_steps=3)
    assert imap(pipe, words='star', tape=tape, item=1).facts['prompt'] == 'a blue star moves up'
    with pytest.raises(ValueError, match="made with 'a red circle moves left'"):
        imap(pipe, words='star', prompt='a blue star moves up', tape=tape)
    assert track(pipe, tape=tape, item=1).xy.shape == (36, 17, 2)  # the only layer of the tape


def test_step_chooses_where_a_tape_holds_several(pipe):
    with capture(pipe, 'q k', steps=[1, 2]) as tape:
        generate(pipe, 'a red circle moves left', num_inference_steps=3)
    a, b = (track(pipe, tape=tape, layer=4, step=s) for s in (1, 2))
    assert not torch.equal(a.xy, b.xy)
    with pytest.raises(ValueError, match=r'holds layers \[0, 1, 2, 3, 4, 5\]'):
        track(pipe, tape=tape)
    both = track(pipe, tape=tape, layer=4, step=[1, 2])
    assert both.xy.shape == a.xy.shape
    with capture(pipe, 'q k', steps=1) as one:
        generate(pipe, 'a red circle moves left', num_inference_steps=3)
    with pytest.raises(ValueError, match=r'the tape holds steps \[1\]'):
        track(pipe, tape=one, layer=4, step=[1, 2])


@pytest.mark.parametrize('family', ['cogvideox', 'wan', 'hunyuanvideo'])
def test_every_verb_runs_on_every_family(family):
    pipe = tiny(family)
    video = torch.rand(9, 32, 32, 3)
    tracks = torch.full((3, 9, 2), 12.)
    found = score(pipe, video, 'a cat runs', tracks, steps=-2, num_inference_steps=4, sample=8)
    assert found.map('accuracy').shape == (1, len(found.layers)) and found.map('sink').max() <= 1
    assert bool((found.map('attention_text') > 0).all()) == (family != 'wan')
    made = score_generation(pipe, 'a cat runs', num_inference_steps=2, frames=9, size=(32, 32), moved=0, tracker=stand_still)
    assert made.scores.map('accuracy').shape == (2, len(found.layers)) and not made.scores.map('accuracy').isnan().any()
    total = sum(made.scores.map(f'attention_{n}', True) for n in ('cross', 'self', 'text'))
    assert torch.allclose(total, torch.ones_like(total), atol=1e-4)
    assert track(pipe, video, [[0, 8, 8]], 'a cat runs', layer=1, step=-1, num_inference_steps=4).xy.shape == (1, 9, 2)
    assert imap(pipe, video, 'cat', 'a cat runs', step=-1, num_inference_steps=4).maps.shape[0] == 1
    teach = [torch.rand(9, 32, 32, 3) for _ in range(4)]
    assert moft(pipe, labelled_clips(teach, ['left', 'right', 'left', 'right']), layer=1, step=-1, num_inference_steps=4).channels.width > 0


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
    (lambda p: score(p, torch.rand(17, 64, 64, 3), tracks='abc'), 'tracks is a str that makes no tensor'),
    (lambda p: score(p, torch.rand(17, 64, 64, 3), tracks=[[1], [1, 2]]), 'tracks is a list that makes no tensor'),
    (lambda p: score(p, torch.rand(17, 64, 64, 3), tracks=[1., 2.]), r'tracks have shape \(2,\)'),
    (lambda p: score(p, world_clips(p, 1), 'a blue star moves up'), 'a clip has its own caption'),
    (lambda p: score(p, world_clips(p, 1), tracks=torch.zeros(3, 17, 2)), 'leave tracks out'),
    (lambda p: score(p, world_clips(p, 1)[0], visible=torch.ones(3, 17)), 'leave visible out'),
    (lambda p: score(p, PointClip('a', torch.zeros(1, 17, 2), torch.ones(1, 17).bool(), size=(64, 64))), 'has no video'),
    (lambda p: score(p, world_clips(p, 1), steps='most'), "steps='most' is neither"),
    (lambda p: score(p, world_clips(p, 1), steps=40), 'outside a run of 30 steps'),
    (lambda p: score(p, world_clips(p, 1), layers=9), '0 to 5'),
    (lambda p: moft(p, labelled_clips([torch.rand(17, 64, 64, 3)] * 2, ['left'])), '2 clips and 1 labels'),
    (lambda p: track(p, torch.rand(17, 60, 64, 3), layer=1, per_head=True), r'fit_video\(pipe, video\)'),
    (lambda p: track(p, torch.rand(17, 64, 64, 3), layer=[]), 'layers is empty'),
    (lambda p: track(p, torch.rand(17, 64, 64, 3), layer=1, step=[]), 'steps is empty'),
    (lambda p: score(p, world_clips(p, 1), sample=-1), 'sample=-1 must be'),
    (lambda p: score(p, world_clips(p, 1), moved=-1), 'moved=-1.0 must be'),
    (lambda p: score_generation(p, []), 'a video for each prompt'),
    (lambda p: score_generation(p, 'a red circle', num_videos_per_prompt=2), r"\['a red circle moves left'\] \* 3"),
    (lambda p: score_generation(p, 'a dragon'), 'dragon'),
    (lambda p: score_generation(p, 'a red circle', threshold=0), 'above 0'),
    (lambda p: score_generation(p, 'a red circle', [[0, 99., 5.]]), '99'),
    (lambda p: score_generation(p, 'a red circle', size=(60, 64)), 'use 56 or 64'),
    (lambda p: score_generation(p, 'a red circle', steps=9, num_inference_steps=4), 'outside this run'),
    (lambda p: score_generation(p, 'a red circle', layers=7), '0 to 5'),
    (lambda p: track(p, torch.rand(17, 64, 64, 3), [[0, 99, 5]], layer=1), '99'),
])
def test_bad_input_names_the_fix(pipe, call, says):
    with pytest.raises((ValueError, TypeError), match=says):
        call(pipe)
