"""MOFT's and DiTFlow's published numbers, through named options."""
from pathlib import Path

import numpy as np
import pytest
import torch

from vidlens.motion.channels import (ChannelStats, choose_channels, find_channels, motion_features, remove_content,
                                     resize_features, similarity)

GOLDEN = Path(__file__).parent / 'golden'


def load(name):
    return {k: torch.from_numpy(v.astype(np.float32) if v.dtype == np.float16 else v) if v.ndim else v.item()
            for k, v in np.load(GOLDEN / f'{name}.npz', allow_pickle=False).items()}


def close(a, b, tol=1e-5):
    a, b = torch.as_tensor(a).double(), b.double()
    assert a.shape == b.shape and (a - b).abs().max() <= 1e-4 * b.abs().max() * .1 + tol * b.abs().max()


def clip(x):
    "(frames, channels, rows, cols) -> (frames, rows, cols, channels)"
    return x.movedim(1, -1)


@pytest.mark.parametrize('content', ['removed', 'kept'])
def test_12_channels(content):
    z = load('12_moft_channels')
    clips = [resize_features(clip(z[f'in_features_{i}']), z['p_resize_to'], z['p_crop']) for i in range(4)]
    found = find_channels(clips, ['left', 'left', 'right', 'right'], keep=z['p_top_k'], content=content, frames='first')
    assert set(found.index.tolist()) == set(z[f'out_top_channels_{content}'].tolist())
    if z[f'info_min_gap_{content}'] > 1e-3:
        assert found.index.tolist() == z[f'out_top_channels_{content}'].tolist()
    close(found.loadings[0].abs(), z[f'out_abs_loading_pc1_{content}'], 1e-4)
    close(found.loadings[1].abs(), z[f'out_abs_loading_pc2_{content}'], 1e-3)


@pytest.mark.parametrize('content', ['removed', 'kept'])
def test_12_eigenvalues(content):
    z, stats = load('12_moft_channels'), ChannelStats()
    for i in range(4):
        x = resize_features(clip(z[f'in_features_{i}']), z['p_resize_to'], z['p_crop'])
        stats.add(remove_content(x) if content == 'removed' else x, frames='first')
    close(stats.pca().variance[:5], z[f'out_eigenvalues_top5_{content}'], 1e-4)


def test_12_right_default_finds_the_planted_channels_too():
    z = load('12_moft_channels')
    found = find_channels([clip(z[f'in_features_{i}']) for i in range(4)], keep=3)
    true = z['info_true_abs_load'].argsort(descending=True)[:3]
    assert set(found.index.tolist()) == set(true.tolist())


def test_13_similarity():
    z = load('13_moft_similarity')
    size, stack = z['p_img_size'], []
    for name in ('ref', 'target'):
        m = motion_features(clip(z[f'in_features_{name}']), z['in_motion_channels'])
        stack.append(resize_features(m[:1], z['p_resize_to']))
    close(torch.cat(stack).movedim(-1, 1), z['out_moft_stack'])
    ref, target = (resize_features(m, size) for m in stack)
    y, x = z['p_point_y'], z['p_point_x']
    close(ref[0, y, x], z['out_ref_vector'])
    cosine = similarity(ref, 0, y, x, other=target)[0]
    close(cosine, z['out_cosine_map_y_x'])
    assert [int(v) for v in divmod(int(cosine.argmax()), size)] == z['out_argmax_yx'].tolist()
    close(similarity(ref, 0, y, x, other=target, normalise='minmax')[0], z['out_heatmap_minmax'], 1e-4)


def test_16_ditflow_channels():
    "The first right singular vector of all content-free tokens of one clip is our first component: their mean is zero."
    z = load('16_extra_ditflow_moft')
    pca = ChannelStats().add(remove_content(clip(z['in_features_ref']))).pca()
    found = choose_channels(pca, keep=z['p_prop_motion'], minimum=1)
    assert set(found.index.tolist()) == set(z['out_motion_channels'].tolist())
    close(found.loadings[0].abs(), z['out_abs_loading'], 1e-4)
