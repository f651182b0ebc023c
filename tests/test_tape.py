"""Tapes: what can be asked of one, and files that are whole or not there."""
import pickle

import pytest
import torch
from safetensors.torch import save_file
from seam import FAMILIES, call, pipe_of

from vidlens.core.grid import Grid
from vidlens.seam.choices import Budget
from vidlens.seam.capturing import capture
from vidlens.core.results import load_result
from vidlens.seam.tape import Site, Tape


def tape_of(**more):
    grid, g = Grid(2, 2, 2, stride=8), torch.Generator().manual_seed(0)
    data = {(kind, layer, step, 'cond'): torch.randn(1, 2, grid.n + 3, 4, generator=g)
            for kind in 'qk' for layer in (0, 2) for step in (0, 9)}
    return Tape(data, {0: (999., 1.), 9: (99., .25)}, grid, text=3, num_layers=3, num_inference_steps=10, facts={'model': 'M'},
                finished=True, **more)


def same(a, b):
    heads = [(t.times, t.grid, t.text, t.text_first, t.num_layers, t.num_inference_steps, t.facts, t.finished, t.tokens)
             for t in (a, b)]
    return heads[0] == heads[1] and list(a) == list(b) and all(
        x.dtype == b.data[k].dtype and torch.equal(x, b.data[k]) for k, x in a.data.items())


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_round_trip(tmp_path, dtype):
    tape = tape_of()
    tape.data = {k: x.to(dtype) for k, x in tape.data.items()}
    assert same(Tape.load(tape.save(tmp_path / 'a.tape')), tape)


@pytest.mark.parametrize('family', FAMILIES)
def test_round_trip_of_a_capture(tmp_path, family):
    with capture(pipe_of(family), 'q hidden', steps=-1, branch='both', budget=Budget(grad=True)) as tape:
        call(pipe_of(family), guided=True)
    again = Tape.load(tape.save(tmp_path / 'a.tape'))
    assert same(again, tape) and torch.equal(again['q', -1, -1, 'uncond'], tape.get('q', tape.num_layers - 1, 1, 'uncond'))


def test_tensors_that_share_memory_or_have_a_graph(tmp_path):
    x = torch.randn(1, 2, 8, 4, requires_grad=True)
    tape = Tape({('q', 0, 0, 'cond'): x * 2, ('k', 0, 0, 'cond'): x, ('v', 0, 0, 'cond'): x, ('o', 0, 0, 'cond'): x.mT})
    again = Tape.load(tape.save(tmp_path / 'a.tape'))
    assert again.grid is None and all(torch.equal(again.data[k], v) for k, v in tape.data.items())


def test_a_tape_without_run(tmp_path):
    assert same(Tape.load(Tape().save(tmp_path / 'a.tape')), Tape()) and 'empty' in repr(Tape())


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
    file = tape_of().save(tmp_path / 'a.tape')
    before = file.read_bytes()
    with pytest.raises(FileExistsError, match='a.tape exists.*force=True'):
        Tape().save(file)
    assert file.read_bytes() == before
    Tape().save(file, force=True)
    assert len(Tape.load(file)) == 0 and [f.name for f in tmp_path.iterdir()] == ['a.tape']


@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError('disk full'), MemoryError])
@pytest.mark.parametrize('there', [False, True])
def test_an_interrupted_write_leaves_no_half_tape(tmp_path, monkeypatch, error, there):
    import safetensors.torch

    file = tmp_path / 'a.tape'
    if there:
        Tape(facts={'model': 'old'}).save(file)

    def half(names, path, metadata):
        save_file(names, path, metadata)
        path.write_bytes(path.read_bytes()[:200])
        raise error

    monkeypatch.setattr(safetensors.torch, 'save_file', half)
    with pytest.raises(error if isinstance(error, type) else type(error)):
        tape_of().save(file, force=True)
    assert [f.name for f in tmp_path.iterdir()] == ['a.tape'] * there
    assert not there or Tape.load(file).facts == {'model': 'old'}


def test_what_a_probe_returned_is_saved_if_it_is_data(tmp_path):
    kept = {'x': (torch.arange(3), .5), 'y': [1, 'word', None]}
    tape = Tape({('q k', 0, 0, 'cond'): .5, ('q k', 1, 0, 'cond'): kept}, tokens='')
    again = load_result(tape.save(tmp_path / 'a.tape'))
    assert again.data['q k', 0, 0, 'cond'] == .5 and again.data['q k', 1, 0, 'cond']['y'] == kept['y']
    assert torch.equal(again.data['q k', 1, 0, 'cond']['x'][0], torch.arange(3))
    said = r"data.*q k', 0, 0, 'cond'.*object cannot be stored in a result: give numbers, strings, tensors"
    with pytest.raises(TypeError, match=said):
        Tape({('q k', 0, 0, 'cond'): object()}).save(tmp_path / 'b.tape')
    assert [f.name for f in tmp_path.iterdir()] == ['a.tape']


def test_where_a_tape_cannot_be_written(tmp_path):
    with pytest.raises(FileNotFoundError, match='the folder .* does not exist: make it first'):
        tape_of().save(tmp_path / 'no' / 'a.tape')
    with pytest.raises(IsADirectoryError, match='is a folder: give a file name'):
        tape_of().save(tmp_path, force=True)
    assert not list(tmp_path.iterdir())


class Bomb:
    def __reduce__(self):
        return open, ('/nonexistent/bomb', 'w')


@pytest.mark.parametrize('size', [0, 7, 100, 500, -1])
def test_cut_files(tmp_path, size):
    file = tape_of().save(tmp_path / 'a.tape')
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ValueError, match=r'a.tape cannot be read as a result .*write it again with result.save\(path\)'):
        Tape.load(file)


def test_other_files(tmp_path):
    file = tmp_path / 'a.tape'
    for write in (lambda: file.write_bytes(pickle.dumps(Bomb())), lambda: torch.save({'x': torch.ones(2)}, file),
                  lambda: file.write_text('q k v')):
        write()
        with pytest.raises(ValueError, match='cannot be read as a result'):
            Tape.load(file)
    for metadata in (None, {'tape': 'null'}, {'tape': '3'}, {'tape': '{"vidlens": "tape 99"}'}, {'other': 'x'}):
        save_file({'x': torch.ones(2)}, file, metadata)
        with pytest.raises(ValueError, match="header does not say 'vidlens result 1'.*result.save"):
            Tape.load(file)
    with pytest.raises(FileNotFoundError, match='there is no file .*result.save'):
        Tape.load(tmp_path / 'none')


def test_big_tensors_are_written_without_a_copy(tmp_path, monkeypatch):
    import safetensors.torch

    tape, seen = tape_of(), []
    monkeypatch.setattr(safetensors.torch, 'save_file',
                        lambda tensors, path, metadata: seen.append(tensors) or save_file(tensors, path, metadata))
    tape.save(tmp_path / 'a.tape')
    assert [x.data_ptr() for x in seen[0].values()] == [x.data_ptr() for x in tape.data.values()]


# -- tables and labelled arrays

def test_a_row_for_each_site():
    table = tape_of().to_dataframe()
    assert len(table) == 8 and list(table.columns) == ['kind', 'layer', 'step', 'branch', 't', 'sigma', 'shape', 'dtype', 'MiB']
    assert table.loc[table.step == 9, 'sigma'].eq(.25).all() and table['shape'][0] == (1, 2, 11, 4)
    numbers = Tape({('q', 0, 0, 'cond'): .5, ('q', 1, 0, 'cond'): torch.tensor(2)}, tokens='').to_dataframe()
    assert numbers['value'].tolist() == [.5, 2]


def test_labelled_arrays():
    tape = tape_of()
    found = tape.to_xarray()
    assert set(found) == {'q', 'k'} and found['q'].dims[3:] == ('batch', 'head', 'frame', 'row', 'col', 'channel')
    assert found.layer.values.tolist() == [0, 2] and found.step.values.tolist() == [0, 9]
    assert found.sigma.values.tolist() == [1, .25]
    one = torch.tensor(found['k'].sel(layer=2, step=9, branch='cond').values)
    assert torch.equal(one, tape.grid.unflatten(tape['k', 2, 9]))
    del tape.data['q', 0, 0, 'cond']
    assert bool(tape.to_xarray()['q'].sel(layer=0, step=0).isnull().all()) and not Tape().to_xarray().sizes


def test_labelled_arrays_of_layers_that_differ():
    "As in a UNet: each shape has its own variable and its own axes."
    a, b = Grid(2, 4, 4, 8), Grid(2, 2, 2, 16)
    data = {('hidden', i, 0, 'cond'): torch.randn(1, g.n, 3 + i) for i, g in enumerate((a, b))}
    tape = Tape(data, {0: (9., 1.)}, a, num_layers=2, num_inference_steps=1, grids={1: b})
    found = tape.to_xarray()
    assert found['hidden_layer0'].dims == ('layer', 'step', 'branch', 'batch', 'frame', 'row', 'col', 'channel')
    second = found['hidden_layer1']
    assert second.dims[-4:] == ('frame', 'row_hidden_layer1', 'col_hidden_layer1', 'channel_hidden_layer1')
    assert torch.equal(torch.tensor(second.values[0, 0, 0]), b.unflatten(tape['hidden', 1]))


def test_labelled_arrays_of_a_probe_and_of_a_capture():
    pipe = pipe_of('wan')
    with capture(pipe, 'q k', probe=lambda site, q, k: dict(q=q.mean(), heads=k.mean((0, 2, 3)))) as probed, \
            capture(pipe, 'q xk hidden', branch='both', tokens='all') as kept:
        call(pipe, guided=True)
    found = probed.to_xarray()
    assert found['q k.q'].dims == ('layer', 'step', 'branch') and found['q k.heads'].shape == (3, 2, 1, 2)
    whole = kept.to_xarray()
    assert whole['xk'].dims[-2:] == ('token', 'channel') and list(whole.branch.values) == ['cond', 'uncond']
    assert whole['hidden'].dims[-4:] == ('frame', 'row', 'col', 'channel_hidden')
    assert whole.attrs['model'] == 'WanTransformer3DModel'
