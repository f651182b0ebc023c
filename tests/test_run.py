"""Loading a model and driving it in three ways: against the parts of the stock pipelines themselves."""
import copy
import inspect
import json
import shutil
import warnings
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from seam import FAMILIES, blocks, call, kept_hooks, pipe_of
from torch import nn

from vidlens.seam.card import card_of, model_of, text_length
from vidlens.core.results import load_result
from vidlens.core.tables import BestSite
from vidlens.seam.capturing import capture
from vidlens.seam.loading import load, randomise
from vidlens.seam.run import (Sample, Step, conditions, decode, default_size, encode, fit_video, generate, invert, predict,
                              renoise, schedule, step_at, text_of)
from vidlens.seam.families import tiny

PROMPT = 'a red circle moves left'


@pytest.fixture(scope='module')
def bundled():
    pipe = load(device='cpu')
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope='module')
def sample(bundled):
    return generate(bundled, PROMPT, seed=3, num_inference_steps=10)


# -- load

def weights(pipe, *parts):
    return {f'{part}.{n}': p for part in parts for n, p in getattr(pipe, part).named_parameters()}


def test_the_twin_has_the_mean_and_spread_of_every_tensor(bundled):
    twin = load(device='cpu', untrained=True, seed=1)
    own, drawn = (weights(p, 'transformer', 'text_encoder') for p in (bundled, twin))
    assert own.keys() == drawn.keys()
    for name, w in own.items():
        r, n = drawn[name], w.numel()
        spread = float(w.std(correction=0)) if n > 1 else float(w.abs().mean())
        assert abs(float(r.mean() - w.mean())) <= 5 * spread / n ** .5 + 1e-7, name
        assert n < 100 or abs(float(r.std(correction=0)) / spread - 1) < 5 / n ** .5, name
        assert not torch.equal(w, r) or spread == 0, name
    assert all(torch.equal(w, twin.vae.state_dict()[k]) for k, w in bundled.vae.state_dict().items())


def test_the_twin_is_seeded(bundled):
    a, b, c = (weights(load(device='cpu', untrained=True, seed=s), 'transformer') for s in (1, 1, 2))
    assert all(torch.equal(x, b[k]) for k, x in a.items()) and any(not torch.equal(x, c[k]) for k, x in a.items())


@pytest.mark.parametrize('untrained', [False, True])
def test_no_block_is_an_identity(untrained):
    pipe, changes = load(device='cpu', untrained=untrained), []
    undo = [b.register_forward_hook(lambda m, args, kwargs, out: changes.append(
        float((out[0] - kwargs['hidden_states']).norm() / kwargs['hidden_states'].norm())), with_kwargs=True)
            for b in blocks(pipe)]
    x = torch.randn(1, 5, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    predict(pipe, x, step_at(pipe, 5, num_inference_steps=10), conditions(pipe, PROMPT, x), 10)
    for handle in undo:
        handle.remove()
    assert len(changes) == len(blocks(pipe)) and min(changes) > .02


@pytest.mark.parametrize('family', FAMILIES)
def test_randomise_spares_what_was_not_named(family):
    pipe = tiny(family)
    before = copy.deepcopy(pipe.vae.state_dict())
    randomise(pipe, seed=0, parts=('transformer',))
    assert all(torch.equal(x, pipe.vae.state_dict()[k]) for k, x in before.items())
    fresh = tiny(family)
    assert all(torch.equal(x, pipe.text_encoder.state_dict()[k]) for k, x in fresh.text_encoder.state_dict().items())
    assert not all(torch.equal(x, pipe.transformer.state_dict()[k]) for k, x in fresh.transformer.state_dict().items())


def test_stock_from_pretrained_reads_the_bundled_folder(bundled):
    from importlib.resources import files

    from diffusers import CogVideoXPipeline

    folder = files('vidlens') / 'assets' / 'pipeline'
    stock = CogVideoXPipeline.from_pretrained(folder)
    assert type(stock) is type(bundled) and not list(folder.rglob('*.py'))
    for part in ('transformer', 'text_encoder', 'vae'):
        module = type(getattr(stock, part)).__module__
        assert module.startswith(('diffusers.', 'transformers.'))
        assert all(torch.equal(p, weights(stock, part)[k]) for k, p in weights(bundled, part).items())
    assert {f.suffix for f in folder.rglob('*') if f.is_file()} <= {'.json', '.safetensors', '.md', '.jpg'}
    assert sum(f.stat().st_size for f in folder.rglob('*.safetensors')) <= 12 * 2**20


def test_dtypes_and_modes():
    pipe = load('tiny/wan', device='cpu', dtype='bf16', seed=2)
    assert pipe.transformer.dtype == torch.bfloat16
    assert load('tiny/wan', device='cpu', dtype=torch.float16).transformer.dtype == torch.float16
    parts = [m for m in pipe.components.values() if isinstance(m, nn.Module)]
    assert not any(m.training or any(p.requires_grad for p in m.parameters()) for m in parts)
    a, b = (load('tiny/wan', seed=s).transformer.proj_out.weight.float() for s in (0, 3))
    assert not torch.equal(a.cpu(), b.cpu())


def test_a_saved_pipeline_loads_again(tmp_path):
    tiny('wan').save_pretrained(tmp_path / 'wan')
    pipe = load(tmp_path / 'wan', device='cpu')
    assert torch.equal(call(pipe, steps=1), call(pipe_of('wan'), steps=1))
    (tmp_path / 'wan/transformer/diffusion_pytorch_model.safetensors').write_bytes(b'cut')
    with pytest.raises(ValueError, match='wan could not be loaded .*whole .safetensors'):
        load(tmp_path / 'wan')


def altered(bundled, folder, part, change=None, **config):
    "A copy of the bundled pipeline with other weights or another configuration of one part."
    bundled.save_pretrained(str(folder), safe_serialization=True)
    file = next((folder / part).glob('*.safetensors'))
    tensors = load_file(file)
    if change:
        change(tensors)
    save_file(tensors, file, {'format': 'pt'})
    about = folder / part / 'config.json'
    about.write_text(json.dumps(json.loads(about.read_text()) | config))
    return folder


WEIGHT = {'transformer': 'norm_out.linear.weight', 'vae': 'decoder.conv_out.conv.weight',
          'text_encoder': 'encoder.block.0.layer.0.SelfAttention.q.weight'}


@pytest.mark.parametrize('part', WEIGHT)
def test_a_pipeline_with_a_weight_missing_is_refused(bundled, tmp_path, part):
    folder = altered(bundled, tmp_path / 'copy', part, lambda tensors: tensors.pop(WEIGHT[part]))
    with pytest.raises(ValueError, match=f'copy lacks 1 weights of its {part}, first {WEIGHT[part]}: .*save_pretrained'):
        load(folder, device='cpu')


@pytest.mark.parametrize('part', ['transformer', 'text_encoder'])
def test_a_configuration_of_more_layers_is_refused(bundled, tmp_path, part):
    layers = getattr(bundled, part).config.num_layers
    folder = altered(bundled, tmp_path / 'copy', part, num_layers=layers + 1)
    with pytest.raises(ValueError, match=rf'copy lacks \d+ weights of its {part}, first .*\.{layers}\..*more layers'):
        load(folder, device='cpu')


@pytest.mark.parametrize('part', WEIGHT)
@pytest.mark.parametrize('value', [float('nan'), float('-inf')])
def test_weights_that_are_no_numbers_are_refused(bundled, tmp_path, part, value):
    def spoil(tensors):
        tensors[WEIGHT[part]].view(-1)[3] = value
    folder = altered(bundled, tmp_path / 'copy', part, spoil)
    with pytest.raises(ValueError, match=f'1 weights of its {part} that are not finite numbers, first {WEIGHT[part]}'):
        load(folder, device='cpu')


@pytest.mark.parametrize('part', WEIGHT)
def test_a_renamed_weight_is_both_missing_and_unknown(bundled, tmp_path, part):
    "One unknown name must not hide that another is missing: transformers would draw that one at random."
    def rename(tensors):
        tensors[WEIGHT[part] + '2'] = tensors.pop(WEIGHT[part])
    folder = altered(bundled, tmp_path / 'copy', part, rename)
    with pytest.raises(ValueError, match=f'copy lacks 1 weights of its {part}, first {WEIGHT[part]} and holds 1 weights that its '
                                         f'{part} does not know, first {WEIGHT[part]}2: {part}/.*safetensors'):
        load(folder, device='cpu')


@pytest.mark.parametrize('part, config', [('transformer', dict(num_layers=5)), ('text_encoder', dict(num_layers=1)),
                                          ('vae', dict(layers_per_block=0)), ('text_encoder', dict(is_gated_act=False))])
def test_a_configuration_of_a_smaller_network_is_refused(bundled, tmp_path, part, config):
    "Part of the weights would go unused, and part of the network run."
    folder = altered(bundled, tmp_path / 'copy', part, **config)
    with pytest.raises(ValueError, match=rf'copy .*holds \d+ weights that its {part} does not know, first .*{part}/config.json'):
        load(folder, device='cpu')


def test_files_in_shards_and_of_more_than_the_encoder_are_taken(bundled, tmp_path):
    "Names that a class itself ignores, such as a T5's decoder, and heads of other tasks are not held against a file."
    bundled.transformer.save_pretrained(tmp_path / 'shards', max_shard_size='1MB')
    folder = altered(bundled, tmp_path / 'copy', 'text_encoder', lambda tensors: tensors.update(
        {'decoder.block.0.weight': torch.zeros(2), 'lm_head.weight': torch.zeros(2)}))
    shutil.rmtree(folder / 'transformer')
    (tmp_path / 'shards').rename(folder / 'transformer')
    assert len([*(folder / 'transformer').glob('*.safetensors')]) > 1
    again = weights(load(folder, device='cpu'), 'transformer', 'text_encoder')
    assert all(torch.equal(p, again[k]) for k, p in weights(bundled, 'transformer', 'text_encoder').items())
    next((folder / 'transformer').glob('*-00002-of-*.safetensors')).write_bytes(b'')
    with pytest.raises(ValueError, match='transformer/.*-00002-of-.* is cut off or damaged'):
        load(folder, device='cpu')


def test_a_file_that_is_cut_off_is_named(bundled, tmp_path):
    file = altered(bundled, tmp_path / 'copy', 'vae') / 'vae/diffusion_pytorch_model.safetensors'
    file.write_bytes(file.read_bytes()[:-999])
    with pytest.raises(ValueError, match='copy could not be loaded .vae/diffusion_pytorch_model.safetensors is cut off or damaged'):
        load(tmp_path / 'copy', device='cpu')


def test_a_tokenizer_without_padding_is_refused(bundled, tmp_path):
    folder = altered(bundled, tmp_path / 'copy', 'vae')
    (folder / 'tokenizer/tokenizer_config.json').unlink()
    for file in folder.glob('tokenizer/special_tokens_map.json'):
        file.unlink()
    with pytest.raises(ValueError, match='tokenizer of .*copy has no padding token, so tokenizer/tokenizer_config.json is missing'):
        load(folder, device='cpu')


@pytest.mark.parametrize('family', [*FAMILIES, 'animatediff'])
def test_whole_folders_of_all_families_are_taken(family, tmp_path):
    tiny(family).save_pretrained(tmp_path / 'whole')
    assert model_of(load(tmp_path / 'whole', device='cpu', dtype='bf16')).dtype == torch.bfloat16


# -- generate

def test_generate_is_the_pipelines_own_call(bundled, sample):
    own = bundled(PROMPT, num_inference_steps=10, generator=torch.Generator().manual_seed(3),
                  output_type='pt').frames[0].movedim(1, -1)
    assert torch.equal(sample.video, own.clamp(0, 1)) and sample.facts['num_inference_steps'] == 10
    assert sample.video.shape == (17, 64, 64, 3) and sample.video.dtype == torch.float32


@pytest.mark.parametrize('family', FAMILIES)
def test_batches_hold_what_single_runs_hold(family):
    "Each video has its own seed, and num_videos_per_prompt works for every family."
    pipe, options = pipe_of(family), dict(num_inference_steps=2, frames=5, size=(32, 32))
    batch = generate(pipe, ['a cat', 'two dogs'], seed=5, **options)
    alone = [generate(pipe, p, seed=5 + i, **options) for i, p in enumerate(['a cat', 'two dogs'])]
    assert [s.seed for s in batch] == [5, 6]
    assert all(torch.allclose(a.video, b.video, atol=1e-4) for a, b in zip(batch, alone))
    twice = generate(pipe, ['a cat', 'two dogs'], seed=5, num_videos_per_prompt=2, **options)
    assert [s.prompt for s in twice] == ['a cat'] * 2 + ['two dogs'] * 2 and [s.seed for s in twice] == [5, 6, 7, 8]
    assert torch.allclose(twice[0].video, batch[0].video, atol=1e-4)
    guided = dict(true_cfg_scale=3.) if family == 'hunyuanvideo' else dict(guidance=4)
    with capture(pipe, 'q', layers=0, branch='both') as tape:
        generate(pipe, ['a cat', 'two dogs'], negative='blur', **options, **guided)
    assert {x.shape[0] for x in tape.data.values()} == {2} and {k[3] for k in tape} == {'cond', 'uncond'}


def test_generate_reports_steps_and_restores_the_bar(bundled):
    seen, shown, before = [], [], dict(bundled._progress_bar_config)
    generate(bundled, PROMPT, num_inference_steps=2, guidance=1, on_step=lambda i, n: seen.append((i, n)),
             callback_on_step_end=lambda pipe, i, t, kept: shown.append((i, float(t), tuple(kept['latents'].shape))))
    assert seen == [(1, 2), (2, 2)]
    assert shown == [(i, float(t), (1, 5, 16, 16, 16)) for i, t in enumerate(bundled.scheduler.timesteps)]
    assert bundled._progress_bar_config == before


# -- latents

def real(frames, side=32, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(1, 3, 3, 4, 4, generator=g)
    return torch.nn.functional.interpolate(x, (frames, side, side), mode='trilinear')[0].movedim(0, -1).clamp(0, 1)


@pytest.mark.parametrize('family', FAMILIES)
def test_encode_is_the_vaes_mode_in_the_familys_scale(family):
    pipe, video = pipe_of(family), real(5)
    z = encode(pipe, video)
    assert torch.equal(z, encode(pipe, video))
    vae, x = pipe.vae, video.movedim(-1, 0)[None] * 2 - 1
    with torch.no_grad():
        raw = vae.encode(x).latent_dist.mean
        direct = (vae.decode(raw).sample[0].movedim(0, -1) / 2 + .5).clamp(0, 1)
    if family == 'wan':
        mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
        want = (raw - mean) / std
    else:
        want = raw * vae.config.scaling_factor
    want = want.transpose(1, 2) if family == 'cogvideox' else want
    assert torch.allclose(z, want, atol=1e-5)
    assert torch.allclose(decode(pipe, z), direct, atol=1e-4)


@pytest.mark.parametrize('family', FAMILIES)
def test_decode_is_what_the_pipeline_does(family):
    pipe = pipe_of(family)
    z, shown = call(pipe, steps=1), call(pipe, steps=1, output_type='pt')[0].movedim(1, -1)
    assert torch.allclose(decode(pipe, z), shown.clamp(0, 1), atol=1e-5)


@pytest.mark.parametrize('family', FAMILIES)
def test_frames_are_coded_alone(family):
    pipe, video = pipe_of(family), real(6)
    z, axis = encode(pipe, video, 'frames'), card_of(pipe).axes.index('f')
    assert z.shape[axis] == 6
    for i in (0, 5):
        assert torch.allclose(z.narrow(axis, i, 1), encode(pipe, video[i:i + 1]), atol=1e-5)


def test_fit_video(bundled):
    assert default_size(bundled) == (17, 64, 64)
    for frames, found in ((50, 17), (17, 17), (16, 13), (4, 1), (1, 1)):
        video = fit_video(bundled, torch.rand(frames, 40, 90, 3))
        assert video.shape == (found, 64, 64, 3)
        encode(bundled, video)


# -- the schedule

@pytest.mark.parametrize('family', FAMILIES)
def test_schedule_is_that_of_a_run(family):
    pipe = pipe_of(family)
    before = dict(vars(pipe.scheduler))
    plan = schedule(pipe, 4)
    assert vars(pipe.scheduler).keys() == before.keys()
    call(pipe, steps=4)
    assert torch.allclose(torch.tensor([float(p.t) for p in plan]), pipe.scheduler.timesteps.float(), atol=1e-3)
    assert [p.index for p in plan] == [0, 1, 2, 3] and all(a.s > b.s for a, b in zip(plan, plan[1:]))
    assert step_at(pipe, -1, num_inference_steps=4) == plan[3] and step_at(pipe, 0, num_inference_steps=4) == plan[0]
    at = step_at(pipe, sigma=.4)
    assert abs(at.s - .4) < .01 and abs(at.a - (.6 if family != 'cogvideox' else (1 - at.s ** 2) ** .5)) < .01


# -- results

def test_results_are_saved_and_labelled(bundled, tmp_path):
    made = generate(bundled, PROMPT, num_inference_steps=1)
    found = renoise(bundled, made.video, PROMPT, full=True)
    back = invert(bundled, made.video, PROMPT, num_inference_steps=2, refine=0)
    for i, result in enumerate((made, found, back)):
        again = load_result(result.save(tmp_path / f'{i}.result'))
        assert repr(again) == repr(result) and '\n' not in repr(result)
    assert torch.equal(Sample.load(tmp_path / '0.result').video, made.video) and again.error == back.error
    assert made.to_xarray()['video'].dims == ('frame', 'y', 'x', 'rgb')
    assert found.to_xarray()['prediction'].dims == ('batch', 'latent_frame', 'latent_channel', 'latent_row', 'latent_col')
    assert set(back.to_xarray()) == {'noise', 'video'} and found.num_inference_steps == 30


# -- renoise

def test_a_best_site_says_where():
    pipe, site = pipe_of('wan'), BestSite(layer=1, step=3, num_inference_steps=10, head=1)
    with capture(pipe, 'q', site=site) as tape:
        found = renoise(pipe, real(5), 'a cat', site=site)
    with capture(pipe, 'q', layers=1, heads=1) as same:
        renoise(pipe, real(5), 'a cat', step=3, num_inference_steps=10)
    assert list(tape) == [('q', 1, 3, 'cond')] and torch.equal(tape['q', 1], same['q', 1]) and found.step.index == 3


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('where', [dict(step=-4, num_inference_steps=10), dict(sigma=.5)])
def test_renoise_blends(family, where):
    pipe, ran = pipe_of(family), []
    undo = [b.register_forward_pre_hook(lambda m, a, i=i: ran.append(i)) for i, b in enumerate(blocks(pipe))]
    with capture(pipe, 'q', layers=1, branch='both') as tape:
        found = renoise(pipe, real(5), 'a cat', seed=7, **where)
    noise = torch.randn(found.latents.shape, generator=torch.Generator().manual_seed(7))
    assert torch.equal(found.noisy, found.step.a * found.latents + found.step.s * noise)
    assert ran == [0, 1] and found.prediction is None and found.grid == tape.grid
    assert {k[2:] for k in tape} == {(found.step.index, 'cond')} and tape.get('q', 1).shape[0] == 1
    assert abs(tape.times[found.step.index][1] - found.step.s) < 1e-6
    ran.clear()
    whole = renoise(pipe, real(5), 'a cat', seed=7, full=True, **where)
    t = torch.tensor([whole.step.t])
    with torch.no_grad(), pipe.transformer.cache_context('cond'):
        t = t.long() if whole.step.t == int(whole.step.t) else t
        plain = pipe.transformer(hidden_states=whole.noisy, timestep=t, **conditions(pipe, 'a cat', whole.latents),
                                 return_dict=False)[0]
    assert torch.equal(whole.prediction, plain) and torch.equal(whole.noisy, found.noisy)
    assert ran == [*range(len(blocks(pipe)))] * 2
    for handle in undo:
        handle.remove()
    assert not kept_hooks(pipe)


def test_renoise_frame_by_frame(bundled, sample):
    with capture(bundled, 'q', layers=0) as tape:
        found = renoise(bundled, sample.video, PROMPT, encoding='frames')
    assert found.grid.frames == 17 and tape.get('q', 0).shape[2] == found.grid.n == 17 * 64


def test_renoise_takes_latents_and_needs_no_budget_for_other_steps(bundled, sample):
    z = encode(bundled, sample.video)
    with capture(bundled, 'q k', layers=2) as tape:
        a = renoise(bundled, sample.video, PROMPT)
    with capture(bundled, 'q k', layers=2, budget=tape.nbytes) as again:
        b = renoise(bundled, z, PROMPT)
    assert torch.equal(a.noisy, b.noisy) and torch.equal(tape.get('q', 2), again.get('q', 2))
    assert a.step == step_at(bundled, -5)


@pytest.mark.parametrize('family', FAMILIES)
def test_the_models_prediction_leads_back(family):
    "The convention of signal, noise and prediction: a perfect prediction takes the noised video back in one step."
    from vidlens.seam.run import _blend

    pipe = pipe_of(family)
    plan, g = schedule(pipe, 6), torch.Generator().manual_seed(0)
    x0, noise = torch.randn(4, generator=g), torch.randn(4, generator=g)
    for kind in ('flow',) if family != 'cogvideox' else ('v_prediction', 'epsilon'):
        for high, low in zip(plan[1:], [*plan[2:], Step(6, 0., 1., 0.)]):
            said = {'flow': noise - x0, 'v_prediction': high.a * noise - high.s * x0, 'epsilon': noise}[kind]
            c, d = _blend(kind, low, high)
            got = c * (high.a * x0 + high.s * noise) + d * said
            assert torch.allclose(got, low.a * x0 + low.s * noise, atol=1e-5)


# -- invert

@pytest.mark.slow
def test_inversion_leads_back(bundled, sample):
    found = invert(bundled, sample.video, PROMPT, num_inference_steps=12, refine=2)
    rough = invert(bundled, sample.video, PROMPT, num_inference_steps=12, refine=0)
    assert found.error <= .1 and found.error < .7 * rough.error and found.psnr > rough.psnr
    assert f'reconstruction error {found.error:.3f}' in repr(found) and found.video.shape == sample.video.shape


def test_inversion_is_what_the_scheduler_walks_forth(bundled, sample):
    "The way back is the stock DDIM scheduler's own, step by step."
    found = invert(bundled, sample.video, PROMPT, num_inference_steps=3, refine=1)
    sch, x = copy.deepcopy(bundled.scheduler), found.noise
    sch.set_timesteps(3)
    given = conditions(bundled, PROMPT, x)
    for p, t in zip(schedule(bundled, 3), sch.timesteps):
        x = sch.step(predict(bundled, x, p, given, 3), t, x, eta=0., return_dict=False)[0]
    error = float((x - encode(bundled, sample.video)).norm() / encode(bundled, sample.video).norm())
    assert abs(error - found.error) < .02


@pytest.mark.parametrize('family', ['wan', 'hunyuanvideo'])
def test_inversion_by_ode(family):
    pipe, seen = pipe_of(family), []
    found = invert(pipe, real(5), 'a cat', num_inference_steps=8, refine=8, on_step=lambda i, n: seen.append((i, n)))
    assert found.error < .02 and found.error < .1 * invert(pipe, real(5), 'a cat', num_inference_steps=8, refine=2).error
    assert seen == [(i, 8) for i in range(1, 9)]


def test_captures_see_each_step_of_an_inversion_once():
    pipe = pipe_of('wan')
    with capture(pipe, 'q', layers=0) as tape:
        invert(pipe, real(5), 'a cat', num_inference_steps=3)
    assert sorted(k[2] for k in tape) == [0, 1, 2] and tape.num_inference_steps == 3


def test_prompts_are_read_before_anything_runs(bundled):
    text = text_of(bundled, PROMPT)
    assert text.slots('moves left') == [3, 4] and len(text) == text_length(bundled)
    with pytest.raises(ValueError, match="does not know 'left[?]'; it knows: .*circle"):
        text_of(bundled, 'a red circle moves left?')
    with pytest.raises(ValueError, match="does not know 'dog'; it knows"):
        text_of(bundled, 'a red dog, moves left')


def test_more_words_than_the_model_was_trained_on_are_told(bundled):
    with pytest.warns(UserWarning, match='has 25 words, but the model was trained on at most 24'):
        text_of(bundled, 'a red circle moves left ' * 5)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        text_of(bundled, ' '.join(['a'] * 24))
        text_of(pipe_of('wan'), 'a ' * 30)


@pytest.mark.parametrize('how, fits', [(dict(frames=81, size=(480, 832)), r'size=\(480, 512\)'),
                                       (dict(frames=201, size=(32, 32)), 'frames=125')])
def test_more_places_than_a_model_knows_are_refused(how, fits):
    "diffusers itself ends in the middle of a run, with shapes that nobody asked for."
    with pytest.raises(ValueError, match=f'at most 32 places each way: ask for less, such as {fits}'):
        generate(load('tiny/wan'), 'a cat', num_inference_steps=2, **how)
    made = generate(load('tiny/wan'), 'a cat', num_inference_steps=1, num_frames=5, height=32, width=32)
    assert made.video.shape == (5, 32, 32, 3)


def test_a_model_that_learned_its_places_takes_no_other_size(bundled):
    "diffusers would stop in the middle of a forward; frames may be fewer."
    wide = torch.rand(5, 64, 96, 3)
    for run in (lambda: renoise(bundled, wide, step=-2), lambda: invert(bundled, wide, num_inference_steps=2),
                lambda: generate(bundled, 'a red circle moves left', num_inference_steps=1, size=(64, 96))):
        with pytest.raises(ValueError, match='64x64 pixels only, not 64x96'):
            run()


def test_places_that_a_model_does_not_know_are_refused_before_its_vae_runs(monkeypatch):
    pipe = load('tiny/wan')
    monkeypatch.setattr(pipe.vae, 'encode', lambda *args: pytest.fail('the VAE ran'))
    for run in (encode, renoise, invert):
        with pytest.raises(ValueError, match=r'5 frames of 32x528 .* 32 places each way.* Use fit_video.* makes 5 frames of 32x32'):
            run(pipe, torch.zeros(5, 32, 528, 3))
    with pytest.raises(ValueError, match='at most 32 places each way'):
        renoise(pipe, torch.zeros(1, 16, 2, 4, 66))
    with pytest.raises(ValueError, match=r'40 frames of 30x32 does not fit: .*Use fit_video.* makes 9 frames of 32x32'):
        encode(pipe, torch.zeros(40, 30, 32, 3))


@pytest.mark.parametrize('family', FAMILIES)
def test_tiny_pipelines_are_small_by_default(family, tmp_path):
    pipe = tiny(family, frames=9, side=48)
    assert default_size(pipe) == (9, 48, 48) and generate(pipe, 'a cat', num_inference_steps=1).video.shape == (9, 48, 48, 3)
    pipe.save_pretrained(tmp_path / 'saved')
    assert default_size(load(tmp_path / 'saved', device='cpu')) == (9, 48, 48)


def test_names_of_the_pipeline_that_are_set_here_are_told():
    pipe, g = pipe_of('wan'), torch.Generator()
    for given, says in ((dict(generator=g), 'generator of WanPipeline is seed=3 here'), (dict(output_type='np'), 'always tensors'),
                        (dict(max_sequence_length=10), "the model's own"),
                        (dict(size=(32, 32), height=16), r'size=\(64, 64\)'), (dict(frames=5, num_frames=5), 'frames=17'),
                        (dict(schritte=3), 'schritte=3 is no argument of generate, nor of WanPipeline, whose own are .*latents')):
        with pytest.raises(TypeError, match=says) as e:
            generate(pipe, 'a cat', **given)
        assert len(str(e.value)) < 500


# -- other kinds of pipelines

def test_image_to_video():
    "Its own call is taken, with captures; verbs that would need its picture beside the latents are refused."
    from diffusers import CogVideoXImageToVideoPipeline

    parts = tiny('cogvideox').components
    net = type(parts['transformer']).from_config({**parts['transformer'].config, 'in_channels': 8}).eval().requires_grad_(False)
    pipe, picture = CogVideoXImageToVideoPipeline(**(parts | dict(transformer=net))), Image.new('RGB', (32, 32), 'red')
    with capture(pipe, 'q', layers=0) as tape:
        made = generate(pipe, 'a cat', num_inference_steps=2, image=picture)
    assert made.video.shape == (9, 32, 32, 3) and tape.get('q', 0, 1).ndim == 4
    with pytest.raises(TypeError, match='CogVideoXImageToVideoPipeline starts from an image: generate.pipe, prompt, image=image'):
        generate(pipe, 'a cat', num_inference_steps=2)
    for run in (renoise, invert):
        with pytest.raises(ValueError, match='reads 8 channels, but latents have 4: it is an image-to-video model.* image=picture'):
            run(pipe, real(9), 'a cat')


@pytest.mark.parametrize('family', ['cogvideox', 'wan'])
def test_video_to_video(family, monkeypatch):
    import diffusers
    from diffusers.pipelines.wan import pipeline_wan_video2video as module

    monkeypatch.setattr(module, 'ftfy', SimpleNamespace(fix_text=str), raising=False)  # that pipeline cannot do without it
    cls = getattr(diffusers, {'cogvideox': 'CogVideoXVideoToVideoPipeline', 'wan': 'WanVideoToVideoPipeline'}[family])
    pipe = cls(**{k: v for k, v in tiny(family).components.items() if k in inspect.signature(cls).parameters})
    pictures = [Image.fromarray((x * 255).byte().numpy()) for x in real(9)]
    made = generate(pipe, 'a cat', num_inference_steps=4, video=pictures, strength=.5)
    assert made.video.shape == (9, 32, 32, 3)
    with pytest.raises(TypeError, match='starts from a video: generate.pipe, prompt, video=video'):
        generate(pipe, 'a cat', num_inference_steps=4)
    assert default_size(pipe) == (9, 32, 32) and renoise(pipe, real(9), 'a cat', step=-4).grid.frames == 3


@pytest.fixture(scope='module')
def paired():
    "As CogVideoX-1.5: a token holds two latent frames, and what is in front of the first is dropped after decoding."
    pipe = tiny('cogvideox')
    config = {**pipe.transformer.config, 'patch_size_t': 2, 'patch_bias': False, 'sample_frames': 17, '_use_default_values': []}
    torch.manual_seed(0)
    pipe.transformer = type(pipe.transformer).from_config(config).eval().requires_grad_(False)
    return pipe


def test_two_latent_frames_in_a_token(paired):
    seen = []
    with capture(paired, 'q', layers=0, tokens='video') as tape:
        made = generate(paired, 'a cat', num_inference_steps=2,
                        callback_on_step_end=lambda _, i, t, kept: seen.append(kept['latents'].clone()))
    z = encode(paired, made.video)
    assert z.shape == seen[0].shape == (1, 6, 4, 8, 8) and torch.equal(z[:, 0], z[:, 1])
    assert torch.allclose(decode(paired, seen[-1]), made.video, atol=1e-5) and decode(paired, z).shape == made.video.shape
    with capture(paired, 'q', layers=0, tokens='video') as again:
        found = renoise(paired, made.video, 'a cat')
    assert found.grid == again.grid == tape.grid and found.grid.shape == (3, 4, 4) and found.grid.video_frames == 17
    assert invert(paired, made.video, 'a cat', num_inference_steps=2).video.shape == made.video.shape
    assert renoise(paired, made.video, 'a cat', encoding='frames').grid.frames == 17
    assert renoise(paired, made.video[:1], 'a cat').grid.frames == 1
