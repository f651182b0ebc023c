"""`track`: points of a clip, of a tape, of a kept trace; one pass or many; bad input in a sentence."""
import pytest
import torch

from vidlens.core.tables import BestSite
from vidlens.points.long_videos import Chunks, track_long
from vidlens.points.matching import Matching, match_fields
from vidlens.points.scoring import world_clips
from vidlens.points.tracking import point_map, track
from vidlens.seam.capturing import capture
from vidlens.seam.families import tiny
from vidlens.seam.run import generate, renoise
from vidlens.seam.traces import trace
from vidlens.words.word_maps import imap


@pytest.fixture(scope='module')
def clips(pipe):
    return world_clips(pipe, 6, seed=11)


def test_track_follows_planted_points(pipe):
    errors, still = [], []
    for clip in world_clips(pipe, 4, seed=21):
        q = clip.queries[clip.owner >= 0]
        found = track(pipe, clip, q, steps=-10)
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
    a = track(pipe, clip, clip.queries, layers=4, steps=-10)
    b = track(trace(pipe, tape=tape), points=clip.queries, layers=4)
    assert torch.equal(a.xy, b.xy)
    with trace(pipe, clip) as t:
        c = track(t, points=clip.queries, layers=4, steps=-10)
        assert torch.equal(a.xy, c.xy) and torch.equal(a.visible, c.visible) and torch.equal(a.score, c.score)


def test_a_tape_of_another_model_or_beside_a_video_is_refused(pipe, clips):
    wan = tiny('wan')
    with capture(pipe, 'q k', layers=1) as tape:
        renoise(pipe, clips[0].video, step=-1, num_inference_steps=4)
    with pytest.raises(ValueError, match='a video and a tape: .* Leave one out'):
        trace(pipe, clips[0].video, tape=tape)
    with pytest.raises(ValueError, match='a trace has its own video, .* leave video and chunks out'):
        track(trace(pipe, tape=tape), clips[0].video)
    with pytest.raises(ValueError, match='the tape is of CogVideoXTransformer3DModel with 6 layers, but this pipeline has WanTr'):
        trace(wan, tape=tape)
    with pytest.raises(ValueError, match='with 6 layers, but this pipeline has CogVideoXTransformer3DModel with'):
        trace(tiny('cogvideox'), tape=tape)
    tape.facts, tape.num_layers = {}, None
    assert track(trace(pipe, tape=tape), layers=1).xy.shape == (36, 17, 2), 'one that does not tell is taken'


def test_verbs_take_clips(pipe, clips):
    a, b = (track(pipe, x, [[0, 8, 8]], layers=2, steps=-1, num_inference_steps=4) for x in (clips[0], clips[0].video))
    assert a.xy.shape == b.xy.shape == (1, 17, 2)
    assert imap(pipe, clips[0], 'circle', 'a red circle moves left', steps=-1, num_inference_steps=4).maps.shape[0] == 1 \
        if clips[0].caption == 'a red circle moves left' else True


def test_visibility_is_predicted_unless_it_is_not_wanted(pipe, clips):
    "The way back may miss by a token's side; a wider or no limit hides fewer."
    found = [track(pipe, clips[0].video, layers=0, matching=m)
             for m in (None, Matching(cycle=1.), Matching(cycle=8.), Matching(cycle=None))]
    assert torch.equal(found[0].visible, found[1].visible) and torch.equal(found[0].xy, found[3].xy)
    shares = [float(f.visible.float().mean()) for f in found]
    assert shares[0] <= shares[2] <= shares[3] == 1


def test_a_clip_of_any_size_and_length_is_tracked_in_its_own_pixels(pipe):
    video = torch.rand(1, 90, 120, 3).expand(25, -1, -1, -1)
    asked = [[0, 60., 45.], [20, 110., 12.5]]
    found = track(pipe, video, asked, layers=4, num_inference_steps=6, steps=-1)
    assert found.xy.shape == (2, 25, 2) and torch.allclose(found.xy[1, 20], torch.tensor([110., 12.5]), atol=1e-3)
    want = track_long(pipe, video, asked, 4, -1, 6)
    assert torch.equal(found.xy, want.xy) and torch.equal(found.visible, want.visible)
    assert track(pipe, video[:3], layers=4, num_inference_steps=6, steps=-1, matching=Matching(cycle=None)).visible.all()


@pytest.mark.parametrize('shape', [(17, 60, 64), (16, 64, 64), (21, 64, 64), (17, 128, 128), (1, 50, 50)])
def test_what_one_pass_does_not_take_goes_in_chunks(pipe, shape, monkeypatch):
    asked = []
    monkeypatch.setattr('vidlens.points.tracking.track_long', lambda *a, **k: asked.append(k) or track_long(*a, **k))
    assert track(pipe, torch.rand(*shape, 3), layers=0, num_inference_steps=4, steps=-1).xy.shape == (36, shape[0], 2)
    assert asked == [dict(heads=None, matching=Matching(), chunks=None)], 'with the defaults of track_long'


def test_several_layers_and_steps_share_a_causal_pass(pipe, clips):
    "For one layer and step in a list that is what one pass gives; more are averaged as the tape's are."
    clip, ask = clips[0], clips[0].queries[::5]
    a, b = (track(pipe, clip, ask, layers=n, steps=-10) for n in (4, [4]))
    assert torch.equal(a.xy, b.xy) and torch.equal(a.visible, b.visible)
    found = track(pipe, clip, ask, layers=[3, 4], steps=[-12, -8])
    with capture(pipe, 'q k', layers=[3, 4]) as tape:
        for step in (-12, -8):
            renoise(pipe, clip.video, clip.caption, step=step, num_inference_steps=30)
    again = track(trace(pipe, tape=tape), points=ask, layers=[3, 4], steps=[-12, -8])
    assert torch.allclose(found.xy, again.xy) and not torch.equal(found.xy, a.xy)
    long = track(pipe, clip, ask, layers=[3, 4], steps=[-12, -8], chunks=Chunks('causal', prompt=clip.caption))
    assert torch.allclose(found.xy, long.xy, atol=1e-4)


def test_heads_can_be_chosen(pipe, clips):
    clip = clips[0]
    one, same, every = (track(pipe, clip, clip.queries[:4], layers=4, steps=-10, heads=h) for h in ([1], 1, None))
    assert torch.equal(one.xy, same.xy) and not torch.equal(one.xy, every.xy)


def test_the_best_site_is_handed_on(pipe, clips):
    site = BestSite(layer=4, step=20, num_inference_steps=30)
    a, b = track(pipe, clips[0], site=site), track(pipe, clips[0], layers=4, steps=20)
    assert torch.equal(a.xy, b.xy)
    with pytest.raises(ValueError, match='site says which layer and step'):
        track(pipe, clips[0], site=site, layers=2)


def test_tape_of_a_generation_serves_all_methods(pipe):
    with capture(pipe, 'q k o', steps=-5) as tape:
        generate(pipe, 'a red circle moves left', num_inference_steps=10)
    t = trace(pipe, tape=tape)
    assert track(t, layers=4).xy.shape == (36, 17, 2) and imap(t, words='circle').maps.shape == (1, 5, 8, 8)
    with pytest.raises(ValueError, match='this trace is of a tape: its video is not there'):
        t.make()


def test_default_layer_is_measured_at_the_size_of_the_video():
    "Wan's own default size would be 81 frames of 480x832."
    assert track(tiny('wan'), torch.rand(9, 32, 32, 3), [[0, 8, 8]], steps=-1, num_inference_steps=4).xy.shape == (1, 9, 2)


def test_a_tape_knows_its_prompts(pipe):
    with capture(pipe, 'q k o', layers=4, steps=-1) as tape:
        generate(pipe, ['a red circle moves left', 'a blue star moves up'], num_inference_steps=3)
    assert imap(trace(pipe, tape=tape, item=1), words='star').facts['prompt'] == 'a blue star moves up'
    with pytest.raises(ValueError, match="made with 'a red circle moves left'"):
        trace(pipe, prompt='a blue star moves up', tape=tape)
    with pytest.raises(ValueError, match='item=2, but the tape holds 2 videos: use 0 to 1'):
        trace(pipe, tape=tape, item=2)
    assert track(trace(pipe, tape=tape, item=1)).xy.shape == (36, 17, 2)  # the only layer of the tape


def test_steps_choose_where_a_tape_holds_several(pipe):
    with capture(pipe, 'q k', steps=[1, 2]) as tape:
        generate(pipe, 'a red circle moves left', num_inference_steps=3)
    t = trace(pipe, tape=tape)
    a, b, both, every = (track(t, layers=4, steps=s) for s in (1, 2, [1, 2], None))
    assert not torch.equal(a.xy, b.xy) and torch.equal(both.xy, every.xy) and torch.equal(track(t, layers=4).xy, every.xy)
    with pytest.raises(ValueError, match=r'the tape kept steps \[1, 2\] of 3, and not 0'):
        track(t, layers=4, steps=0)


@pytest.mark.parametrize('family', ['cogvideox', 'wan', 'hunyuanvideo'])
def test_points_of_every_family(family):
    pipe, video = tiny(family), torch.rand(9, 32, 32, 3)
    assert track(pipe, video, [[0, 8, 8]], layers=1, steps=-1, num_inference_steps=4).xy.shape == (1, 9, 2)
    assert imap(pipe, video, 'cat', 'a cat runs', steps=-1, num_inference_steps=4).maps.shape[0] == 1
    field = point_map(pipe, video, (0, 8, 8), layer=1, step=-1, num_inference_steps=4)
    with capture(pipe, 'q k', layers=1) as tape:
        renoise(pipe, video, step=-1, num_inference_steps=4)
    assert torch.equal(field, match_fields(*(tape.get(n, 1)[0] for n in 'qk'), tape.grid, [(0, 8, 8)])[0])


@pytest.mark.parametrize('call, says', [
    (lambda p: track(p), 'track needs a video'),
    (lambda p: imap(p, torch.rand(17, 64, 64, 3), 'dog', 'a red circle moves left'), "'dog' is not in the prompt"),
    (lambda p: imap(p, torch.rand(17, 64, 64, 3)), 'give prompt='),
    (lambda p: track(p, torch.rand(17, 64, 64, 3), layers=[]), 'layers=.*no number at all'),
    (lambda p: track(p, torch.rand(17, 64, 64, 3), layers=1, steps=[]), 'steps=.*no number at all'),
    (lambda p: track(p, torch.rand(17, 64, 64, 3), [[0, 99, 5]], layers=1), '99'),
    (lambda p: track(p, torch.rand(17, 64, 64, 3), layers=9), '6 layers'),
])
def test_bad_input_names_the_fix(pipe, call, says):
    with pytest.raises((ValueError, TypeError), match=says):
        call(pipe)
