"""Motion channels against planted truth and scikit-learn."""
import gc
import weakref

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from vidlens.core.results import load_result
from vidlens.motion.channels import (ChannelStats, Channels, Criterion, _others, channel_curves, choose_channels, cross_validated,
                                     direction_probe, find_channels, fisher_ratio, grouped_folds, motion_features, remove_content,
                                     resize_features, similarity)

MOTION = [3, 17, 40]
WAYS = {'left': (-1, 0), 'right': (1, 0), 'up': (0, -1), 'down': (0, 1), 'still': (0, 0)}


def planted(way, seed, frames=6, rows=5, cols=7, width=64, appearance=6., dtype=torch.float32):
    "Channels 3 and 40 ramp with the horizontal velocity, 17 with both; 20 to 39 hold a strong pattern that stays."
    gen = torch.Generator().manual_seed(seed)
    x = .3 * torch.randn(frames, rows, cols, width, generator=gen)
    x[..., 20:40] += appearance * torch.randn(rows, cols, 20, generator=gen)
    dx, dy = WAYS[way]
    ramp = torch.linspace(-1, 1, frames)[:, None, None, None]
    x[..., MOTION] += ramp * torch.tensor([dx + .5 * dy, -.8 * dx + .8 * dy, 1.2 * dx])
    return x.to(dtype)


def clips(n, ways=('left', 'right'), start=0, **kw):
    labels = [ways[i % len(ways)] for i in range(n)]
    return [planted(w, start + i, **kw) for i, w in enumerate(labels)], labels


# Content removal

@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_remove_content(dtype):
    x = planted('left', 0, dtype=dtype)
    y = remove_content(x)
    assert y.dtype == (torch.float64 if dtype == torch.float64 else torch.float32) and y.shape == x.shape
    assert y.mean(0).abs().max() < 1e-5
    assert torch.allclose(remove_content(torch.stack([x, 2 * x]))[1], remove_content(2 * x))   # leading axes
    assert torch.allclose(remove_content(x.movedim(0, 2), dim=2), y.movedim(0, 2), atol=1e-6)


# Statistics in a stream

@pytest.mark.parametrize('offset', [0., 1e4])
def test_pca_is_scikit_learns(offset):
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(10, 4, 5, 6, 12, generator=gen) @ torch.randn(12, 12, generator=gen) + offset
    stats = ChannelStats()
    for clip in x:
        stats.add(clip)
    pca, oracle = stats.pca(), PCA(svd_solver='full').fit(x.reshape(-1, 12).double().numpy())
    assert np.allclose(pca.variance, oracle.explained_variance_, rtol=1e-4, atol=1e-6 * pca.variance[0])
    assert np.allclose(pca.ratio, oracle.explained_variance_ratio_, rtol=1e-4, atol=1e-6)
    assert np.allclose(pca.vectors[:6], oracle.components_[:6], atol=2e-3)   # signs too
    assert np.allclose(pca.mean, oracle.mean_, rtol=1e-5, atol=1e-5)
    assert pca.count == 10 * 4 * 5 * 6
    assert (pca.vectors.gather(1, pca.vectors.abs().argmax(1, keepdim=True)) > 0).all()


def test_merge_order_and_chunks_do_not_matter():
    x = clips(6)[0]
    whole = ChannelStats().add(torch.stack(x))
    one, two, none = ChannelStats(), ChannelStats(), ChannelStats()
    for i, c in enumerate(x):
        (one if i < 2 else two).add(c)
    merged = ChannelStats().merge(two).merge(none).merge(one)
    for s in (merged, one.merge(two)):
        assert s.count == whole.count
        assert torch.allclose(s.mean, whole.mean, atol=1e-6)
        assert torch.allclose(s.scatter, whole.scatter, rtol=1e-4, atol=1e-2)
    long = torch.randn(3, 160, 160, 4)   # more tokens than one part holds
    assert np.allclose(ChannelStats().add(long).pca().variance,
                       np.linalg.eigvalsh(np.cov(long.reshape(-1, 4).double().numpy().T))[::-1], rtol=1e-4)


def test_mask_and_first_frame():
    x, m = planted('left', 0), torch.zeros(5, 7)
    m[1:3, 2:4] = .5
    assert ChannelStats().add(x, m).count == 6 * 4 and ChannelStats().add(x, m, 'first').count == 4
    assert torch.allclose(ChannelStats().add(x, m > 0).mean, x[:, 1:3, 2:4].reshape(-1, 64).mean(0).double())
    moving = torch.zeros(6, 5, 7)
    moving[0, 0, 0] = moving[3] = 1
    assert ChannelStats().add(x, moving).count == 36 and ChannelStats().add(x, moving, 'first').count == 1


def test_half_precision_is_accumulated_in_float():
    x = torch.stack(clips(4)[0]) + 100
    exact = ChannelStats().add(x.bfloat16().double())
    assert torch.allclose(ChannelStats().add(x.bfloat16()).scatter, exact.scatter, rtol=1e-3, atol=1e-2)


# Finding the channels

@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('frames', ['all', 'first'])
def test_planted_channels_are_found(seed, frames):
    x, labels = clips(16, start=100 * seed)
    found = find_channels(x, labels, keep=3, frames=frames)
    assert sorted(found.index.tolist()) == MOTION
    assert found.explained[0] > 3 * found.explained[1]
    assert set(MOTION) <= set(find_channels(x, labels, frames=frames).index.tolist())   # 8 of 64, the least
    assert not set(found.contrast.tolist()) & set(MOTION)


def test_without_content_removal_appearance_is_found():
    x, labels = clips(16)
    wrong = find_channels(x, labels, content='kept')
    assert all(20 <= i < 40 for i in wrong.index.tolist())


def test_two_axes_of_motion():
    "Up and down need the second component when one channel carries little of the first."
    x, labels = clips(32, ('left', 'right', 'up', 'down'))
    found = find_channels(x, labels, keep=3, components=2)
    assert sorted(found.index.tolist()) == MOTION and found.facts['components'] == 2
    assert found.facts['labels'] == dict(left=8, right=8, up=8, down=8)


@pytest.mark.parametrize('seed', range(3))
def test_fisher_finds_motion_under_a_clock(seed):
    "A code of the frame number is the first component, but the same in all directions."
    x, labels = clips(24, start=100 * seed)
    clock = 3 * torch.randn(6, 1, 1, 64, generator=torch.Generator().manual_seed(seed))
    clock[..., :50] = 0
    x = [v + clock for v in x]
    assert not set(find_channels(x, labels, keep=3).index.tolist()) & set(MOTION)
    found = find_channels(x, labels, keep=3, by='fisher')
    assert sorted(found.index.tolist()) == MOTION and not set(found.contrast.tolist()) & set(MOTION)
    assert found.facts['by'] == 'fisher' and torch.equal(found.strength.sort(descending=True).indices[:3], found.index)


def test_fisher_ratio_is_the_f_of_an_analysis_of_variance():
    from scipy.stats import f_oneway
    gen = torch.Generator().manual_seed(0)
    x, labels = torch.randn(30, 1, 5, generator=gen).double(), ['a', 'b', 'c'] * 10
    x[::3, 0, 2] += 2
    want = f_oneway(*(x[i::3, 0].numpy() for i in range(3))).statistic
    assert np.allclose(fisher_ratio(x, labels), want)
    noise = fisher_ratio(torch.randn(60, 4, 500, generator=gen), labels * 2)
    assert .9 < noise.mean() < 1.1
    assert fisher_ratio(torch.zeros(4, 2, 3), ['a', 'b'] * 2).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match='at least 2 of each'):
        fisher_ratio(torch.randn(2, 3, 4), ['a', 'b'])


def test_fisher_choice_survives_a_file(tmp_path):
    x, labels = clips(8)
    found = find_channels(x, labels, by='fisher')
    again = Channels.load(found.save(tmp_path / 'f.safetensors'))
    assert torch.equal(again.index, found.index) and torch.equal(again.strength, found.strength)
    for bad in (dict(by='fisher'), dict(by='luck', labels=labels)):
        with pytest.raises(ValueError, match="use 'loadings', or 'fisher'"):
            find_channels(x, **bad)
    with pytest.raises(ValueError, match='2 weights for 64'):
        choose_channels(ChannelStats().add(x[0]).pca(), weight=torch.ones(2))


def test_share_and_number():
    x = clips(4)[0]
    assert len(find_channels(x)) == 8                       # 4 % of 64 are 2: too few
    assert len(find_channels(x, keep=.25)) == 16
    assert len(find_channels(x, keep=2)) == 2
    assert len(find_channels([v[..., :5] for v in x])) == 5    # no more than there are
    wide = choose_channels(ChannelStats().add(torch.randn(4, 4, 4, 1280)).pca())
    assert len(wide) == 51 and wide.width == 1280


def test_clips_stream():
    "A generator is consumed clip by clip: no earlier clip is alive."
    alive = []

    def stream():
        for i in range(8):
            x = planted('left', i)
            alive.append(weakref.ref(x))
            yield x
            del x
            gc.collect()
            assert sum(r() is not None for r in alive) <= 1
    assert sorted(find_channels(stream(), keep=3).index.tolist()) == MOTION


def test_masks_go_with_their_clips():
    x, labels = clips(8)
    mask = torch.zeros(5, 7)
    mask[:, :3] = 1
    for v in x:
        v[:, :, 3:, 60] += 5 * torch.randn(6, 5, 4)   # flicker outside the mask
    assert 60 in find_channels(x, labels, keep=3).index.tolist()
    assert sorted(find_channels(x, labels, keep=3, masks=[mask] * 8).index.tolist()) == MOTION


def test_save_and_load(tmp_path):
    found = find_channels(*clips(4))
    back = Channels.load(found.save(tmp_path / 'c.channels'))
    for name in ('index', 'loadings', 'explained'):
        assert torch.equal(getattr(back, name), getattr(found, name))
    assert back.facts == found.facts and repr(back) == repr(found) and '8 of 64' in repr(back)
    assert [f.name for f in tmp_path.iterdir()] == ['c.channels']   # no part file left
    assert type(load_result(tmp_path / 'c.channels')) is Channels
    rows = found.to_dataframe()
    assert len(rows) == 64 and rows.channel[rows['rank'] == 0].item() == found.index[0]
    assert found.to_xarray().loadings.shape == found.loadings.shape
    with pytest.raises(FileNotFoundError):
        found.save(tmp_path / 'no' / 'c.channels')


# Features, similarity, curves

def test_motion_features():
    x = planted('right', 0)
    found = find_channels(*clips(4))
    m = motion_features(x, found)
    assert torch.allclose(m, remove_content(x)[..., found.index], atol=1e-6)
    assert torch.allclose(motion_features(torch.stack([x, x]), found)[1], m)
    assert torch.equal(motion_features(x, [3, 17], content='kept'), x[..., [3, 17]])
    y = x.clone().requires_grad_()
    motion_features(y, MOTION).square().sum().backward()
    assert y.grad[..., MOTION].abs().sum() > 0 and y.grad[..., 0].abs().sum() == 0


def test_similarity():
    x = torch.cat([planted('left', 1)[:, :, :4], planted('right', 2)[:, :, 4:]], 2)
    m = motion_features(x, MOTION)
    s = similarity(m, 0, 2, 1)
    assert s.shape == (6, 5, 7) and abs(s[0, 2, 1] - 1) < 1e-6 and s.abs().max() <= 1 + 1e-6
    assert (s[0, :, :4] > .5).all() and (s[0, :, 4:] < -.5).all()
    assert torch.allclose(s[4, 3, 2], torch.cosine_similarity(m[0, 2, 1], m[4, 3, 2], dim=0), atol=1e-6)
    other = similarity(m, 0, 2, 1, other=motion_features(planted('left', 3, rows=3, cols=4), MOTION))
    assert other.shape == (6, 3, 4) and (other[0] > .5).float().mean() > .9
    still = torch.zeros(4, 2, 2, 3)
    assert (similarity(still, 0, 0, 0) == 0).all() and similarity(still, 0, 0, 0, normalise='minmax').isfinite().all()


def test_curves():
    x, mask = planted('right', 5), torch.zeros(5, 7)
    mask[1:3, 1:3] = 1
    c = channel_curves(x, MOTION, mask)
    assert torch.allclose(c, remove_content(x)[:, 1:3, 1:3][..., MOTION].mean((1, 2)), atol=1e-6)
    assert torch.allclose(channel_curves(x, MOTION), remove_content(x)[..., MOTION].mean((1, 2)), atol=1e-6)
    moving = torch.zeros(6, 5, 7)
    for f in range(6):
        moving[f, 0, f] = 1
    got = channel_curves(x, MOTION, moving, content='kept')
    assert torch.allclose(got, torch.stack([x[f, 0, f, MOTION] for f in range(6)]), atol=1e-6)
    assert channel_curves(torch.stack([x, x]), MOTION, mask).shape == (2, 6, 3)
    assert c[-1, 0] > c[0, 0] and c[-1, 1] < c[0, 1]


def test_resize_is_linear_between_centres():
    ramp = torch.arange(4.).view(1, 1, 4, 1).expand(2, 3, 4, 1)
    y = resize_features(ramp, (3, 8))
    assert y.shape == (2, 3, 8, 1) and torch.allclose(y[0, 0, 1:-1, 0], torch.arange(6) * .5 + .25)
    assert torch.equal(resize_features(ramp, (3, 8), crop=2), y[:, 0:2, 3:5])
    assert torch.allclose(resize_features(ramp, (3, 4)), ramp)


# The probe

def test_probe_reads_planted_directions():
    x, labels = clips(60, tuple(WAYS), start=1000)
    found = find_channels(*clips(40, tuple(WAYS)), keep=3, components=2)
    p = direction_probe(x, labels, found)
    assert p.removed.accuracy >= .95 and p.chance == .2 and p.classes == sorted(WAYS)
    assert p.removed.control_interval[0] < .3 and p.removed.gap > .6
    assert p.kept.accuracy >= .8   # a linear probe finds the ramp in plain curves too
    assert p.removed.interval[0] < p.removed.accuracy <= p.removed.interval[1] == 1
    assert [p.classes[i] for i in p.removed.predicted[:5].tolist()] == labels[:5]
    rows = p.rows()
    assert [r['content'] for r in rows] == ['removed', 'kept'] and rows[0]['channels'] == 3 and rows[0]['clips'] == 60


def test_probe_survives_a_file(tmp_path):
    p = direction_probe(*clips(12))
    back = load_result(p.save(tmp_path / 'p.safetensors'))
    assert back.rows() == p.rows() and torch.equal(back.removed.predicted, p.removed.predicted)
    assert list(p.to_dataframe().content) == ['removed', 'kept'] and '\n' not in repr(p)


def test_probe_on_noise_is_at_chance():
    gen, mean, inside = torch.Generator().manual_seed(0), 0., 0
    for seed in range(8):
        x, labels = [torch.randn(4, 3, 3, 8, generator=gen) for _ in range(48)], ['a', 'b', 'c', 'd'] * 12
        p = direction_probe(x, labels, seed=seed)
        for r in (p.removed, p.kept):
            inside += r.interval[0] <= p.chance <= r.interval[1]
            mean += r.accuracy / 16
    assert inside >= 13 and abs(mean - .25) < .06


def test_probe_that_reads_position_is_shown_by_the_control():
    def one(way, seed):
        "No motion in the features at all: they are a code of row and column, and noise."
        gen = torch.Generator().manual_seed(seed)
        code = torch.cat([torch.eye(5)[:, None].expand(5, 8, 5), torch.eye(8)[None].expand(5, 8, 8)], -1)
        start, mask = int(torch.randint(2, 4, (), generator=gen)), torch.zeros(6, 5, 8)
        for f in range(6):
            at = min(max(start + f // 2 * (1 if way == 'right' else -1), 0), 6)
            mask[f, 1:3, at:at + 2] = 1
        return code.expand(6, -1, -1, -1) + .1 * torch.randn(6, 5, 8, 13, generator=gen), mask
    labels = ['left', 'right'] * 24
    both = [one(w, i) for i, w in enumerate(labels)]
    x, masks = [a for a, _ in both], [b for _, b in both]
    fooled = direction_probe(x, labels, masks=masks, mask_frames='each')
    assert fooled.kept.accuracy > .9 and fooled.kept.control > .9
    honest = direction_probe(x, labels, masks=masks)
    for r in (honest.kept, honest.removed):
        assert r.interval[0] < .5 < r.interval[1] + .05
    assert honest.facts['mask_frames'] == 'first'


def test_groups_stay_on_one_side():
    labels = torch.tensor([0, 1, 2] * 10)
    groups = [i // 6 for i in range(30)]
    fold = grouped_folds(labels, groups, 5, 0)
    assert all(len({int(f) for f, g in zip(fold, groups) if g == h}) == 1 for h in set(groups))
    assert len(fold.unique()) == 5
    alone = grouped_folds(labels, range(30), 5, 0)
    for f in range(5):
        assert (labels[alone == f].bincount(minlength=3) >= 1).all()   # directions are dealt out evenly
    # a scene that gives itself away: the same features in all its clips, and a label of its own
    gen = torch.Generator().manual_seed(1)
    scenes = [torch.randn(4, 3, 3, 16, generator=gen) for _ in range(20)]
    x = [s + .01 * torch.randn(4, 3, 3, 16, generator=gen) for s in scenes for _ in range(3)]
    y, g = [('a', 'b')[i // 3 % 2] for i in range(60)], [i // 3 for i in range(60)]
    assert direction_probe(x, y).kept.accuracy > .95 and direction_probe(x, y, groups=g).kept.accuracy < .8


def test_discriminant_is_a_ridge_lda():
    "The dual form against the textbook one."
    gen = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 3
    x = torch.randn(60, 5, generator=gen, dtype=torch.float64) + 2 * torch.eye(3, 5, dtype=torch.float64)[y]
    fold = torch.arange(60) % 4
    got, want = cross_validated(x, y, fold, 3, .1), torch.zeros_like(y)
    for f in range(4):
        a, b = x[fold != f], y[fold != f]
        mu = torch.stack([a[b == c].mean(0) for c in range(3)])
        std = (a - mu[b]).std(0)
        r = (a - mu[b]) / std
        cov = r.T @ r + .1 * len(a) * torch.eye(5, dtype=torch.float64)
        z = (x[fold == f][:, None] - mu[None]) / std
        want[fold == f] = torch.einsum('ncd,de,nce->nc', z, cov.inverse(), z).argmin(1)
    assert torch.equal(got, want) and (got == y).float().mean() > .8


@pytest.mark.parametrize('n', [2, 3, 10, 51])
def test_control_never_takes_the_clip_itself(n):
    donor = _others(n, 0)
    assert sorted(donor) == list(range(n)) and all(i != j for i, j in enumerate(donor))


# Bad input

X = planted('left', 0)
FEW = clips(4)[0]
CHANNELS = choose_channels(ChannelStats().add(X).pca())
BAD = {
    'not a tensor': (TypeError, 'torch.as_tensor', lambda: remove_content(np.zeros((3, 3, 3, 3)))),
    'integers': (TypeError, 'floating point', lambda: motion_features(X.long(), [0])),
    'flat tokens': (ValueError, 'Grid.unflatten', lambda: motion_features(X[0], [0])),
    'one frame': (ValueError, 'at least 2 frames', lambda: remove_content(X[:1])),
    'no such axis': (ValueError, 'dim=7', lambda: remove_content(X, 7)),
    'content': (ValueError, "'removed' or 'kept'", lambda: motion_features(X, [0], content='no')),
    'frames': (ValueError, "'all' or 'first'", lambda: find_channels(FEW, frames='last')),
    'one clip': (ValueError, 'at least 2', lambda: find_channels([X])),
    'no clips': (ValueError, 'at least 2', lambda: find_channels([])),
    'one direction': (ValueError, 'two directions', lambda: find_channels(FEW, ['left'] * 4)),
    'labels short': (ValueError, '4 clips but 3 labels', lambda: find_channels(FEW, ['a', 'b', 'a'])),
    'masks short': (ValueError, 'only 1 masks', lambda: find_channels(FEW, masks=[torch.ones(5, 7)])),
    'clip shape': (ValueError, 'clip 0', lambda: find_channels([X[None], X[None]])),
    'other width': (ValueError, 'one ChannelStats', lambda: find_channels([X, X[..., :9]])),
    'constant': (ValueError, 'nothing moves', lambda: find_channels([torch.full((3, 4, 4, 9), .1)] * 3)),
    'still': (ValueError, 'nothing moves', lambda: find_channels([X[:1].expand(3, -1, -1, -1)] * 3)),
    'no variance': (ValueError, 'without any variance', lambda: ChannelStats().add(torch.ones(2, 2, 2, 3)).pca()),
    'nan': (ValueError, '1 of 64 channels',
            lambda: find_channels([X, torch.where(torch.arange(64) == 5, torch.nan, X)])),
    'keep': (ValueError, 'share above 0', lambda: find_channels(FEW, keep=0.)),
    'keep too many': (ValueError, 'from 1 to 64', lambda: find_channels(FEW, keep=65)),
    'components': (ValueError, 'use 1 to 64', lambda: find_channels(FEW, components=65)),
    'crop': (ValueError, 'crop must fit', lambda: resize_features(X, 8, crop=9)),
    'minimum': (ValueError, 'minimum=0 must be', lambda: Criterion(minimum=0)),
    'draws': (ValueError, 'at least 1', lambda: Criterion(draws=0)),
    'range': (ValueError, 'channel 64 is out of range', lambda: motion_features(X, [64])),
    'negative': (ValueError, 'channel -1', lambda: motion_features(X, [-1])),
    'none chosen': (ValueError, 'at least one', lambda: motion_features(X, [])),
    'other layer': (ValueError, 'another layer', lambda: motion_features(X[..., :32], CHANNELS)),
    'mask size': (ValueError, 'adaptive_avg_pool2d', lambda: channel_curves(X, [0], torch.ones(10, 14))),
    'mask frames': (ValueError, '(4, 5, 7)', lambda: channel_curves(X, [0], torch.ones(4, 5, 7))),
    'mask empty': (ValueError, 'mask is empty', lambda: channel_curves(X, [0], torch.zeros(5, 7))),
    'mask empty later': (ValueError, r'frame(s) [1, 2, 3, 4, 5]',
                         lambda: channel_curves(X, [0], torch.eye(6)[0].view(6, 1, 1).expand(6, 5, 7))),
    'place': (IndexError, 'col 7 is outside', lambda: similarity(X, 0, 0, 7)),
    'widths': (ValueError, 'the same k', lambda: similarity(X, 0, 0, 0, other=X[..., :3])),
    'normalise': (ValueError, 'minmax', lambda: similarity(X, 0, 0, 0, normalise='max')),
    'probe directions': (ValueError, 'two directions', lambda: direction_probe(FEW, ['a'] * 4)),
    'probe single': (ValueError, 'at least 2 clips', lambda: direction_probe(FEW, ['a', 'a', 'a', 'b'])),
    'probe folds': (ValueError, 'folds=1', lambda: direction_probe(FEW, ['a', 'b'] * 2, folds=1)),
    'probe shapes': (ValueError, 'must all have one', lambda: direction_probe([X, X[:3]] * 2, ['a', 'b'] * 2)),
    'probe masks': (ValueError, '4 clips but 1 masks',
                    lambda: direction_probe(FEW, ['a', 'b'] * 2, masks=[torch.ones(5, 7)])),
    'probe mask_frames': (ValueError, "'first' or 'each'",
                          lambda: direction_probe(FEW, ['a', 'b'] * 2, mask_frames='x')),
    'no file': (FileNotFoundError, 'result.save(path)', lambda: Channels.load('no.channels')),
}


@pytest.mark.parametrize('case', BAD)
def test_messages(case):
    error, text, call = BAD[case]
    with pytest.raises(error) as e:
        call()
    assert text in str(e.value)


@pytest.mark.parametrize('content', [b'', b'text', 'npy', 'npz', 'pickle'])
def test_foreign_files(tmp_path, content):
    path = tmp_path / 'x'
    with open(path, 'wb') as f:
        if isinstance(content, bytes):
            f.write(content)
        elif content == 'npy':
            np.save(f, np.zeros(3))
        else:
            np.savez(f, index=np.array([{}]) if content == 'pickle' else np.zeros(3))
    with pytest.raises(ValueError, match='x is not a result|x holds|x is no|vidlens'):
        Channels.load(path)


@pytest.mark.gpu
def test_on_cuda():
    x, labels = clips(20)
    x = [v.cuda() for v in x]
    found = find_channels(x, labels, keep=3)
    assert sorted(found.index.tolist()) == MOTION
    m = motion_features(x[0], found)
    assert m.is_cuda and similarity(m, 0, 0, 0).is_cuda
    p = direction_probe(x, labels, found, masks=[torch.ones(5, 7)] * 20)
    assert p.removed.accuracy == 1
    cpu = ChannelStats().add(x[0].cpu())
    assert torch.allclose(cpu.merge(ChannelStats().add(x[1])).scatter,
                          ChannelStats().add(torch.stack(x[:2]).cpu()).scatter, rtol=1e-3, atol=1e-2)
