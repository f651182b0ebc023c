"""The world against geometry that is worked out here, from pixels and by hand, not by the world's own maps."""

import math
import re

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vidlens import world

BARE = {'texture': 0, 'marks': 'gradient'}      # a flat background: every pixel that differs is the object
STEP = {'left': (-1, 0), 'right': (1, 0), 'up': (0, -1), 'down': (0, 1), 'up left': (-.75, -.75),
        'up right': (.75, -.75), 'down left': (-.75, .75), 'down right': (.75, .75)}


def scene(caption, seed=0, **settings):
    return world.from_captions([caption], seed, world.Knobs(**settings))


def object_pixels(video):
    "Where a frame differs from the flat background, whose colour is the first frame's corner."
    return (video - video[0, 0, 0]).abs().amax(-1) > .12


def centroid(weight):
    "Centre of mass of (frames, height, width) in pixels, (frames, 2) as (x, y)."
    w = weight.double()
    y, x = torch.meshgrid(*(torch.arange(n).double() + .5 for n in w.shape[1:]), indexing='ij')
    return torch.stack([(w * x).sum((1, 2)), (w * y).sum((1, 2))], -1) / w.sum((1, 2))[:, None]


def sample_at(frame, x, y):
    "Bilinear look-up in one frame (height, width, channels) at continuous pixels, in numpy."
    frame = np.asarray(frame)
    h, w = frame.shape[:2]
    u, v = np.clip(np.asarray(x) - .5, 0, w - 1), np.clip(np.asarray(y) - .5, 0, h - 1)
    i, j = np.minimum(u.astype(int), max(w - 2, 0)), np.minimum(v.astype(int), max(h - 2, 0))
    a, b = (u - i)[..., None], (v - j)[..., None]
    top, bottom = (frame[r, i] * (1 - a) + frame[r, i + 1] * a for r in (j, j + 1))
    return top * (1 - b) + bottom * b


def erode(mask, times=2):
    "A boolean (height, width) without its rim."
    m = np.asarray(mask).copy()
    for _ in range(times):
        p = np.pad(m, 1)
        m = p[1:-1, 1:-1] & p[:-2, 1:-1] & p[2:, 1:-1] & p[1:-1, :-2] & p[1:-1, 2:]
    return m


# ---- motion

@pytest.mark.parametrize('motion', list(STEP))
@pytest.mark.parametrize('size', [(64, 64), (48, 80), (71, 53)])
def test_centroid_goes_straight(motion, size):
    s = scene(f'a red circle moves {" and ".join(motion.split())}', 3, spread=4, travel=15, radius=8, **BARE)
    video, _ = s.render(9, *size)
    unit = min(size) / 64
    t = torch.arange(9)[:, None] / 8
    start = torch.tensor([size[1] / 2, size[0] / 2]) + unit * s.start[0, 0]
    expected = start + unit * 15 * t * torch.tensor(STEP[motion])
    assert (centroid(object_pixels(video[0])) - expected).abs().max() < .4


@pytest.mark.parametrize('tail, path', [
    ('', lambda t: t), (' slowly', lambda t: .55 * t), (' fast', lambda t: 1.5 * t),
    (' then stops', lambda t: .75 * min(2 * t, 1)),
    (' then turns back', lambda t: .75 * (2 * t if t < .5 else 2 - 2 * t)),
    ('late', lambda t: .75 * max(0, 2 * t - 1)), (' fast then stops', lambda t: 1.5 * .75 * min(2 * t, 1))])
def test_schedule_and_pace(tail, path):
    caption = 'a red circle waits then moves right' if tail == 'late' else f'a red circle moves right{tail}'
    s = scene(caption, 5, spread=2, travel=14, radius=9, **BARE)
    video, _ = s.render(17)
    x = centroid(object_pixels(video[0]))
    expected = torch.tensor([14 * path(f / 16) for f in range(17)])
    assert (x[:, 0] - x[0, 0] - expected).abs().max() < .4 and (x[:, 1] - x[0, 1]).abs().max() < .2
    assert s.moving(17)[0, 0].tolist() == [any(abs(path(min(g + 1, 16) / 16) - path(g / 16)) > 1e-6
                                              for g in (max(f - 1, 0), f)) for f in range(17)]


@pytest.mark.parametrize('verb, power', [('grows', 1), ('shrinks', -1)])
def test_area_follows_growth(verb, power):
    s = scene(f'a green circle {verb}', 1, growth=1.8, radius=10, spread=0, **BARE)
    video, masks = s.render(9, 96, 96)
    area = object_pixels(video[0]).sum((1, 2)).double()
    for f in range(9):
        assert float(area[f] / area[0]) == pytest.approx(1.8 ** (2 * power * f / 8), rel=.06)
    assert float(area[4]) == pytest.approx(math.pi * (10 * 1.5) ** 2, rel=.06)
    assert masks[0, 0].sum((1, 2)).double() == pytest.approx(area.numpy(), rel=.08)


@pytest.mark.parametrize('pace, peaks', [(' slowly', 1), ('', 2), (' fast', 3)])
def test_bounces(pace, peaks):
    s = scene(f'a red circle bounces{pace}', 1, travel=20, radius=8, spread=0, **BARE)
    y = centroid(object_pixels(s.render(49)[0][0]))[:, 1]
    up = y[0] - y
    rises = (up[1:-1] > up[:-2]) & (up[1:-1] >= up[2:]) & (up[1:-1] > 6)
    assert rises.sum() == peaks and float(up.max()) == pytest.approx(12, abs=.5) and up.min() > -.5


@pytest.mark.parametrize('seed', [0, 1, 2, 3])
def test_spin_turns_the_dot(seed):
    s = scene('a yellow circle spins', seed, spin=3, radius=14, spread=0, texture=0, marks='dot')
    video, _ = s.render(17, 96, 96)
    whole = object_pixels(video[0])
    dot = whole & (video[0].amax(-1) < .4)
    d = centroid(dot) - centroid(whole)
    angle = np.unwrap(torch.atan2(d[:, 1], d[:, 0]).numpy()) - math.atan2(d[0, 1], d[0, 0])
    sign = np.sign(angle[-1])
    assert np.abs(angle - sign * 3 * np.arange(17) / 16).max() < .1
    assert sign == np.sign(float(s.spin[0, 0])) and (centroid(whole) - centroid(whole)[0]).abs().max() < .6


@pytest.mark.parametrize('shape, area', [('circle', math.pi), ('square', 2 * 1.22 ** 2),
                                         ('triangle', 3 ** 1.5 / 4 * 1.4 ** 2),
                                         ('star', 5 * 1.4 * .6 * math.sin(math.pi / 5)),
                                         ('hexagon', 3 ** 1.5 / 2 * 1.1 ** 2),
                                         ('ring', math.pi * (1.15 ** 2 - .65 ** 2)),
                                         ('cross', 8 * 1.15 * .42 - 4 * .42 ** 2)])
def test_shapes_have_their_area(shape, area):
    _, masks = scene(f'a red {shape} stays still', 2, radius=20, spread=0).render(1, 128, 128)
    assert float(masks[0, 0].sum()) == pytest.approx(area * 40 ** 2, rel=.02)


# ---- tracks, flow, occlusion

@pytest.mark.parametrize('caption', [
    'a red star moves up and left fast', 'a blue square spins', 'a green triangle grows',
    'a cyan square shrinks then stops',
    'a purple star bounces', 'a yellow square moves down then turns back while the camera pans right',
    'a red square stays still while the camera zooms in', 'a red square moves left while the camera zooms out',
    'the camera rolls clockwise while a green star stays still'])
@pytest.mark.parametrize('photos', [False, True])
def test_colour_stays_along_tracks(caption, photos):
    c = world.clip(caption, 4, 9, 96, 112, points=20, background=40, knobs=world.Knobs(texture=1, turn=.5,
                   photos=photos))
    assert set(c.owner.tolist()) == {-1, 0}
    errors = [[], []]
    for p in range(len(c.tracks)):
        first = sample_at(c.video[0], *c.queries[p, 1:].numpy())
        for f in torch.nonzero(c.visible[p])[:, 0].tolist():
            errors[int(c.owner[p] < 0)].append(np.abs(sample_at(c.video[f], *c.tracks[p, f].numpy()) - first).mean())
    limit = .045 if photos else .02
    assert all(len(e) > 40 and np.mean(e) < limit for e in errors), [np.mean(e) for e in errors]


def test_tracks_from_any_frame_are_the_same_path():
    c = world.clip('a red star moves left while the camera zooms in', 2, 9)
    xy, visible, owner = c.tracks, c.visible, c.owner
    for f in (3, 8):
        seen = visible[:, f]
        again, _, who = c.track_points(torch.cat([torch.full((int(seen.sum()), 1), float(f)), xy[seen, f]], 1))
        assert (again - xy[seen]).abs().max() < 1e-2 and torch.equal(who, owner[seen])


@pytest.mark.parametrize('caption', ['a red star moves up and left', 'a blue square spins fast',
                                     'a green triangle grows', 'a red square stays still while the camera pans left',
                                     'a cyan star moves right while the camera rolls counterclockwise',
                                     'a red circle moves left and a blue square moves up'])
def test_flow_warps_the_next_frame_onto_this(caption):
    c = world.clip(caption, 6, 9, 96, 96, knobs=world.Knobs(texture=1))
    y, x = np.mgrid[:96, :96] + .5
    moved, rest = [], []
    for f in range(8):
        flow = c.flow[f].numpy()
        warped = sample_at(c.video[f + 1], x + flow[..., 0], y + flow[..., 1])
        masks = [*c.masks.numpy(), ~c.masks.numpy().any(0)]
        inner = np.any([erode(m[f]) & (sample_at(erode(m[f + 1], 1)[..., None].astype(float), x + flow[..., 0],
                                                 y + flow[..., 1])[..., 0] > .99) for m in masks], 0)
        inner &= (np.abs(x + flow[..., 0] - 48) < 47) & (np.abs(y + flow[..., 1] - 48) < 47)
        here, still = np.asarray(c.video[f]), np.hypot(*flow.transpose(2, 0, 1)) < .3
        moved.append(np.abs(warped - here)[inner & ~still].mean())
        rest.append(np.abs(np.asarray(c.video[f + 1]) - here)[inner & ~still].mean())
    assert np.mean(moved) < .01 and np.mean(moved) < .5 * np.mean(rest), (np.mean(moved), np.mean(rest))


def test_hidden_points_lie_under_the_front_object():
    scenes, hidden = world.sample(12, 7, world.Mixture(kind='two', motions=list(STEP)), world.Knobs(clearance=0,
                                  spread=2)), 0
    for i in range(12):
        c = scenes.clip(i, 9, points=40)
        steps = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
        near = [np.max([np.roll(m, s, (1, 2)) for s in steps], 0) for m in c.masks.numpy()]
        for p, f in np.argwhere(c.owner[:, None].numpy().repeat(9, 1) == 0):
            x, y = c.tracks[p, f].floor().int().tolist()
            if not (0 <= x < 64 and 0 <= y < 64):
                assert not c.visible[p, f]
                continue
            assert near[0 if c.visible[p, f] else 1][f, y, x]
            hidden += not c.visible[p, f]
        assert not (c.masks[0] & c.masks[1]).any()
    assert hidden > 100


def test_points_outside_the_frame_are_not_visible():
    c = world.clip('a red square stays still while the camera pans right', 1, 9, background=60,
                   knobs=world.Knobs(pan=30))
    out = ((c.tracks < 0) | (c.tracks >= 64)).any(-1)
    assert out.any() and not c.visible[out].any()


# ---- camera

@pytest.mark.parametrize('direction, sign', [('left', (1, 0)), ('right', (-1, 0)), ('up', (0, 1)), ('down', (0, -1))])
def test_pan_shifts_the_content_the_other_way(direction, sign):
    rng = np.random.default_rng(0)
    c = world.pan_over(rng.random((100, 120, 3)).repeat(3, 0).repeat(3, 1), f'pan {direction}', 5, pan=16)
    first, last = (c.video[f].numpy() for f in (0, 4))
    shifts = [(a, b) for a in range(-20, 21) for b in range(-20, 21)]
    def error(a, b):
        return np.abs(last[20:44, 20:44] - first[20 - b:44 - b, 20 - a:44 - a]).mean()
    best = min(shifts, key=lambda s: error(*s))
    assert best == (16 * sign[0], 16 * sign[1])
    assert c.camera[4, :, 2].tolist() == pytest.approx(best, abs=1e-4) and torch.equal(c.camera[4, :, :2], torch.eye(2))


@pytest.mark.parametrize('camera, scale, angle', [('zoom in', 1.5, 0), ('zoom out', 1 / 1.5, 0),
                                                  ('roll clockwise', 1, -.6),
                                                  ('roll counterclockwise', 1, .6)])
def test_zoom_and_roll_by_hand(camera, scale, angle):
    y, x = np.mgrid[:300, :400] / 300
    picture = np.stack([.5 + .5 * np.sin(19 * x), .5 + .5 * np.sin(17 * y), .5 + .5 * np.sin(11 * (x + y))], -1)
    c = world.pan_over(picture, camera, 7, 63, 81)
    for f in (3, 6):
        s, a = scale ** (f / 6), angle * f / 6
        gx, gy = np.meshgrid(np.arange(-20, 21, 4.), np.arange(-20, 21, 4.))
        before = sample_at(c.video[0], gx + 40.5, gy + 31.5)
        tx, ty = s * (math.cos(a) * gx - math.sin(a) * gy), s * (math.sin(a) * gx + math.cos(a) * gy)
        assert np.abs(sample_at(c.video[f], tx + 40.5, ty + 31.5) - before).mean() < .02
        there = c.camera[f].numpy() @ np.array([60.5, 31.5, 1])
        assert there == pytest.approx([40.5 + 20 * s * math.cos(a), 31.5 + 20 * s * math.sin(a)], abs=1e-3)


@pytest.mark.parametrize('camera', list(world.CAMERAS))
def test_picture_fills_the_frame(camera):
    picture = np.full((90, 140, 3), 255, np.uint8)
    picture[[0, -1]] = picture[:, [0, -1]] = 0
    c = world.pan_over(picture, camera, 9, 40, 56)
    assert c.video.shape == (9, 40, 56, 3) and c.video[:, 3:-3, 3:-3].min() > .9 and c.caption.startswith('the camera')
    assert bool(c.camera_moving.all()) == (camera != 'still') and c.masks.shape == (0, 9, 40, 56)


def test_object_at_rest_moves_with_the_background():
    s = scene('a red circle stays still while the camera pans left', 2, pan=16, radius=9, **BARE)
    x = centroid(object_pixels(s.render(9)[0][0]))
    assert (x - x[0] - torch.tensor([16., 0]) * torch.arange(9)[:, None] / 8).abs().max() < .4
    assert not s.moving(9).any() and s.camera_moving(9).all()


def test_light_swings_and_geometry_stays():
    dark, bright = (scene('a red circle moves left', 2, light=v).render(9) for v in (0, .3))
    gain = bright[0][0, :, 2, 2, 0] / dark[0][0, :, 2, 2, 0]
    assert gain.max() > 1.1 and gain.min() < .9 and torch.equal(dark[1], bright[1])


# ---- sizes, batches, seeds

@pytest.mark.parametrize('frames, height, width', [(1, 64, 64), (2, 37, 91), (5, 91, 37), (3, 8, 8), (4, 129, 65)])
def test_any_size(frames, height, width):
    s = world.sample(4, 1, knobs=world.Knobs(difficulty=.5))
    video, masks = s.render(frames, height, width)
    assert video.shape == (4, frames, height, width, 3) and video.dtype == torch.float32 and video.is_contiguous()
    assert masks.shape == (4, 2, frames, height, width) and masks.dtype == torch.bool
    assert 0 <= video.min() and video.max() <= 1 and torch.isfinite(video).all() and masks[:, 0].any((1, 2, 3)).all()
    c = s.clip(0, frames, height, width)
    assert c.flow.shape == (frames - 1, height, width, 2) and c.camera.shape == (frames, 2, 3)
    assert c.tracks.shape == (len(c.queries), frames, 2) and c.visible[:, 0].all()
    assert frames > 1 or not c.moving.any()


def test_twice_the_size_is_the_same_scene():
    s = world.sample(6, 3)
    small, large = s.render(3, 48, 64)[0], s.render(3, 96, 128)[0]
    shrunk = large.unflatten(2, (48, 2)).unflatten(4, (64, 2)).mean((3, 5))
    assert (small - shrunk).abs().mean() < .01


def test_a_scene_does_not_depend_on_its_batch():
    s = world.sample(9, 11, knobs=world.Knobs(difficulty=.7))
    video, masks = s.render(5)
    alone, mask = s[7].render(5)
    assert torch.allclose(alone[0], video[7], atol=1e-4) and (mask[0] != masks[7]).sum() <= 2
    tiles = s.render(5, chunk=3 * 64 * 64)[0]
    assert torch.allclose(tiles, video, atol=1e-4)
    fewer = world.sample(3, 11, knobs=world.Knobs(difficulty=.7))
    assert fewer.captions() == s.captions()[:3] and torch.equal(fewer.noise, s.noise[:3])
    assert s[[1, 2]].captions() == s.captions()[1:3] == s[1:3].captions() and len(s[-1]) == 1


def test_seeds():
    state = torch.get_rng_state()
    a, b, c = (world.sample(5, seed, knobs=world.Knobs(difficulty=.5)).render(2)[0] for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c) and torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize('device', ['cpu', pytest.param('cuda', marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason='no CUDA device'))])
def test_device(device):
    s = world.sample(3, 1, device=device)
    video, masks = s.render(3)
    assert video.device.type == masks.device.type == device
    assert torch.allclose(video.cpu(), s.to('cpu').render(3)[0], atol=2e-3)
    assert s.clip(1, 3).tracks.device.type == device


class Count(TorchDispatchMode):
    "Counts tensor operations."
    n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.n += 1
        return func(*args, **(kwargs or {}))


def test_number_of_calls_is_that_of_one_clip():
    def calls(n, frames):
        with Count() as c:
            world.sample(n, 0).render(frames, 16, 16)
        return c.n
    calls(1, 1)     # fills the caches
    assert calls(2, 3) == calls(50, 3) == calls(2, 31) < 1200


# ---- words

@pytest.mark.parametrize('settings', [
    (), (None, world.Knobs(1)), (world.Mixture(family='heldout'),), (world.Mixture('mixed'),), (world.Mixture('two'),)])
def test_captions_round_trip(settings):
    s = world.sample(200, 5, *settings)
    known = set(world.vocabulary())
    for free, plain, truth in zip(s.captions(), s.captions(paraphrase=False), s.describe(), strict=True):
        for caption in (free, plain):
            d = world.parse(caption)
            assert d == truth and len(caption.split()) <= world.MAX_WORDS and set(caption.split()) <= known
            for k, item in enumerate(d.objects):
                assert caption[slice(*d.spans['object'][k])] == f'{item.colour} {item.shape}'
                assert re.match('stays|rests|moves|slides|glides|spins|rotates|grows|expands|shrinks|contracts|bounces|'
                                'hops', caption[slice(*d.spans['motion'][k])])
    assert {len(world.parse(c).objects) for c in s.captions()} == set(s.count.tolist())
    assert sum(a != b for a, b in zip(s.captions(), s.captions(paraphrase=False), strict=True)) > 100


def test_captions_make_the_scenes_again():
    s = world.sample(12, 9, knobs=world.Knobs(difficulty=.6))
    again = world.from_captions(s.captions(), 9, knobs=world.Knobs(difficulty=.6))
    assert torch.equal(s.render(2)[0], again.render(2)[0])


def test_spans_point_at_words():
    c = world.clip('The camera pans up while a red circle waits then slides left quickly.', 0, 2)
    said = {r: c.caption[slice(*c.spans[r][0])] for r in c.spans}
    assert said == {'object': 'red circle', 'colour': 'red', 'shape': 'circle', 'motion': 'slides left',
                    'pace': 'quickly', 'schedule': 'waits then', 'camera': 'pans up'}
    words = c.caption.split()
    assert [words[i] for i in c.words('motion')] == ['slides', 'left'] and c.words('object') == [6, 7]
    assert world.clip('a red circle moves left', 0, 2).words('pace') == []


def test_two_objects_have_two_spans():
    d = world.parse('a red circle moves up and left and a blue star stays still')
    assert d.spans['motion'] == [(13, 30), (47, 58)] and d.spans['camera'] == []
    assert d.objects == (world.SceneObject('red', 'circle', 'up left'), world.SceneObject('blue', 'star'))


def test_swaps_change_one_attribute():
    s = world.sample(20, 3, world.Mixture(kind='single', motions=['left', 'right'], schedules='stops'))
    assert all('moves up' in c for c in s.captions(paraphrase=False, motion='up'))
    assert all('blue' in c for c in s.captions(colour='blue'))
    assert not any('then' in c for c in s.captions(motion='still'))
    other = s.with_(motion='down')
    assert all(torch.equal(getattr(other, k), getattr(s, k)) for k in ('start', 'radius', 'colour'))
    assert (other.render(1)[0] - s.render(1)[0]).abs().max() == 0
    assert s.captions(motion=['up'] * 19 + ['spin'], paraphrase=False)[19].split()[3] == 'spins'


def test_combinations_held_out():
    def triples(combos):
        said = world.sample(3000, 1, world.Mixture(combos=combos)).describe()
        return {(t.colour, t.shape, t.motion) for d in said for t in d.objects}
    train, held = triples('train'), triples('heldout')
    assert not train & held and len(train) > 250 and 20 < len(held) < 45
    for i in range(3):
        assert {t[i] for t in held} == {t[i] for t in train}


def test_families_share_no_look():
    train, held = ({w for d in world.sample(200, 1, world.Mixture(family=f)).describe() for t in d.objects
                    for w in (t.colour, t.shape)} for f in ('train', 'heldout'))
    assert not train & held and len(train) == 10 and len(held) == 6


def test_mixture_and_choices():
    s = world.sample(2000, 0)
    assert float((s.count == 2).float().mean()) == pytest.approx(.17, abs=.03)
    assert float((s.camera > 0).float().mean()) == pytest.approx(.23, abs=.03)
    two = s[s.count == 2]
    assert (two.colour[:, 0] != two.colour[:, 1]).all()
    cameras = {'pan left', 'zoom in'}
    assert {d.camera for d in world.sample(50, 0, world.Mixture(cameras=list(cameras))).describe()} == cameras
    spinning = world.sample(50, 0, world.Mixture(motions='spin')).describe()
    assert {t.motion for d in spinning for t in d.objects} == {'spin'}
    same = world.sample(100, 0, world.Mixture(kind='two'), world.Knobs(same_colour=1))
    assert (same.colour[:, 0] == same.colour[:, 1]).all() and (same.shape[:, 0] != same.shape[:, 1]).all()


def test_starts_are_near_the_centre_and_stay_inside():
    for spread in (2, 8, 20):
        s = world.sample(300, 4, world.Mixture(kind='single', motions=list(STEP), paces='normal', schedules='whole'),
                         world.Knobs(spread=spread))
        assert s.start[:, 0].abs().max() <= spread + 2.5
        end = s.start[:, 0] + s.travel[:, :1] * torch.tensor([STEP[d.objects[0].motion] for d in s.describe()])
        assert end.abs().max() <= 24.1


def test_clearance_parts_two_objects():
    def touching(**settings):
        masks = world.sample(200, 4, world.Mixture('two', list(STEP)), world.Knobs(**settings)).render(5)[1]
        near = torch.nn.functional.max_pool2d(masks[:, 0].float(), 3, 1, 1) > 0
        return float((near & masks[:, 1]).any(-1).any(-1).any(-1).float().mean())
    assert touching() < .2 and touching(clearance=0, spread=0) > .5


# ---- bad input

@pytest.mark.parametrize('call, said', [
    (lambda: world.parse('a red circel moves left'), "'circel'.*did you mean 'circle'.*vocabulary is: a and"),
    (lambda: world.parse('a crimson blob moves'), "'crimson', 'blob'"),
    (lambda: world.parse(''), '0 words'),
    (lambda: world.parse('a red circle moves left ' * 6), '30 words, but must have 1 to 24'),
    (lambda: world.parse('a circle moves left'), "'circle' does not fit after 'a'.*expected colour"),
    (lambda: world.parse('a red circle'), "the end' does not fit after 'circle'.*motion"),
    (lambda: world.parse('a red circle moves'), "'moves' does not fit after 'circle'"),
    (lambda: world.parse('a red star spins and a blue star spins and a green star spins'), 'describes 3 objects'),
    (lambda: world.parse('the camera pans left'), 'needs one or two objects'),
    (lambda: world.parse('a red star stays still slowly'), 'no pace and no schedule'),
    (lambda: world.parse('a red star grows then turns back'), 'only a motion in a direction can turn back'),
    (lambda: world.parse('a red star waits then moves left then stops'), 'either waits or ends early'),
    (lambda: world.from_captions('a red circle moves left'), r'give a list, from_captions\(\['),
    (lambda: world.SceneObject('red', 'circle', 'sideways'), "motion 'sideways' is unknown.*Choose from: left, right"),
    (lambda: world.sample(0), 'n is 0.*at least 1'),
    (lambda: world.sample(2, -1), 'seed is -1'),
    (lambda: world.Knobs(raduis=3), "setting 'raduis' is unknown; did you mean 'radius'"),
    (lambda: world.Knobs(radius=(5, 3)), r'radius=\(5, 3\) is no range'),
    (lambda: world.Knobs(2), 'goes from 0'),
    (lambda: world.Mixture(motions=['lef']), "motion 'lef' is unknown; did you mean 'left'"),
    (lambda: world.Mixture({'two': 0}), 'leaves nothing to draw'),
    (lambda: world.sample(2, 0, world.Mixture('pan', cameras='zoom in')), "no camera of 'zoom in' fits kind 'pan'"),
    (lambda: world.sample(2, 0, world.Mixture(kind='two', colours='red')), 'for the second object'),
    (lambda: world.Mixture(combos='test'), "combos 'test' is unknown"),
    (lambda: world.sample(2).render(0), 'frames is 0, but must be a whole number of at least 1'),
    (lambda: world.sample(2).render(1, 4, 64), 'height is 4'),
    (lambda: world.sample(2).captions(colour='mauve'), "colour 'mauve' is unknown"),
    (lambda: world.sample(2).captions(speed='fast'), "unexpected keyword argument 'speed'"),
    (lambda: world.sample(2).captions(motion=['up']), 'motion has 1 entries, but there are 2 scenes'),
    (lambda: world.sample(2, 0, world.Mixture(kind='single')).with_(1, motion='up'), 'object 1 is not in every scene'),
    (lambda: world.sample(2)[2], 'scene 2 is outside this batch of 2'),
    (lambda: world.clip('a red star spins', frames=4).track_points([[4, 3., 3.]]),
     r'\(4.0, 3.0, 3.0\) is outside.*t must be'),
    (lambda: world.clip('a red star spins', frames=4).track_points([[1, 64., 3.]]), r'x must be in \[0, 64\)'),
    (lambda: world.clip('a red star spins', frames=4).track_points([1, 2, 3]), r'must be \(batch, points, 3\)'),
    (lambda: world.clip('a red star spins', frames=2).words('verb'), "role 'verb' is unknown"),
    (lambda: world.pan_over(np.zeros((20, 20))), r'shape \(20, 20\), but must be \(height, width, 3\)'),
    (lambda: world.pan_over(np.full((20, 20, 3), 255.)), 'divide by 255'),
    (lambda: world.pan_over(np.zeros((20, 20, 3)), 'left'), "camera 'left' is unknown.*pan left")])
def test_bad_input_names_the_fix(call, said):
    with pytest.raises((ValueError, TypeError, IndexError)) as e:
        call()
    assert re.search(said, str(e.value)), str(e.value)
