"""The making of the bundled model, shortened: it trains, survives being killed, refuses bad checkpoints, and packs."""
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vidlens import world
from vidlens.model import dit as dit_module
from vidlens.model import net as net_module
from vidlens.model import vae as vae_module
from vidlens.model.codec import fit_codec
from vidlens.model.dit import (
    SWAPS, Clips, Progress, Training, WordSwaps, _arguments, _noise_times, _noisy, _pairs, main, restore_run, save_run, train,
    v_loss)
from vidlens.model.export import check_pipeline, pack
from vidlens.model.net import Config, fingerprint, make_tokenizer, read_checkpoint, read_progress, write_checkpoint
from vidlens.model.vae import VaeConfig, VaeTraining, _train_vae, make_vae, restore_vae, save_vae, vae_verdict
from vidlens.model.vae import _arguments as _vae_arguments

ROOT = Path(__file__).parent.parent
QUALITIES = ('decoder', 'decoder, objects', 'both', 'both, objects', 'codec', 'codec, objects')

TINY = dict(layers=2, heads=2, head_width=16, text_width=32, text_layers=1, warmup=64, batch=8, long_text=.2, tell=.1)
SETUP = f"""
import torch; torch.set_num_threads(1)
from vidlens import world
from vidlens.model.codec import fit_codec
from vidlens.model.dit import Config, Training, train
run = Training(Config(**{TINY!r}), world.vocabulary(), fit_codec(64))
"""


pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(scope='module')
def codec():
    return fit_codec(64)


@pytest.fixture
def run(codec):
    return Training(Config(**TINY), world.vocabulary(), codec)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_learns(run):
    batch = run.clips.at(0)
    run.clips.at = lambda seen: batch
    def loss():
        with torch.no_grad():
            return float(v_loss(run.net, batch[:3], run.alphas, run.config, 1., torch.Generator().manual_seed(0))[0])
    before = loss()
    told = []
    for _ in range(75):     # words are learnt first
        errors, _, words = run.step()
        assert torch.isfinite(errors).all()
        told.append(float(words.nan_to_num().sum()))
    assert loss() < .9 * before and told[-1] < .9 * told[0]


def test_learns_in_bfloat16(codec):
    run = Training(Config(**TINY), world.vocabulary(), codec, half=True)
    for _ in range(3):
        assert torch.isfinite(run.step()[0]).all()
    assert {p.dtype for p in run.net.parameters()} == {torch.float32}


@pytest.mark.parametrize('contrast', [0., 1.])
def test_held_out_combinations_are_never_shown(codec, contrast):
    clips = Clips(Config(**TINY | {'batch': 512, 'empty': 0., 'contrast': contrast}), codec, make_tokenizer())
    seen = set()
    for start in (0, 300_000):
        clips.codec = type('NoCodec', (), {'encode': staticmethod(lambda video: video[:, :1])})   # drawing is enough
        clips._draw(start)
        seen |= {(t.colour, t.shape, t.motion) for c in clips.captions for t in world.parse(c).things}
    held = {(t.colour, t.shape, t.motion) for d in world.sample(2000, combos='heldout').describe() for t in d.things}
    assert len(seen) > 100 and len(held) > 20 and not seen & held


class Told(torch.nn.Module):
    "A network that answers 0 and keeps what it was given."
    def forward(self, x, ids, t):
        self.given = x, ids, t
        return 0 * x


def test_pairs_differ_by_what_their_words_say(codec):
    config = Config(**TINY | {'batch': 16, 'empty': .3, 'long_text': 0., 'contrast': 1., 'clear_first': .5})
    clips, net, g = Clips(config, codec, make_tokenizer()), Told(), torch.Generator()
    z, masks, ids, labels, apart, _ = clips.at(300_000)
    plain = v_loss(net, (z, masks, ids), torch.linspace(.999, 0, 1000), config, 1., g.manual_seed(0), apart=0 * apart)
    x, _, t = net.given
    more = v_loss(net, (z, masks, ids), torch.linspace(.999, 0, 1000), config, 1., g.manual_seed(0), apart=apart)
    assert torch.equal(t[::2], t[1::2]) and len(set(t[::2].tolist())) > 4
    spoken, differ = (ids != ids[0, -1]).sum(1) > 1, (z[::2] != z[1::2]).flatten(1).any(1)
    assert torch.equal(spoken[::2], spoken[1::2]) and not spoken.all() and torch.equal(apart[::2], -apart[1::2])
    assert torch.equal(apart[::2].flatten(1).any(1), differ & spoken[::2]) and differ.sum() > 4
    alike = (x[::2] - x[1::2]).abs()        # the noise of both is the same, so only what is drawn differs
    assert torch.equal(alike.flatten(1).amax(1) > 0, differ) and alike.max() <= (z[::2] - z[1::2]).abs().max()
    assert (labels[::2, :, 0] == labels[1::2, :, 0]).float().mean() > .8 and more[0] > plain[0]
    assert torch.equal(more[1], plain[1])


@pytest.mark.parametrize('share', [0., .4, 1.])
def test_modest_answers_lie_between(codec, share):
    "With a caption the answer is asked to lie so far from that without one to the truth; without one, at the truth."
    clips = Clips(Config(**TINY | {'batch': 16, 'empty': .3, 'long_text': 0.}), codec, make_tokenizer())
    z, masks, ids = clips.at(64 * 5000)[:3]
    told = torch.tensor([c != '' for c in clips.captions[:16]])
    assert 0 < told.sum() < 16
    blank = ids[~told][:1].expand_as(ids)

    def net(x, ids, t):
        return x * torch.where((ids != blank).any(1), 1., .5)[:, None, None, None, None]
    config, alphas = Config(**TINY | {'clear_first': 0.}), torch.linspace(.999, 0, 1000)
    loss = v_loss(net, (z, masks, ids), alphas, config, 1., torch.Generator().manual_seed(0), blank=blank, share=share)[0]
    g = torch.Generator().manual_seed(0)
    t, _ = _noise_times(16, 0., g, config.levels)
    x, v = _noisy(z, t[:, None].expand(-1, z.shape[1]), alphas, g)
    want = torch.where(told[:, None, None, None, None], x - (.5 * x + share * (v - .5 * x)), .5 * x - v)
    assert abs(float(loss) - float(want.square().mean())) < 1e-5


def test_a_contrary_camera_makes_another_move_of_its_kind():
    scenes = world.sample(128, 3, kind=['pan', 'zoom', 'roll', 'single'], combos='train')
    told = [d.camera for d in _pairs(scenes, torch.Generator().manual_seed(0)).describe()]
    moves = [(a, b) for a, b in zip(told[::2], told[1::2]) if a != b]
    assert {a.split()[0] for a, _ in moves} == {'pan', 'zoom', 'roll'}
    assert all(a.split()[0] == b.split()[0] for a, b in moves)
    assert .6 < len(moves) / sum(a != 'still' for a in told[::2]) < .9      # the others have another shape


def test_contrast_needs_pairs():
    with pytest.raises(ValueError, match='even number'):
        Config(batch=15, contrast=1.)


def test_killed_run_goes_on_bit_for_bit(run, tmp_path):
    path = tmp_path / 'checkpoint.safetensors'
    code = SETUP + f'train(run, {str(tmp_path)!r}, save_every=0, swaps_every=1e9, samples_every=1e9)'
    env = os.environ | {'OMP_NUM_THREADS': '1'}
    process = subprocess.Popen([sys.executable, '-c', code], env=env, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = restore_run(path)
    assert resumed.seen > 0
    end = resumed.seen + 40
    for r in (resumed, run):
        while r.seen < end:
            r.step()
    for name, r in (('a', resumed), ('b', run)):
        save_run(r, tmp_path / name)
    assert same(load_file(tmp_path / 'a'), load_file(tmp_path / 'b'))


def test_end_of_a_run_is_chosen_late(run, tmp_path):
    run.step()
    save_run(run, tmp_path / 'c')
    ending = restore_run(tmp_path / 'c', decay_from=8, samples=24)
    ending.step(), ending.step()
    assert ending.muon.lr < run.muon.lr * 2 and ending.seen == 24
    with pytest.raises(ValueError, match='decay_from is 99'):
        restore_run(tmp_path / 'c', decay_from=99, samples=24)


def test_bad_checkpoints_are_told(run, tmp_path, monkeypatch, capsys):
    path = tmp_path / 'checkpoint.safetensors'
    run.step()
    save_run(run, path)
    tensors, facts = read_checkpoint(path, 'dit')

    def altered(name, **about):
        known = {'kind': 'dit', 'format': '1', 'facts': json.dumps(facts)}
        save_file(tensors, tmp_path / name, known | about)
        return tmp_path / name

    half = tmp_path / 'half'
    half.write_bytes(path.read_bytes()[:-1000])
    wider = json.dumps(facts | {'config': facts['config'] | {'layers': 3}})
    cases = [(tmp_path / 'none', FileNotFoundError, 'no checkpoint at'), (half, ValueError, 'only half written'),
             (altered('kind', kind='vae'), ValueError, "holds 'vae'"), (altered('old', format='0'), ValueError, 'format 0'),
             (altered('wider', facts=wider), ValueError, 'do not fit'),
             (altered('words', facts=json.dumps(facts | {'words': facts['words'][1:]})), ValueError, 'without the words a'),
             (altered('looks', facts=json.dumps(facts | {'world': 'abc'})), ValueError, '--accept-world')]
    for file, error, message in cases:
        with pytest.raises(error, match=message):
            restore_run(file)
    assert restore_run(tmp_path / 'looks', accept_world=True).seen == run.seen
    assert main(['--out', str(tmp_path)]) == 2 and 'already holds a run' in capsys.readouterr().err
    monkeypatch.setitem(net_module.world.KNOBS, 'radius', ((9, 13), (7, 11)))
    with pytest.raises(ValueError, match='but this one is'):
        restore_run(path)


def test_a_broken_write_leaves_the_old_checkpoint(run, tmp_path, monkeypatch):
    path = tmp_path / 'checkpoint.safetensors'
    run.step()
    save_run(run, path)
    old = path.read_bytes()
    run.step()
    def killed(*_):
        raise KeyboardInterrupt
    monkeypatch.setattr(os, 'replace', killed)
    with pytest.raises(KeyboardInterrupt):
        save_run(run, path)
    assert path.read_bytes() == old


def test_bad_configurations_are_told(tmp_path, capsys):
    cases = (('{', 'is not JSON'), ('{"layer": 2}', 'has no layer'), ('{"head_width": 20}', 'multiple of 16'),
             ('{"layers": "6"}', 'has "6" as layers, but it must be a whole number such as 6'),
             ('{"muon": [0.1]}', 'has [0.1] as muon, but it must be a number such as 0.004'),
             ('{"batch": true}', 'has true as batch'), ('{"adam": NaN}', 'has NaN as adam'), ('[1]', 'is a list, but must be'),
             ('{"levels": 0.3}', 'has 0.3 as levels, but it must be a list of 2 numbers such as [0.3, 0.6]'),
             ('{"decay_from": 0.5}', 'has 0.5 as decay_from, but it must be a whole number'))
    for text, message in cases:
        (tmp_path / 'config.json').write_text(text)
        assert main(['--out', str(tmp_path / 'run'), '--config', str(tmp_path / 'config.json')]) == 2
        assert message in capsys.readouterr().err
    assert main(['--out', str(tmp_path / 'run'), '--set', 'muon="x"']) == 2
    assert '--set muon="x" has "x" as muon' in capsys.readouterr().err
    assert Config.of({'decay_from': None, 'levels': [.2, .4], 'muon': 1}).levels == (.2, .4)


@pytest.mark.parametrize('command', [main, vae_module.main])
def test_devices_that_are_not_there_are_told(command, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch, 'empty', lambda *a, device, **k: torch.zeros(0, device=no_cuda(device)))
    for device in ('gpu', 'cuda'):
        assert command(['--out', str(tmp_path), '--device', device]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: device='{device}' cannot be used with this torch") and "use 'cpu'" in said


def no_cuda(device):
    if torch.device(device).type == 'cuda':
        raise AssertionError('Torch not compiled with CUDA enabled')
    return device


def test_bad_input_to_the_vae_is_told(codec, tmp_path, capsys):
    vae = VaeTraining(VaeConfig(channels=(8, 8, 8), batch=2), codec)
    vae.step()
    save_vae(vae, tmp_path / 'checkpoint.safetensors')
    resume = ['--out', str(tmp_path), '--resume']
    assert vae_module.main([*resume, '--batch', '0']) == 2 and 'batch is 0, but must be at least 1' in capsys.readouterr().err
    assert vae_module.main([*resume, '--decay-from', '99', '--samples', '9']) == 2
    assert 'decay_from is 99, but must lie' in capsys.readouterr().err
    with pytest.raises(ValueError, match='multiples of 8'):
        VaeConfig(channels=(8, 12, 8))
    tensors, facts = read_checkpoint(tmp_path / 'checkpoint.safetensors', 'vae')
    write_checkpoint(tmp_path / 'new', 'vae', tensors, facts | {'config': facts['config'] | {'wavelets': 2}})
    with pytest.raises(ValueError, match='the configuration in .*new has no wavelets: choose from seed, channels'):
        restore_vae(tmp_path / 'new')


def test_a_half_written_line_of_progress_stops_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setattr(dit_module, 'WordSwaps', lambda *a, **k: None)
    run.step()
    for broken in ('{"seen": 8, "swaps": {"pan": 1.0}', '{"seen": 8, "los', '7', '"x"}'):
        (tmp_path / 'progress.jsonl').write_text(f'{json.dumps({"seen": 4, "loss 0": 1.})}\n{broken}')
        progress = Progress(tmp_path, run)
        assert [r['seen'] for r in progress.rows] == [4]
        progress.add(*run.step())
        progress.row(False)
        assert [r['seen'] for r in read_progress(tmp_path)] == [4, run.seen]


def planted(verdict):
    "A gate that says so at once, and is silent when the run is over."
    return lambda rows, over=False: None if over else verdict


def test_a_gate_that_stops_a_run_leaves_its_pictures(run, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(dit_module, 'verdict', planted('gate out of reach: planted'))
    caplog.set_level('INFO', 'vidlens')
    train(run, tmp_path, save_every=0, swaps_every=0)
    assert run.seen == 8 and 'gate out of reach: planted' in caplog.text
    assert (tmp_path / 'samples.png').stat().st_size > 1000 and (tmp_path / 'progress.png').is_file()
    assert 'swaps' in json.loads((tmp_path / 'progress.jsonl').read_text().splitlines()[-1])


def test_a_gate_that_stops_the_vae_leaves_its_pictures(codec, tmp_path, monkeypatch, caplog):
    vae = VaeTraining(VaeConfig(channels=(8, 8, 8), batch=2), codec)
    monkeypatch.setattr(vae_module, 'vae_verdict', planted('gate met: planted'))
    monkeypatch.setattr(vae_module, 'vae_quality', lambda *a: dict.fromkeys(QUALITIES, 30.))
    caplog.set_level('INFO', 'vidlens')
    _train_vae(vae, tmp_path, 1., save_every=0, test_every=0)
    assert vae.seen == 2 and 'gate met: planted' in caplog.text
    assert (tmp_path / 'samples.png').stat().st_size > 1000 and (tmp_path / 'progress.png').is_file()


@pytest.mark.parametrize('gated', [True, False])
def test_a_run_that_is_over_tells_its_verdict(codec, tmp_path, monkeypatch, caplog, gated):
    caplog.set_level('INFO', 'vidlens')
    monkeypatch.setattr(WordSwaps, 'measure', lambda *a: {k: (.3 if k == 'pan' else 1., 0.) for k in SWAPS})
    monkeypatch.setattr(dit_module.Progress, 'samples', lambda self: None)
    run = Training(Config(**TINY | {'samples': 16}), world.vocabulary(), codec)
    train(run, tmp_path / 'dit', gated=gated, save_every=0)
    assert 'gate not met after all 16 clips: pan 0.30 of 0.85. Go on with --resume --samples 32' in caplog.text
    monkeypatch.setattr(vae_module, 'vae_quality', lambda *a: dict.fromkeys(QUALITIES, 20.))
    vae = VaeTraining(VaeConfig(channels=(8, 8, 8), batch=2, samples=2), codec)
    _train_vae(vae, tmp_path / 'vae', 1., gated=gated, save_every=0)
    assert 'gate not met after all 2 clips: objects at 20.0 dB, and 24 are asked. Go on with --resume --samples 4' in caplog.text
    assert vae_verdict({'seen': 2, 'both, objects': 24.2}, over=True) == 'gate met after 2 clips: objects at 24.2 dB'


def test_both_commands_train_and_resume(codec, tmp_path, monkeypatch):
    monkeypatch.setattr(dit_module, 'fit_codec', lambda: codec)
    monkeypatch.setattr(WordSwaps, 'measure', lambda *a: dict.fromkeys(SWAPS, (.5, 0.)))
    monkeypatch.setattr(Progress, 'samples', lambda self: None)
    monkeypatch.setattr(vae_module, 'vae_quality', lambda *a: dict.fromkeys(QUALITIES, 30.))
    monkeypatch.setattr(vae_module, 'make_vae', lambda config: make_vae(replace(config, channels=(8, 8, 8))))
    (tmp_path / 'config.json').write_text(json.dumps(TINY | {'samples': 16}))
    dit, vae = (['--out', str(tmp_path / name)] for name in ('dit', 'vae'))
    assert main([*dit, '--config', str(tmp_path / 'config.json'), '--set', 'muon=0.003']) == 0
    assert main([*dit, '--resume', '--samples', '32', '--decay-from', '16', '--precision', 'bfloat16']) == 0
    run = restore_run(tmp_path / 'dit' / 'checkpoint.safetensors')
    assert run.seen == 32 and run.config.muon == .003 and run.config.decay_from == 16
    assert [r['seen'] for r in read_progress(tmp_path / 'dit')] == [16, 32]
    assert vae_module.main([*vae, '--dit', str(tmp_path / 'dit'), '--samples', '2', '--batch', '2']) == 0
    assert vae_module.main([*vae, '--resume', '--samples', '4']) == 0
    again = restore_vae(tmp_path / 'vae' / 'checkpoint.safetensors')
    assert again.seen == 4 and torch.equal(again.codec.basis, run.codec.basis)
    assert [r['seen'] for r in read_progress(tmp_path / 'vae')] == [2, 4] and (tmp_path / 'vae' / 'samples.png').is_file()


def test_the_cards_commands_are_the_recipe():
    "Typed in a clone they train with the settings that the shipped weights ended with, contrary pairs among them."
    folder = ROOT / 'vidlens' / 'assets' / 'pipeline'
    made = json.loads((folder / 'made.json').read_text(encoding='utf-8'))
    card = (folder / 'README.md').read_text(encoding='utf-8')
    lines = [shlex.split(line, comments=True) for line in card.splitlines() if line.startswith('python -m vidlens.model.')]
    asked = {words[2].rpartition('.')[2]: words[3:] for words in lines}
    assert list(asked) == ['dit', 'vae', 'export', 'gates', 'modelcard']
    config = Config.read(ROOT / _arguments(asked['dit']).config)
    assert config == Config.of(made['config']) and config.contrast == 1 and config.samples == made['clips']
    facts = read_checkpoint(ROOT / 'nbs/model/training/vae/checkpoint.safetensors', 'vae')[1]
    vae = _vae_arguments(asked['vae'])
    assert (vae.samples, vae.decay_from) == (facts['config']['samples'], facts['config']['decay_from'])
    assert vae.samples == made['vae clips'] and 'several resumed runs' in card and 'never run' in card


def test_from_nothing_to_a_stock_pipeline(codec, tmp_path):
    run = Training(Config(**TINY | {'samples': 24}), world.vocabulary(), codec)
    train(run, tmp_path)
    row = json.loads((tmp_path / 'progress.jsonl').read_text().splitlines()[-1])
    assert row['seen'] == 24 and set(row['swaps']) >= {'colour', 'motion', 'pan', 'shape', 'schedule'}
    vae = VaeTraining(VaeConfig(channels=(8, 8, 8), batch=2), codec)
    for _ in range(4):
        vae.step()
    save_vae(vae, tmp_path / 'vae')
    again = restore_vae(tmp_path / 'vae')
    vae.step(), again.step()
    assert same(dict(vae.vae.named_parameters()), dict(again.vae.named_parameters()))
    facts = pack(tmp_path / 'checkpoint.safetensors', tmp_path / 'vae', tmp_path / 'pipeline')
    assert facts['megabytes'] < 12 and facts['clips'] == 24 and len(fingerprint()) == 12
    pipe = check_pipeline(tmp_path / 'pipeline', num_inference_steps=2)
    assert pipe.tokenizer('a red circle').input_ids == make_tokenizer()('a red circle').input_ids
