"""Discovery over sites against planted truth, and its verbs on tiny pipelines."""
import numpy as np
import pytest
import torch
from PIL import Image

from vidlens.seam import hooks
from vidlens.seam.card import model_of
from vidlens.core.files import LazyList
from vidlens.core.results import load_result
from vidlens.core.tables import BestSite
from vidlens.motion.channels import ChannelStats, Criterion, channel_curves, find_channels, remove_content
from vidlens.motion.pictures import CHANNEL_FILES, curves_figure, draw, discovery_figures, similarity_figure, write_discovery
from vidlens.motion.sweep import (DirectionSweep, Discovery, deal_roles, find_sites, jaccard, like_motion, read_shares,
                                  read_speed, score_field, variance_shares)
from vidlens.seam.families import tiny
from vidlens.core.grid import Grid
from vidlens.motion.one_site import features, moft
from vidlens.motion.clips import MotionClips, Moving, folder_motion, labelled_clips, photo_motion, world_motion
from vidlens.motion.discovery import (discover, field_scores, motion_curves, read_speeds, reading_limits,
                                      similarity_map, sweep_clips, tell_apart)

MOTION = [3, 17, 40, 50]
WAYS = {'left': (-1, 0), 'right': (1, 0), 'up': (0, -1), 'down': (0, 1)}
LABELS = list(WAYS) * 12
SITE = 0, 1, 'hidden'
BLACK = [torch.zeros(9, 32, 32, 3)] * 8


def planted(way, seed, layer=1, frames=5, size=6, width=64, appearance=5.):
    "Layer 0: appearance and noise; 1: and motion in four channels; 2: and a clock in ten others."
    gen = torch.Generator().manual_seed(7 * seed + layer)
    x = .5 * torch.randn(frames, size, size, width, generator=gen)
    x[..., 20:40] += appearance * torch.randn(size, size, 20, generator=gen)
    dx, dy = WAYS[way]
    ramp = torch.linspace(-1, 1, frames)[:, None, None, None]
    if layer:
        x[..., MOTION] += ramp * torch.tensor([dx + .2 * dy, dy, -dx, .8 * dy - .2 * dx])
    if layer == 2:
        x[..., 20:30] += 4 * torch.eye(frames, 10)[:, None, None]
    return x


def swept(layers=(0, 1, 2), noises=2, labels=LABELS, seed=0, **kw):
    sweep = DirectionSweep(labels, seed=seed)
    for i, d in enumerate(labels):
        for layer in layers:
            for noise in range(noises):
                sweep.add((0, layer, 'hidden'), planted(d, i + 1000 * noise, layer, **kw), i, noise=noise)
    return sweep


@pytest.fixture(scope='module')
def sweep():
    return swept()


@pytest.fixture(scope='module')
def found(sweep):
    return find_sites(sweep, {0: .5}, Criterion(keep=4), num_inference_steps=4)


# Tensors only

@pytest.mark.parametrize('seed', range(4))
def test_roles_part_the_clips_evenly(seed):
    labels = ['a'] * 9 + ['b'] * 5 + ['c'] * 4
    r = deal_roles(labels, seed=seed)
    assert sorted(r.choose + r.probe) == list(range(18)) and len(r.part) == len(r.choose)
    for c in 'abc':
        assert min(sum(labels[i] == c for i in half) for half in (r.choose, r.probe)) >= 2
    even = deal_roles(['a', 'b'] * 8, seed=seed).probe
    pairs = [(a % 2, b % 2) for a, b in zip(even, even[1:] + even[:1])]
    assert all(1 <= pairs.count((a, b)) <= 3 for a in (0, 1) for b in (0, 1))     # the control does not know the label
    for bad in (dict(share=0), dict(share=1), dict(parts=0)):
        with pytest.raises(ValueError, match='share of clips'):
            deal_roles(labels, **bad)


def test_stream_finds_what_the_features_at_once_find(sweep, found):
    "The same channels as find_channels on the choosing clips, and the same curves."
    mine = [planted(LABELS[i], i + 1000 * k) for i in sweep.roles.choose for k in (0, 1)]
    want = find_channels(mine, keep=4, components=2)
    c = found.channels[SITE]['loadings']
    assert torch.equal(c.index, want.index) and torch.allclose(c.loadings[:2], want.loadings[:2], atol=1e-4)
    i = sweep.roles.probe[3]
    assert torch.allclose(sweep.pool(SITE, [i])[0], channel_curves(planted(LABELS[i], i)), atol=1e-5)
    merged = ChannelStats()
    for s in sweep.stats[SITE].values():
        merged.merge(s)
    direct = ChannelStats()
    for x in mine:
        direct.add(remove_content(x))
    assert torch.allclose(merged.scatter, direct.scatter, rtol=1e-4, atol=1e-2)


def test_planted_channels_are_found_and_read(found):
    for name in ('chosen', 'fisher', 'all'):
        assert found.interval(name, *SITE).mean == 1, name
    assert set(found.channels[SITE]['loadings'].index.tolist()) == set(MOTION) == set(found.channels[SITE]['fisher'].index.tolist())
    for name in ('control', 'all_control', 'kept_control', 'contrast', 'mean'):
        assert found.interval(name, *SITE).lo < .35, name
    assert found.compare('chosen', 'contrast', *SITE).lo > 0
    assert found.map('stable_clips')[0, 1] == found.map('stable_noise')[0, 1] == found.map('stable_fisher')[0, 1] == 1
    assert found.map('stable_clips')[0, 0] < .5                      # nothing to agree on in noise
    assert found.best().layer == 1 and found.chance == .25 and found.best('all').sigma == .5
    best = found.best()
    assert (best.step, best.num_inference_steps, best.kind, best.by) == (0, 4, 'hidden', 'chosen')
    assert found.interval('all', best) == best['all'] == found.interval('all', *SITE)
    assert found.compare('chosen', 'contrast', best) == found.compare('chosen', 'contrast', *SITE)


def test_clock_fools_loadings_not_fisher(found):
    at = 0, 2, 'hidden'
    assert found.interval('fisher', *at).mean == 1 and found.interval('chosen', *at).hi < .7
    assert found.compare('fisher', 'chosen', *at).lo > 0
    assert not set(found.channels[at]['loadings'].index.tolist()) & set(MOTION)


def test_kept_control_tells_a_probe_that_reads_the_place():
    "Features know the column only; masks of left clips lie left, of right clips right: no motion at all is needed."
    labels, sweep = ['left', 'right'] * 10, DirectionSweep(['left', 'right'] * 10)
    masks = []
    for d in labels:
        m = torch.zeros(4, 6)
        m[:, :3] = d == 'left'
        m[:, 3:] = d == 'right'
        masks.append(m)
    for i in range(20):
        gen = torch.Generator().manual_seed(i)
        x = torch.eye(6).expand(3, 4, 6, 6) + .1 * torch.randn(3, 4, 6, 6, generator=gen)
        sweep.add(SITE, x, i, masks[i], masks[sweep.partner.get(i, 0)])
    f = find_sites(sweep, criterion=Criterion(minimum=2))
    assert f.interval('all_kept', *SITE).mean == 1 == f.interval('kept_control', *SITE).mean   # so it was the place
    assert f.interval('all', *SITE).lo < .5


def test_memory_does_not_grow_with_the_clips():
    few, many = swept((1,), 1, list(WAYS) * 4), swept((1,), 1, list(WAYS) * 16)
    scatter = sum(s.scatter.numel() * 8 for s in few.stats[SITE].values())
    assert sum(s.scatter.numel() * 8 for s in many.stats[SITE].values()) == scatter
    a_clip = (many.nbytes - few.nbytes) / 48
    assert a_clip <= 2 * 5 * 64 * 4 and a_clip < .1 * planted('left', 0).nbytes


def test_shares_of_channels(sweep):
    shares = read_shares(sweep, (0, 2, 'hidden'), (1, .1, .01))
    fisher = read_shares(sweep, (0, 2, 'hidden'), (1, .1, .01), 'fisher')
    assert set(shares) == {1, .1, .01} and shares[1].mean() == 1 == fisher[.1].mean() and shares[.1].mean() < .7
    with pytest.raises(ValueError, match='fisher_kept'):
        read_shares(sweep, SITE, by='luck')


def test_file_holds_everything(found, tmp_path):
    again = load_result(found.save(tmp_path / 'd.safetensors'))
    assert type(again) is Discovery and again.facts == found.facts and again.best() == found.best()
    assert repr(again) == repr(found)
    assert str(again.table()) == str(found.table())
    for by, c in found.channels[0, 2, 'hidden'].items():
        assert torch.equal(again.channels[0, 2, 'hidden'][by].index, c.index)
        assert torch.equal(again.channels[0, 2, 'hidden'][by].strength, c.strength)
    assert all(torch.equal(again.curves[s], x) for s, x in found.curves.items()) and found.curves
    with pytest.raises(FileExistsError):
        found.save(tmp_path / 'd.safetensors')
    with open(tmp_path / 'odd', 'wb') as f:
        np.savez(f, a=1)
    whole = (tmp_path / 'd.safetensors').read_bytes()
    (tmp_path / 'half').write_bytes(whole[:len(whole) // 2])
    found.channels[SITE]['loadings'].save(tmp_path / 'channels')
    for name in ('odd', 'half', 'channels'):
        with pytest.raises(ValueError, match=name):
            Discovery.load(tmp_path / name)


def test_table_has_a_row_for_each_site(found):
    rows = found.table()
    frame = found.to_dataframe()
    assert frame.to_dict('records')[1]['chosen'] == rows[1]['chosen'] and len(frame) == len(rows)
    labelled = found.to_xarray()
    assert labelled.chosen.dims == ('step', 'layer', 'kind', 'clip') and labelled.explained.sel(layer=1).shape == (1, 1)
    assert [r['layer'] for r in rows] == [0, 1, 2]
    assert all(r[f'{n}_low'] <= r[n] <= r[f'{n}_high'] for r in rows for n in found.right)


def test_variance_shares():
    xs = [planted(d, i) for i, d in enumerate(LABELS)]
    motion, noise = (variance_shares(xs, LABELS, i) for i in (MOTION, [0, 1, 2]))
    assert motion['direction'] > .4 and noise['place'] > .9 and abs(noise['direction']) < .02
    clock = variance_shares([planted(d, i, 2) for i, d in enumerate(LABELS)], LABELS, [20, 21])
    assert clock['time'] > .8
    for s in (motion, noise, clock):
        assert sum(s.values()) == pytest.approx(1)
    half = [torch.cat([torch.ones(6, 3), torch.zeros(6, 3)], 1)] * len(xs)
    assert variance_shares(xs, LABELS, MOTION, half)['direction'] == pytest.approx(motion['direction'], abs=.1)


def test_speed_is_read_with_its_sign():
    g = torch.Generator().manual_seed(0)
    v = 3 * torch.randn(40, 2, generator=g)
    ramp = torch.linspace(-1, 1, 5)[:, None]
    curves = torch.stack([torch.cat([ramp * a, ramp * b, torch.randn(5, 4, generator=g)], 1) for a, b in v])
    decoded = read_speed(curves, v, n=100)
    assert decoded.r2.lo > .9 and decoded.correlation.mean > .95 and (decoded.predicted - v).abs().mean() < .5
    assert read_speed(curves[..., 2:], v, n=100).r2.mean < .1
    assert read_speed(curves, v[:, 0], n=10).predicted.shape == (40, 1)
    for bad, says in ((v[:3], '40 curves and 3 velocities'), (torch.ones(40), 'one velocity')):
        with pytest.raises(ValueError, match=says):
            read_speed(curves, bad)


def test_field_follows_the_flow():
    halves = torch.cat([planted('left', 90)[:, :, :3], planted('right', 91)[:, :, 3:]], 2)
    flow = torch.zeros(6, 6, 2)
    flow[:, :3, 0], flow[:, 3:, 0] = -1, 1
    m = remove_content(halves)[..., MOTION]
    assert score_field(m, flow, 0, 0).auc > .95 and score_field(m, flow, 5, 5).gap > .8
    assert np.isnan(score_field(m, flow.abs(), 0, 0).auc)           # all moves alike
    alike, known = like_motion(flow * torch.tensor([0., 1]), 0, 0)   # nothing moves
    assert alike.all() and known.all()
    with pytest.raises(ValueError, match='average it over the tokens'):
        score_field(m, flow[:3], 0, 0)


@pytest.mark.parametrize('act, says', [
    (lambda: deal_roles(['a'] * 8), 'one direction only'), (lambda: deal_roles(['a', 'b'] * 3), "'a' has 3 clips"),
    (lambda: find_sites(DirectionSweep(LABELS)), 'seen no clips'),
    (lambda: DirectionSweep(LABELS).add(SITE, torch.full((3, 2, 2, 4), torch.inf), 0), 'NaN or infinite'),
    (lambda: DirectionSweep(LABELS).add(SITE, torch.ones(3, 2, 2, 4), 99), 'outside the 48 labels'),
    (lambda: DirectionSweep(LABELS).add(SITE, torch.ones(3, 2, 2, 4), 0, torch.zeros(2, 2)), 'mask is empty'),
    (lambda: DirectionSweep(LABELS).add(SITE, torch.ones(3, 2, 2, 4), 0, torch.ones(5, 2)), 'the mask has shape'),
    (lambda: DirectionSweep(LABELS).add(SITE, torch.ones(1, 2, 2, 4), DirectionSweep(LABELS).roles.choose[0]), 'one frame')])
def test_bad_tensors_are_refused(act, says):
    with pytest.raises((ValueError, IndexError), match=says):
        act()


def test_clips_of_another_length_and_missing_clips_are_named(found):
    s = DirectionSweep(LABELS)
    s.add(SITE, planted('left', 0), s.roles.choose[0])
    with pytest.raises(ValueError, match='use clips of one length'):
        s.add(SITE, planted('left', 0, frames=4), s.roles.choose[1])
    with pytest.raises(ValueError, match='were not seen'):
        find_sites(s)
    with pytest.raises(ValueError, match='without any variance|any variance'):
        still = DirectionSweep(LABELS)
        for i in range(48):
            still.add(SITE, torch.ones(3, 2, 2, 9), i)
        find_sites(still)
    for act, says in ((lambda: found.map('luck'), "name='luck' is unknown"),
                      (lambda: found.clips('chosen', 0, 9, 'hidden'), 'layer=9'),
                      (lambda: found.best(kind='q'), "kind='q'"), (lambda: found.clips('explained', *SITE), 'no read-out')):
        with pytest.raises(ValueError, match=says):
            act()
    assert jaccard([1, 2], [2, 3]) == pytest.approx(1 / 3) and np.isnan(jaccard([], []))


# Pictures

def test_pictures_and_files(found, tmp_path):
    paths = write_discovery(found, tmp_path / 'out')
    assert sorted(p.name for p in paths) == sorted(CHANNEL_FILES) and all(p.stat().st_size > 100 for p in paths)
    with pytest.raises(FileExistsError, match='overwrite'):
        write_discovery(found, tmp_path / 'out')
    write_discovery(found, tmp_path / 'out', force=True)
    assert set(discovery_figures(found, 'chosen')) == {'layers', 'pca', 'loadings', 'curves'}
    with pytest.raises(ValueError, match='curves are kept'):
        discovery_figures(found, 'contrast')
    with pytest.raises(ValueError, match='one label a clip'):
        curves_figure(torch.zeros(3, 4, 5), ['a'], [0])
    with pytest.raises(ValueError, match='but the grid is'):
        similarity_figure(torch.zeros(9, 8, 8, 3), torch.zeros(2, 2, 2), Grid(3, 2, 2, 4), (0, 0, 0))


# Pipelines

@pytest.fixture(scope='module')
def pipe():
    return tiny('cogvideox')


@pytest.fixture(scope='module')
def tiny_found(pipe):
    return discover(pipe, world_motion(pipe, n=16), steps=[1, -1], num_inference_steps=4, kinds='hidden q k')


def test_sweep_sees_every_site_and_leaves_nothing(pipe, tiny_found):
    assert tiny_found.kinds == ['q', 'k', 'hidden'] or set(tiny_found.kinds) == {'hidden', 'q', 'k'}
    assert tiny_found.steps == [1, 3] and len(tiny_found.labels) == 8 and not hooks.OPEN_SEAMS
    assert all(not x.isnan().any() for x in tiny_found.right.values())
    assert tiny_found.sigmas[0] > tiny_found.sigmas[1]


def test_discover_is_capture_and_pool(pipe):
    "Courses of the sweep are those of features that a plain capture keeps, under the mask."
    clips = world_motion(pipe, ['left', 'right'], 8, seed=3)
    sweep, sigmas = sweep_clips(pipe, clips, 'hidden', 1, [2], num_inference_steps=4, criterion=Criterion(noises=1), seed=5)
    assert list(sigmas) == [2]
    i = sweep.roles.probe[0]
    x = features(pipe, clips[i].video, layer=1, step=2, num_inference_steps=4, seed=5 + i)
    m = torch.nn.functional.adaptive_avg_pool2d(clips[i].mask[None, None], x.shape[1:3])[0, 0]
    assert torch.allclose(sweep.curves[2, 1, 'hidden'][i], channel_curves(x, None, m, 'kept'), atol=1e-4)
    partner = sweep.partner[i]
    m = torch.nn.functional.adaptive_avg_pool2d(clips[partner].mask[None, None], x.shape[1:3])[0, 0]
    assert torch.allclose(sweep.controls[2, 1, 'hidden'][partner], channel_curves(x, None, m, 'kept'), atol=1e-4)
    one, v = motion_curves(pipe, MotionClips([clips.labels[i]], lambda _: clips[i]), BestSite(1, 2, 4), seed=5 + i)
    assert torch.allclose(one[0], sweep.pool((2, 1, 'hidden'), [i])[0], atol=1e-4) and v.shape == (1, 2)


def test_layers_of_a_unet_have_their_own_grid():
    pipe = tiny('animatediff')
    clips = world_motion(pipe, ['pan left', 'pan right'], 8)
    found = discover(pipe, clips, kinds='hidden', steps=-1, num_inference_steps=4, criterion=Criterion(noises=1))
    widths = {site[1]: c['loadings'].width for site, c in found.channels.items()}
    assert len(found.layers) > 3 and len(set(widths.values())) > 1 and not hooks.OPEN_SEAMS
    layer = max(widths, key=lambda k: widths[k])
    maps, grid, _ = similarity_map(pipe, clips[0].video, found.channels[3, layer, 'hidden']['fisher'],
                                   BestSite(layer, 3, 4))
    assert maps.shape == grid.shape


def test_lists_are_read_item_by_item():
    read = []
    found = LazyList(['a', 'b', 'c'], lambda i: read.append(i) or i * i)
    assert len(found) == 3 and not read and found[2] == 4 and read == [2]
    assert list(found) == [0, 1, 4] and read == [2, 0, 1, 2]       # nothing is kept
    for i in (-1, 3):
        with pytest.raises(IndexError, match=f'clip {i} is outside these 3 clips'):
            found[i]
    labelled = labelled_clips([torch.rand(5, 8, 8, 3)] * 2, ['a', 'b'], prompt='a cat')
    assert labelled.labels == ['a', 'b'] and labelled.prompt == 'a cat' and labelled[1].mask is None


def test_velocities_are_true(pipe):
    for clips in (world_motion(pipe, 'objects', 5, seed=2), world_motion(pipe, 'camera', 9, seed=2)):
        for i in range(len(clips)):
            m = clips[i]
            flow = m.clip.flow.mean(0)
            seen = flow[m.mask > 0] if m.mask is not None else flow.flatten(0, 1)
            if m.mask is None and clips.labels[i].startswith('pan'):
                assert torch.allclose(seen.median(0).values, m.velocity, atol=.05), clips.labels[i]
            if clips.labels[i] in ('still', 'zoom in', 'roll clockwise'):
                assert m.velocity.norm() < .05
            if clips.labels[i] in WAYS:
                assert torch.sign(m.velocity).tolist() == pytest.approx(list(WAYS[clips.labels[i]]), abs=1e-6)


def test_photographs_move_at_the_given_speed(pipe):
    y, x = torch.meshgrid(torch.arange(160.), torch.arange(200.), indexing='ij')
    photo = torch.stack([(x / 9).sin(), (y / 7).sin(), ((x + y) / 11).cos()], -1) / 2 + .5
    clips = photo_motion(pipe, [photo], n=8, speed=2., seed=1)
    for i, way in ((0, (1, 2)), (1, (-1, 2)), (2, (1, 1)), (3, (-1, 1))):      # content goes against the camera
        v = clips[i].video
        sign, axis = way
        assert (v[1].roll(0, 0) - v[0].roll(2 * sign, axis - 1))[4:-4, 4:-4].abs().max() < .08, clips.labels[i]
        assert clips[i].velocity.norm() == pytest.approx(2)
    with pytest.raises(ValueError, match='only the camera moves'):
        photo_motion(pipe, [photo], ['left', 'right'])


def test_folder_of_clips(pipe, tmp_path):
    clips = world_motion(pipe, ['pan left', 'pan right'], 8, seed=1)
    for i in range(8):
        folder = tmp_path / clips.labels[i]
        folder.mkdir(exist_ok=True)
        frames = [Image.fromarray((f.numpy() * 255).astype('uint8')).resize((48, 40)) for f in clips[i].video]
        frames[0].save(folder / f'{i}.gif', save_all=True, append_images=frames[1:], duration=100)
    read = folder_motion(pipe, tmp_path)
    assert read.labels == ['pan left'] * 4 + ['pan right'] * 4 and read[0].video.shape == (9, 32, 32, 3)
    found = discover(pipe, tmp_path, kinds='hidden', layers=0, steps=-1, num_inference_steps=4, criterion=Criterion(noises=1))
    assert found.facts['directions'] == ['pan left', 'pan right'] and found.chance == .5
    with pytest.raises(FileNotFoundError, match='no folder'):
        folder_motion(pipe, tmp_path / 'nowhere')
    with pytest.raises(ValueError, match='0 subfolders'):
        folder_motion(pipe, tmp_path / 'pan left')


def test_verbs_at_a_site(pipe):
    site = BestSite(0, 2, 4)
    assert set(read_speeds(pipe, site, n=8)) == {'all'}
    apart = tell_apart(pipe, site, {'few': [0, 1], 'all': None}, n=16)
    assert set(apart) == {'few', 'all'} and apart['all'].both.mean <= min(apart['all'].mover.mean, apart['all'].direction.mean)
    rows = reading_limits(pipe, site, 'schedule', ['whole', 'back'], directions='objects', teach=10, n=5)
    assert [r['schedule'] for r in rows] == ['whole', 'back']
    fields = field_scores(pipe, site, n=2, untrained=tiny('cogvideox', seed=1))
    assert len(fields) == 8 and all(0 <= f.auc.mean <= 1 or np.isnan(f.auc.mean) for f in fields.values())
    maps, grid, point = similarity_map(pipe, world_motion(pipe, n=4)[0].video, None, site)
    assert maps.shape == grid.shape and maps[point] == pytest.approx(1, abs=1e-5) and not hooks.OPEN_SEAMS


def test_a_site_stands_for_layer_step_and_run(pipe, tiny_found):
    clips, best = world_motion(pipe, n=16), tiny_found.best()
    again = discover(pipe, clips, site=best)
    assert (again.steps, again.layers, again.kinds) == ([best.step], [best.layer], [best.kind])
    assert again.best().num_inference_steps == 4 and again.interval('all', best) == tiny_found.interval('all', best)
    video = clips[0].video
    again = features(pipe, video, layer=best.layer, step=best.step, num_inference_steps=4)
    assert torch.equal(features(pipe, video, site=best), again)
    found = moft(pipe, site=best, n=12)
    assert (found.layer, found.facts['step'], found.site.num_inference_steps) == (best.layer, best.step, 4)
    for act in (lambda: discover(pipe, clips, site=best, layers=1), lambda: moft(pipe, site=best, step=1)):
        with pytest.raises(ValueError, match='leave out'):
            act()


def test_motion_channels_survive_a_file_and_are_drawn(pipe, tmp_path):
    found = moft(pipe, layer=1, num_inference_steps=4, n=12, criterion=Criterion(keep=3, draws=2))
    again = load_result(found.save(tmp_path / 'm.safetensors'))
    assert torch.equal(again.curves, found.curves) and again.site == found.site and '\n' not in repr(found)
    assert again.probe.rows() == found.probe.rows() and len(found.to_dataframe()) == found.curves.numel()
    assert found.to_xarray().curves.dims == ('clip', 'frame', 'channel')
    for result in (found, found.channels, found.probe):
        assert draw(result).axes
    with pytest.raises(TypeError, match='no picture of a float'):
        draw(1.)


@pytest.mark.parametrize('keep', [0, 0., 1.5, -3, '.04', 9999])
def test_what_cannot_be_kept_is_said_at_once(pipe, keep):
    "Before the first forward, or if only the width of the channels tells, at it."
    ran = []
    hook = model_of(pipe).register_forward_pre_hook(lambda *_: ran.append(1))
    video = labelled_clips([torch.rand(9, 32, 32, 3) for _ in range(4)], ['a', 'b'] * 2)
    try:
        clips = world_motion(pipe, n=16)
        for verb in (lambda: discover(pipe, clips, num_inference_steps=4, criterion=Criterion(keep=keep)),
                     lambda: moft(pipe, video, layer=1, num_inference_steps=4, criterion=Criterion(keep=keep))):
            with pytest.raises(ValueError, match=r'keep=.*: use a share above 0 and up to 1, such as \.04'):
                verb()
    finally:
        hook.remove()
    assert len(ran) == 2 * (keep == 9999) and not hooks.OPEN_SEAMS


@pytest.mark.parametrize('act, says', [
    (lambda p: discover(p, world_motion(p, ['left'])), 'one direction only'),
    (lambda p: discover(p, world_motion(p, 'sideways')), "'sideways' is unknown"),
    (lambda p: discover(p, world_motion(p, n=6)), 'at least 4'),
    (lambda p: discover(p, steps=[]), 'at least one step'),
    (lambda p: discover(p, criterion=Criterion(noises=0)), 'noises=0 must be .* at least 1'),
    (lambda p: discover(p, world_motion(p, n=16), kinds='z'), "kind 'z'"),
    (lambda p: discover(p, world_motion(p, n=16), layers=99), '99'),
    (lambda p: labelled_clips(BLACK, ['a', 'b'] * 3), '8 clips and 6 labels'),
    (lambda p: discover(p, labelled_clips(BLACK, ['a', 'b'] * 4, [torch.zeros(32, 32)] * 8)), 'not empty'),
    (lambda p: discover(p, labelled_clips(BLACK, ['a', 'b'] * 4, [torch.ones(9, 9)] * 8)), r'must be \(height'),
    (lambda p: discover(p, BLACK), r'labelled_clips\(videos, labels\)'),
    (lambda p: photo_motion(p, []), 'no photos'),
    (lambda p: reading_limits(p, BestSite(0, 0, 4), 'weather'), "over='weather'"),
    (lambda p: reading_limits(p, BestSite(0, 0, 4), 'schedule'), "directions='objects'"),
    (lambda p: field_scores(p, BestSite(0, 0, 4), clips=MotionClips(['a'], lambda i: Moving(BLACK[0]))), 'flow is known')])
def test_bad_input_is_refused(pipe, act, says):
    with pytest.raises((ValueError, IndexError, TypeError), match=says):
        act(pipe)
    assert not hooks.OPEN_SEAMS
