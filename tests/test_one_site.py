"""Motion channels of one site: `moft` and the features it reads."""
import pytest
import torch

from vidlens.motion.clips import labelled_clips
from vidlens.motion.one_site import features, moft
from vidlens.points.scoring import world_clips
from vidlens.seam.capturing import capture
from vidlens.seam.card import card_of
from vidlens.seam.families import tiny
from vidlens.seam.run import renoise


@pytest.fixture(scope='module')
def clips(pipe):
    return world_clips(pipe, 6, seed=11)


def test_all_channels_of_a_middle_layer_tell_pans_apart(pipe):
    "Above chance with its interval; the chosen channels come with their control."
    found = moft(pipe, n=24, layer=4)
    assert found.probe_all.removed.interval[0] > found.probe_all.chance
    assert 0 <= found.random_accuracy <= 1 and found.probe is not None
    assert sorted(set(found.labels)) == ['pan down', 'pan left', 'pan right', 'pan up']
    assert all(found.labels.count(v) == 6 for v in set(found.labels))
    assert found.curves.shape == (24, 5, len(found.channels)) and found.channels.width == 128
    assert found.curves.mean(1).abs().max() < 1e-4, 'content is gone'


def test_moft_reads_the_published_block_of_a_unet():
    "Up block 1, on its own grid, by itself or by name; two thirds into a transformer."
    unet = tiny('animatediff')
    up = card_of(unet).layer(unet.unet, 'up_blocks.1')
    teach, labels = [torch.rand(9, 32, 32, 3, generator=torch.Generator().manual_seed(i)) for i in range(4)], ['left', 'right'] * 2
    found = [moft(unet, labelled_clips(teach, labels), step=1, num_inference_steps=4, **how) for how in (dict(),
            dict(layer='up_blocks.1'), dict(layer=up))]
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


def test_clips_of_the_world_are_taken(pipe, clips):
    assert moft(pipe, labelled_clips(clips[:4], ['left', 'right'] * 2), layer=1, num_inference_steps=4).channels.width == 128


@pytest.mark.parametrize('family', ['cogvideox', 'wan', 'hunyuanvideo'])
def test_moft_runs_on_every_family(family):
    teach = labelled_clips([torch.rand(9, 32, 32, 3) for _ in range(4)], ['left', 'right', 'left', 'right'])
    assert moft(tiny(family), teach, layer=1, step=-1, num_inference_steps=4).channels.width > 0


def test_a_label_for_each_clip(pipe):
    with pytest.raises(ValueError, match='2 clips and 1 labels'):
        moft(pipe, labelled_clips([torch.rand(17, 64, 64, 3)] * 2, ['left']))
