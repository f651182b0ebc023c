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
from vidlens.bundled import dit as dit_module
from vidlens.bundled import export as export_module
from vidlens.bundled import net as net_module
from vidlens.bundled import vae as vae_module
from vidlens.bundled.codec import fit_codec
from vidlens.bundled.dit import (SWAPS, Clips, Progress, Training, WordSwaps, _arguments, _noise_times, _noisy, _pairs,
                                 main, restore_run, save_run, train, v_loss)
from vidlens.bundled.export import check_pipeline, pack
from vidlens.bundled.net import Config, fingerprint, make_tokenizer, read_checkpoint, read_progress, write_checkpoint
from vidlens.bundled.vae import VaeConfig, VaeTraining, _train_vae, make_vae, restore_vae, save_vae, vae_verdict
from vidlens.bundled.vae import _arguments as _vae_arguments

ROOT = Path(__file__).parent.parent
QUALITIES = ('decoder', 'decoder, objects', 'both', 'both, objects', 'codec', 'codec, objects')

TINY = dict(layers=2, heads=2, head_width=16, text_width=32, text_layers=1, warmup=64, batch=8, long_text=.2, tell=.1)
SETUP = f"""
import torch; torch.set_num_threads(1)
from vidlens import world
from vidlens.bundled.codec import fit_codec
from vidlens.bundled.dit import Config, Training, train
run = Training(Config(**{TINY!r}), world.vocabulary(), fit_codec(64))
"""

SMALL = VaeConfig(channels=(8, 8, 8), batch=2)

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
        seen |= {(t.colour, t.shape, t.motion) for c in clips.captions for t in world.parse(c).objects}
    scenes = world.sample(2000, 0, world.Mixture(combos='heldout'))
    held = {(t.colour, t.shape, t.motion) for d in scenes.describe() for t in d.objects}
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
    scenes = world.sample(128, 3, world.Mixture(kind=['pan', 'zoom', 'roll', 'single'], combos='train'))
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
    ending = restore_run(tmp_path / 'c', changes={'decay_from': 8, 'samples': 24})
    ending.step(), ending.step()
    assert ending.muon.lr < run.muon.lr * 2 and ending.seen == 24
    with pytest.raises(ValueError, match='decay_from is 99'):
        restore_run(tmp_path / 'c', changes={'decay_from': 99, 'samples': 24})


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


def altered_facts(facts):
    "Facts, as JSON, that something is wrong with, and what is to be said of it."
    rest = {k: v for k, v in facts.items() if k != 'world'}
    return [('[1]', 'holds no facts'), ('{', 'facts that are not JSON'), ('null', 'holds no facts'),
            (json.dumps(rest), "holds no 'world'"), (json.dumps(facts | {'seen': 'many'}), """holds "many" as 'seen'"""),
            (json.dumps(facts | {'seen': True}), "true as 'seen'"), (json.dumps(facts | {'elapsed': float('nan')}), "as 'elapsed'"),
            (json.dumps(facts | {'config': [1]}), "as 'config'"), (json.dumps(facts | {'world': 'abc'}), 'accept-world'),
            (json.dumps(facts | {'config': facts['config'] | {'warmup': 0}}), 'warmup is 0, but must be at least 1')]


def altered_tensors(tensors, prefix):
    "Tensors that do not fit, and what is to be said of them."
    some = next(k for k in tensors if k.startswith('net.'))
    memory = next(k for k in tensors if k.startswith('adam.exp_avg.'))
    cases = [({k: v for k, v in tensors.items() if not k.startswith('codec.')}, 'codec: 3 of 3 weights do not fit'),
             (tensors | {'codec.scale': torch.ones(4)}, 'codec: 1 of 3'),
             (tensors | {'adam.step.nonsense': torch.ones(())}, 'first step.nonsense'),
             ({k: v for k, v in tensors.items() if k != memory}, 'first exp_avg'), (tensors | {memory: torch.ones(3)}, 'found .3'),
             (tensors | {some: tensors[some] * float('nan')}, 'not finite, first in ' + some.removeprefix('net.')),
             (tensors | {memory: tensors[memory] + float('inf')}, 'not finite, first in exp_avg')]
    if prefix == 'dit':
        cases += [(tensors | {'muon.wide': torch.ones(3)}, 'first wide'),
                  ({k: v for k, v in tensors.items() if not k.startswith('muon.')}, 'muon: 2 of 2 weights do not fit')]
    return cases


@pytest.mark.parametrize('kind', ['dit', 'vae'])
def test_altered_checkpoints_are_told(kind, codec, tmp_path, capsys):
    run = Training(Config(**TINY), world.vocabulary(), codec) if kind == 'dit' else VaeTraining(SMALL, codec)
    save, restore, command = ((save_run, restore_run, main) if kind == 'dit' else (save_vae, restore_vae, vae_module.main))
    path = tmp_path / 'checkpoint.safetensors'
    run.step()
    save(run, path)
    tensors, facts = read_checkpoint(path, kind)
    known = {'kind': kind, 'format': '1', 'facts': json.dumps(facts)}
    cases = [(tensors, known | {'facts': text}, message) for text, message in altered_facts(facts)]
    cases += [(tensors, {'kind': kind, 'format': '1'}, 'holds no facts')]
    cases += [(other, known, message) for other, message in altered_tensors(tensors, kind)]
    if kind == 'dit':
        cases += [(tensors, known | {'facts': json.dumps({k: v for k, v in facts.items() if k != 'words'})}, "no 'words'"),
                  (tensors, known | {'facts': json.dumps(facts | {'words': [1]})}, "as 'words'")]
    for held, about, message in cases:
        save_file(held, path, about)
        with pytest.raises(ValueError, match=f'{path}.*{message}'):
            restore(path)
        assert command(['--out', str(tmp_path), '--resume']) == 2
        said = capsys.readouterr().err
        assert said.startswith('error: ') and said.count('\n') == 1 and str(path) in said
    save_file(tensors, path, known | {'facts': json.dumps(facts | {'world': 'abc'})})
    assert restore(path, accept_world=True).seen == run.seen


@pytest.mark.parametrize('kind', ['dit', 'vae'])
def test_a_checkpoint_without_the_optimisers_memory_says_so(kind, codec, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(dit_module, 'WordSwaps', lambda *a, **k: None)
    caplog.set_level('INFO', 'vidlens')
    run = Training(Config(**TINY), world.vocabulary(), codec) if kind == 'dit' else VaeTraining(SMALL, codec)
    save, command = (save_run, main) if kind == 'dit' else (save_vae, vae_module.main)
    path = tmp_path / 'checkpoint.safetensors'
    run.step()
    save(run, path)
    again = ['--out', str(tmp_path), '--resume', '--minutes', '0']
    assert command(again) == 0 and 'from zero' not in caplog.text
    tensors, facts = read_checkpoint(path, kind)
    write_checkpoint(path, kind, {k: v for k, v in tensors.items() if k.split('.')[0] not in ('adam', 'muon')}, facts)
    assert command(again) == 0 and 'from zero' in caplog.text


def test_a_run_does_not_end_before_what_it_has_seen(run, tmp_path, capsys):
    path = tmp_path / 'checkpoint.safetensors'
    run.config = replace(run.config, samples=12)
    run.step(), run.step()
    save_run(run, path)
    old = path.read_bytes()
    assert main(['--out', str(tmp_path), '--resume', '--samples', '8']) == 2 and path.read_bytes() == old
    assert 'has seen 16 clips already: give at least --samples 16, or leave it out' in capsys.readouterr().err
    assert restore_run(path, changes={'samples': 12}).seen == 16
    assert restore_run(path, changes={'samples': 20}).config.samples == 20
    vae = VaeTraining(SMALL, fit_codec(64))
    vae.step()
    save_vae(vae, path)
    with pytest.raises(ValueError, match='has seen 2 clips already'):
        restore_vae(path, changes={'samples': 1})


def test_parts_that_dead_processes_left_are_swept(tmp_path):
    path = tmp_path / 'checkpoint.safetensors'
    dead = subprocess.Popen([sys.executable, '-c', ''])
    dead.wait()
    parts = [tmp_path / f'.checkpoint.{who}.part.safetensors' for who in (dead.pid, os.getppid(), 'x', 10**30)]
    for part in parts:
        part.write_bytes(b'half')
    write_checkpoint(path, 'dit', {'x': torch.ones(1)}, {})
    assert [p.exists() for p in parts] == [False, True, True, True] and path.is_file()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_stop_in_the_middle_of_a_step_waits_for_its_end(number, run, codec, tmp_path, monkeypatch):
    monkeypatch.setattr(dit_module, 'WordSwaps', lambda *a, **k: None)
    def stopped_in(optimiser):
        step = optimiser.step
        def stop():
            signal.raise_signal(number)
            step()
        optimiser.step = stop
    # what runs in the background of a shell ignores SIGINT
    before = {n: signal.signal(n, signal.default_int_handler) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        whole = Training(run.config, world.vocabulary(), codec)
        whole.step()
        stopped_in(run.adam)
        train(run, tmp_path)
        one, small = VaeTraining(SMALL, codec), VaeTraining(SMALL, codec)
        one.step()
        stopped_in(small.adam)
        _train_vae(small, tmp_path / 'vae', 1.)
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)
    assert run.seen == 8 and small.seen == 2
    assert same(dict(restore_run(tmp_path / 'checkpoint.safetensors').net.named_parameters()), dict(whole.net.named_parameters()))
    again = restore_vae(tmp_path / 'vae' / 'checkpoint.safetensors')
    assert same(dict(again.vae.named_parameters()), dict(one.vae.named_parameters()))


def test_what_is_not_finite_changes_and_saves_nothing(run, codec, tmp_path, monkeypatch):
    monkeypatch.setattr(dit_module, 'WordSwaps', lambda *a, **k: None)
    vae, path = VaeTraining(SMALL, codec), tmp_path / 'checkpoint.safetensors'
    for one, net, go in ((run, run.net, lambda: train(run, tmp_path)), (vae, vae.vae, lambda: _train_vae(vae, tmp_path, 1.))):
        one.step()
        (save_run if one is run else save_vae)(one, path)
        old, weights = path.read_bytes(), {k: p.clone() for k, p in net.named_parameters()}
        some = next(net.parameters())
        handle = some.register_hook(lambda grad: grad * float('nan'))
        with pytest.raises(ValueError, match=f'gradient is not finite after {one.seen} clips'):
            go()
        handle.remove()
        assert path.read_bytes() == old and same(weights, dict(net.named_parameters()))
        with torch.no_grad():
            some.fill_(float('inf'))
        with pytest.raises(ValueError, match='not finite, first in .*: nothing was saved'):
            (save_run if one is run else save_vae)(one, path)
        assert path.read_bytes() == old


def test_progress_is_a_small_table(run, tmp_path, monkeypatch, caplog):
    caplog.set_level('INFO', 'vidlens')
    monkeypatch.setattr(WordSwaps, 'measure', lambda *a: dict.fromkeys(SWAPS, (.5, .0123)))
    for _ in range(2):      # the second is a resumed run
        progress = Progress(tmp_path, run)
        for swaps in (False, True, False):
            progress.add(*run.step())
            progress.row(swaps)
    lines = caplog.messages
    assert len(lines) == 2 * (4 + 9) and max(map(len, lines)) <= 100 and not any('{' in line for line in lines)
    head = lines[0].split('  ')
    assert [i for i, line in enumerate(lines) if line.split()[:1] == ['seen']] == [0, 13] and 'per second' in head
    assert len({len(lines[i]) for i in (0, 1, 2, 12, 13)}) == 1 and lines[1].split()[0] == '8'
    found = {line.split()[0]: line.split()[1:] for line in lines[3:12]}
    assert {'told', 'said'} < set(found) and found['swaps'] == ['0.50'] * 6 and found['excess'] == ['0.0123'] * 6
    assert 'zoom, roll' in lines[9] and set(read_progress(tmp_path)[1]['swaps']) == set(SWAPS)


def test_progress_of_the_vae_is_a_small_table(codec, tmp_path, monkeypatch, caplog):
    caplog.set_level('INFO', 'vidlens')
    monkeypatch.setattr(vae_module, 'vae_quality', lambda *a: dict.fromkeys(QUALITIES, 30.))
    _train_vae(VaeTraining(replace(SMALL, samples=6), codec), tmp_path, 1., save_every=0, test_every=1e9)
    lines = caplog.messages[:-1]
    assert lines[0].split() == ['seen', 'minutes', 'rate', 'encoder', 'decoder']
    assert [line.split()[0] for line in lines[1:4]] == ['2', '4', '6']
    assert len({len(line) for line in lines[:4]}) == 1 and 'both, objects' in lines[4] and lines[5].split()[:2] == ['test', '30']
    assert len(lines) == 6 and [r['decoder'] for r in read_progress(tmp_path)][-1] == 30


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
    for text, message in (('warmup=0', 'warmup is 0, but must be at least 1'), ('ema=2', 'ema is 2, but must be at least 0'),
                          ('muon=-1', 'muon is -1, but must be more than 0'), ('adam=0', 'adam is 0'), ('tell=-1', 'tell is -1'),
                          ('empty=1.5', 'a share between'), ('spread=[9, 8]', 'smaller one first'), ('seed=-1', 'seed is -1')):
        assert main(['--out', str(tmp_path / 'run'), '--set', text]) == 2 and message in capsys.readouterr().err
    for wrong, message in (({'warmup': 0}, 'warmup is 0'), ({'rate': 0.}, 'rate is 0.0'), ({'ema': 1.}, 'ema is 1.0'),
                           ({'noise': -1.}, 'noise is -1.0')):
        with pytest.raises(ValueError, match=message):
            VaeConfig(**wrong)
    assert not (tmp_path / 'run').exists()
    assert Config.of({'decay_from': None, 'levels': [.2, .4], 'muon': 1}).levels == (.2, .4)


@pytest.mark.parametrize('command', [main, vae_module.main])
def test_files_for_folders_and_a_stop_in_the_set_up(command, tmp_path, capsys, monkeypatch):
    file = tmp_path / 'file'
    file.write_text('x')
    cases = [(['--out', str(file)], 'is a file, but must be a folder'), (['--out', str(file), '--resume'], 'is a file, but must'),
             (['--out', str(tmp_path), '--resume'], 'start a run there without --resume')]
    if command is main:
        cases += [(['--out', str(tmp_path), '--config', str(tmp_path)], 'is a folder: give the JSON file in it')]
        file.write_bytes(b'\xff\xfe')
        cases += [(['--out', str(tmp_path), '--config', str(file)], 'file is not JSON')]
    else:
        cases += [(['--out', str(tmp_path), '--dit', str(tmp_path)], 'there is no checkpoint at')]
    for argv, message in cases:
        assert command(argv) == 2 and message in capsys.readouterr().err
    refused = PermissionError(13, 'Permission denied', 'x')
    for error, status, said in ((refused, 2, "denied: 'x'"), (KeyboardInterrupt(), 130, 'stopped')):
        def fail(*_, error=error):
            raise error
        for module in (dit_module, vae_module):
            monkeypatch.setattr(module, '_begin', fail)
        assert command(['--out', str(tmp_path)]) == status and said in capsys.readouterr().err


def test_export_tells_what_it_was_given(tmp_path, capsys):
    out = ['--vae', 'none', '--out', str(tmp_path / 'out')]
    for given, message in (('nope', 'there is no checkpoint at'), ('', 'is a folder, but a checkpoint is a file: give')):
        assert export_module.main(['--dit', str(tmp_path / given), *out]) == 2
        said = capsys.readouterr().err
        assert message in said and 'checkpoint.safetensors' in said and 'resume' not in said


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
    lines = [shlex.split(line, comments=True) for line in card.splitlines() if line.startswith('python -m vidlens.bundled.')]
    asked = {words[2].rpartition('.')[2]: words[3:] for words in lines}
    assert list(asked) == ['dit', 'vae', 'export', 'gates', 'modelcard']
    config = Config.read(ROOT / _arguments(asked['dit']).config)
    assert config == Config.of(made['config']) and config.contrast == 1 and config.samples == made['clips']
    vae = _vae_arguments(asked['vae'])
    assert (vae.samples, vae.decay_from) == (made['vae config']['samples'], made['vae config']['decay_from'])
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
