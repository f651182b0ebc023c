"""Tapes: what can be asked of one, and files that are whole or not there."""
import pickle

import pytest
import torch
from safetensors.torch import save_file
from seam import FAMILIES, call, pipe_of

from vidlens.core.grid import Grid
from vidlens.seam.choices import Budget
from vidlens.seam.capturing import capture
from vidlens.seam.tape import Site, Tape, load_tape, save_tape


def tape_of(**more):
    grid, g = Grid(2, 2, 2, stride=8), torch.Generator().manual_seed(0)
    data = {(kind, layer, step, 'cond'): torch.randn(1, 2, grid.n + 3, 4, generator=g)
            for kind in 'qk' for layer in (0, 2) for step in (0, 9)}
    return Tape(data, {0: (999., 1.), 9: (99., .25)}, grid, text=3, layers=3, num_inference_steps=10, facts={'model': 'M'}, whole=True,
                **more)


def same(a, b):
    heads = [(t.times, t.grid, t.text, t.text_first, t.layers, t.num_inference_steps, t.facts, t.whole, t.tokens) for t in (a, b)]
    return heads[0] == heads[1] and list(a) == list(b) and all(
        x.dtype == b.data[k].dtype and torch.equal(x, b.data[k]) for k, x in a.data.items())


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_round_trip(tmp_path, dtype):
    tape = tape_of()
    tape.data = {k: x.to(dtype) for k, x in tape.data.items()}
    assert same(load_tape(save_tape(tape, tmp_path / 'a.tape')), tape)


@pytest.mark.parametrize('family', FAMILIES)
def test_round_trip_of_a_capture(tmp_path, family):
    with capture(pipe_of(family), 'q hidden', steps=-1, branch='both', budget=Budget(grad=True)) as tape:
        call(pipe_of(family), guided=True)
    again = load_tape(save_tape(tape, tmp_path / 'a.tape'))
    assert same(again, tape) and torch.equal(again['q', -1, -1, 'uncond'], tape.get('q', tape.layers - 1, 1, 'uncond'))


def test_tensors_that_share_memory_or_have_a_graph(tmp_path):
    x = torch.randn(1, 2, 8, 4, requires_grad=True)
    tape = Tape({('q', 0, 0, 'cond'): x * 2, ('k', 0, 0, 'cond'): x, ('v', 0, 0, 'cond'): x, ('o', 0, 0, 'cond'): x.mT})
    again = load_tape(save_tape(tape, tmp_path / 'a.tape'))
    assert again.grid is None and all(torch.equal(again.data[k], v) for k, v in tape.data.items())


def test_a_tape_without_run(tmp_path):
    assert same(load_tape(save_tape(Tape(), tmp_path / 'a.tape')), Tape()) and 'empty' in repr(Tape())


def test_get():
    tape = tape_of()
    q = tape.data['q', 2, 9, 'cond']
    assert torch.equal(tape.get('q', -1, -1), q[:, :, 3:]) and torch.equal(tape['q', 2, 9, 'cond'], q[:, :, 3:])
    assert torch.equal(tape.get('q', 2, 9, tokens='text'), q[:, :, :3])
    assert torch.equal(tape.get('q', 2, 9, tokens='all'), q)
    last = tape_of(text_first=False)
    assert torch.equal(last.get('q', 2, 9, tokens='text'), q[:, :, 8:])
    assert torch.equal(last.get('q', 2, 9), q[:, :, :8])
    assert ('q', 0, 0, 'cond') in list(tape) and len(tape) == 8 and tape.nbytes == 8 * 2 * 11 * 4 * 4
    assert 'q[layer 0, step 0, cond]' in repr(tape) and Site('q', 0, 0, 'cond').key in tape.data


@pytest.mark.parametrize('key, said', [
    (('q', 0), '2 sites match .q., layer 0, step any.*choose one of q.layer 0, step 0, cond., q.layer 0, step 9, cond.'),
    (('v', 0, 0), 'the tape holds kinds q, k; layers 0, 2; steps 0, 9; branch cond'),
    (('q', 1, 0), "layer 1.*the tape holds kinds q, k; of 'q' layers 0, 2; steps 0, 9; branch cond"),
    (('q', 0, 0, 'uncond'), 'branch uncond.*the tape holds')])
def test_what_is_not_there(key, said):
    with pytest.raises(KeyError, match=said):
        tape_of()[key]
    with pytest.raises(ValueError, match="tokens='some' is unknown: use 'video', 'text' or 'all'"):
        tape_of().get('q', 0, 0, tokens='some')


def test_what_there_is_in_short():
    one = torch.zeros(1)
    sites = [('q k', layer, step, branch) for layer in range(6) for step in (0, 1, 2, 3, 7) for branch in ('cond', 'uncond')]
    tape = Tape(dict.fromkeys([*sites, ('hidden', 5, 0, 'cond')], one))
    with pytest.raises(KeyError, match=r"holds kinds q k, hidden; layers 0 to 5; steps 0 to 3, 7; branch cond, uncond.$"):
        tape['q', 0, 0]
    with pytest.raises(KeyError, match="holds kinds q k, hidden; of 'hidden' layers 5; steps 0; branch cond.$"):
        tape['hidden', 4, 0]


def test_a_tape_is_a_mapping():
    tape = tape_of()
    assert list(tape.keys()) == list(tape) == [k for k, _ in tape.items()]
    assert all(torch.equal(x, tape[key]) for key, x in tape.items()) and dict(tape).keys() == tape.data.keys()


def test_what_a_probe_kept_comes_back_as_it_was():
    pipe = pipe_of('cogvideox')
    with capture(pipe, 'q', layers=0, steps=0, tokens='all', probe=lambda site, q: q @ q.mT) as tape:
        call(pipe)
    assert tape.get('q', 0).shape[-2:] == (tape.grid.n + tape.text,) * 2


def test_nothing_is_overwritten(tmp_path):
    file = save_tape(tape_of(), tmp_path / 'a.tape')
    before = file.read_bytes()
    with pytest.raises(FileExistsError, match='a.tape exists.*force=True'):
        save_tape(Tape(), file)
    assert file.read_bytes() == before
    save_tape(Tape(), file, force=True)
    assert len(load_tape(file)) == 0 and [f.name for f in tmp_path.iterdir()] == ['a.tape']


@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError('disk full'), MemoryError])
@pytest.mark.parametrize('there', [False, True])
def test_an_interrupted_write_leaves_no_half_tape(tmp_path, monkeypatch, error, there):
    import safetensors.torch

    file = tmp_path / 'a.tape'
    if there:
        save_tape(Tape(facts={'model': 'old'}), file)

    def half(names, path, metadata):
        save_file(names, path, metadata)
        path.write_bytes(path.read_bytes()[:200])
        raise error

    monkeypatch.setattr(safetensors.torch, 'save_file', half)
    with pytest.raises(error if isinstance(error, type) else type(error)):
        save_tape(tape_of(), file, force=True)
    assert [f.name for f in tmp_path.iterdir()] == ['a.tape'] * there
    assert not there or load_tape(file).facts == {'model': 'old'}


def test_only_tensors_are_saved(tmp_path):
    said = r'q k\[layer 0, step 0, cond\] is a float, not a tensor: .*let the probe return one'
    with pytest.raises(TypeError, match=said):
        save_tape(Tape({('q k', 0, 0, 'cond'): .5}), tmp_path / 'a.tape')
    with pytest.raises(FileNotFoundError, match='the folder .* does not exist: make it first'):
        save_tape(tape_of(), tmp_path / 'no' / 'a.tape')
    with pytest.raises(IsADirectoryError, match='is a folder: give a file name'):
        save_tape(tape_of(), tmp_path, force=True)
    assert not list(tmp_path.iterdir())


class Bomb:
    def __reduce__(self):
        return open, ('/nonexistent/bomb', 'w')


@pytest.mark.parametrize('size', [0, 7, 100, 500, -1])
def test_cut_files(tmp_path, size):
    file = save_tape(tape_of(), tmp_path / 'a.tape')
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ValueError, match='a.tape is not a whole tape .*write it again with save_tape'):
        load_tape(file)


def test_other_files(tmp_path):
    file = tmp_path / 'a.tape'
    for write in (lambda: file.write_bytes(pickle.dumps(Bomb())), lambda: torch.save({'x': torch.ones(2)}, file),
                  lambda: file.write_text('q k v')):
        write()
        with pytest.raises(ValueError, match='not a whole tape'):
            load_tape(file)
    for metadata in (None, {'tape': 'null'}, {'tape': '3'}, {'tape': '{"vidlens": "tape 99"}'}, {'other': 'x'}):
        save_file({'x': torch.ones(2)}, file, metadata)
        with pytest.raises(ValueError, match="holds tensors but no 'tape 1': write one with save_tape"):
            load_tape(file)
    with pytest.raises(FileNotFoundError, match='does not exist: save_tape'):
        load_tape(tmp_path / 'none')
