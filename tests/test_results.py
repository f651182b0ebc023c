"""Results: what goes in comes out, and every bad file is one sentence that names it."""
import json
import math
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import vidlens.core.results as results
from vidlens.core.grid import Grid
from vidlens.core.results import Result, load_result, pack_value, unpack_value
from vidlens.core.stats import Interval
from vidlens.core.tables import BestSite, SiteTable


def site(**facts):
    return BestSite(layer=4, step=18, num_inference_steps=30, sigma=.61, by='accuracy',
                    scores={'accuracy': Interval(.9, .8, .95)}, facts=facts)


@dataclass(eq=False)
class Scores(SiteTable):
    "Registered as a class of vidlens while a test runs."
    acc: torch.Tensor
    facts: dict = field(default_factory=dict)
    DIMS = dict(acc=('step', 'layer'))
    names = ['acc']

    def map(self, name):
        return getattr(self, name)


@pytest.fixture
def scores(monkeypatch):
    monkeypatch.setitem(results.RECORDS, 'Scores', 'core.tables')
    monkeypatch.setattr('vidlens.core.tables.Scores', Scores, raising=False)
    monkeypatch.setattr(Scores, '__module__', 'vidlens.core.tables')
    return Scores([5, 20], [.8, .3], [2, 4], torch.tensor([[.2, .9], [.4, math.nan]]), dict(num_inference_steps=30, ok=True))


def same(a, b):
    if isinstance(a, (torch.Tensor, np.ndarray)):
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and np.array_equal(
            *(np.array(x.float() if isinstance(x, torch.Tensor) else x) for x in (a, b)), equal_nan=True)
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or a != a and b != b)


@pytest.mark.parametrize('value', [
    None, True, 0, -2 ** 70, 1.5, .1 + .2, math.nan, math.inf, -math.inf, '', 'ü "$tensor" \n\x00 \U0001f600', [], (), {}, set(),
    [1, [2, (3, 'a')]], (1, (2,)), {1, 2}, {'a', 1}, {'b': 1, 'a': {'c': None}}, {3: 'x', (1, 2): 'y', None: 'z', 'k': 0},
    {'$tensor': '0'}, {'$record': 'Grid', 'x': 1}, Grid(5, 3, 4), Interval(.5, .25, .75),
    Interval(torch.ones(2), torch.zeros(2), 1.),
    site(a=1), torch.tensor(3.), torch.empty(0, 4), torch.arange(6).view(2, 3).T, torch.tensor([True, False]),
    torch.tensor([1.5, math.nan]), torch.rand(2, 3).half(), torch.rand(3).bfloat16(), torch.tensor([2 ** 60]),
    torch.rand(2).double(),
    np.array(2.5), np.arange(6)[::-2], np.arange(4, dtype=np.uint8), np.array([True]), np.zeros((2, 0), np.float16),
    np.arange(6.).reshape(2, 3).T,
], ids=lambda v: type(v).__name__)
def test_every_kind_of_value_comes_back(value, tmp_path):
    again = load_result(site(x=value).save(tmp_path / 'a.safetensors')).facts['x']
    assert same(again, value)


def test_what_comes_back_as_something_plainer(tmp_path):
    "Ranges as lists, numbers of numpy as Python's, other tuples and sets as such, paths and dtypes as strings."
    given = dict(a=range(3), b=np.float32(.5), c=torch.Size([1, 2]), d=frozenset([1]), e=Path('x/y'), f=torch.bfloat16,
                 g=torch.device('cpu'), h=np.int64(3))
    want = dict(a=[0, 1, 2], b=.5, c=(1, 2), d={1}, e=str(Path('x/y')), f='bfloat16', g='cpu', h=3)
    assert same(site(**given).save(tmp_path / 'a') and load_result(tmp_path / 'a').facts, want)


def test_tensors_are_copied_whole(tmp_path):
    "Views, shared memory and gradients make no difference; the result itself is not changed."
    x = torch.rand(4, 4, requires_grad=True)
    given = site(row=x[1], same=x, again=x)
    found = load_result(given.save(tmp_path / 'a')).facts
    assert torch.equal(found['row'], x[1]) and torch.equal(found['again'], x) and not found['same'].requires_grad
    assert given.facts['same'] is x and x.requires_grad


class Pair(NamedTuple):
    a: int


@dataclass
class Grid2:
    a: int


FakeGrid = type('Grid', (Grid2,), {})


@pytest.mark.parametrize('value, message', [
    (object(), r"BestSite.facts\['x'\]: a object cannot be stored"), (Pair(1), 'Pair is not listed in RECORDS'),
    (Grid2(1), 'Grid2 is not listed'), (FakeGrid(1), 'Grid is not listed'), (b'x', 'a bytes cannot be stored'), (3j, 'a complex'),
    ([1, [2, object()]], r"facts\['x'\]\[1\]\[1\]: a object"), (np.array(['a']), 'a ndarray of <U1 cannot be stored'),
    (torch.ones(2, dtype=torch.cfloat), 'of torch.complex64'), (torch.eye(2).to_sparse(), 'cannot be stored'),
    (len, 'cannot be stored'),
])
def test_what_cannot_be_stored(value, message, tmp_path):
    with pytest.raises(TypeError, match=message):
        site(x=value).save(tmp_path / 'a')
    assert not list(tmp_path.iterdir())


def test_what_holds_itself_cannot_be_stored(tmp_path):
    loop = []
    loop.append(loop)
    with pytest.raises(TypeError, match='nested too deeply'):
        site(x=loop).save(tmp_path / 'a')


def test_files_are_not_replaced(tmp_path):
    path = site().save(tmp_path / 'a')
    with pytest.raises(FileExistsError, match='force=True'):
        site(x=1).save(path)
    assert load_result(path).facts == {} and load_result(site(x=1).save(path, force=True)).facts == {'x': 1}
    with pytest.raises(FileNotFoundError, match='does not exist'):
        site().save(tmp_path / 'no' / 'a')
    assert BestSite.load(path).step == 18
    with pytest.raises(ValueError, match='holds a BestSite, not a SiteTable: read it with load_result'):
        SiteTable.load(path)


def altered(path, change):
    "The same file with its JSON changed; `change` returns the new text or the new object."
    with safe_open(path, framework='pt') as f:
        head, tensors = json.loads(f.metadata()['vidlens']), {k: f.get_tensor(k) for k in f.keys()}
    new = change(head)
    save_file(tensors, path, metadata={'vidlens': new if isinstance(new, str) else json.dumps(new)})
    return path


def result(value):
    return lambda head: head | {'result': value}


def fields(**new):
    return lambda head: head | {'result': {'$record': 'BestSite', 'fields': head['result']['fields'] | new}}


DEEP = '[' * 100_000 + ']' * 100_000
CHANGES = {
    'no JSON': lambda head: '{', 'a list': lambda head: [], 'null': lambda head: 'null', 'too deep': lambda head: DEEP,
    'deep, but JSON': lambda head: json.dumps(head | {'result': 0}).replace('"result": 0', '"result": ' + '[' * 600 + ']' * 600),
    'no result': lambda head: {k: v for k, v in head.items() if k != 'result'},
    'other format': lambda head: head | {'format': 'other 2'},
    'a number': result(3), 'a grid': result({'$record': 'Grid', 'fields': dict(frames=1, rows=1, cols=1)}),
    'unknown record': result({'$record': 'Popen', 'fields': {'args': 'true'}}), 'no name': result({'$record': 3, 'fields': {}}),
    'a list as name': result({'$record': ['os'], 'fields': {}}), 'no fields': result({'$record': 'BestSite'}),
    'fields are a list': result({'$record': 'BestSite', 'fields': [1]}), 'too few': result({'$record': 'BestSite', 'fields': {}}),
    'too many': fields(more=1), 'inside': fields(facts={'x': {'$record': 'os.system', 'fields': {}}}),
    'lost tensor': fields(facts={'$tensor': '7'}), 'tensor of nothing': fields(facts={'$tensor': [1]}),
    'array': fields(facts={'$array': '7'}), 'float': fields(sigma={'$float': 'x'}), 'tuple': fields(scores={'$tuple': 3}),
    'set': fields(scores={'$set': [[1]]}), 'dict': fields(scores={'$dict': [[1]]}),
    'other kind': fields(facts={'$call': 'os.system'}),
    'a grid of no size': fields(facts={'$record': 'Grid', 'fields': dict(frames=0, rows=1, cols=1)}),
    'a grid of words': fields(facts={'$record': 'Grid', 'fields': dict(frames='a', rows=1, cols=1)}),
}


@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)
def test_altered_files(change, tmp_path):
    path = altered(site(x=torch.ones(2)).save(tmp_path / 'a.safetensors'), change)
    with pytest.raises(ValueError) as e:
        load_result(path)
    message = str(e.value)
    assert str(path) in message and '\n' not in message and len(message) < 500, message
    assert 'cannot be read as a result of vidlens (' in message or 'which is not a result' in message


def test_a_file_of_another_version_says_so(tmp_path):
    path = altered(site().save(tmp_path / 'a'),
                   lambda head: {**head, 'vidlens': '99', 'result': {'$record': 'Later', 'fields': {}}})
    with pytest.raises(ValueError, match="record 'Later', which this version does not know; vidlens 99 wrote it"):
        load_result(path)


def test_cut_off_and_other_files(tmp_path):
    path = site(x=torch.rand(64)).save(tmp_path / 'a')
    whole = path.read_bytes()
    (tmp_path / 'plain').write_bytes(b'')
    save_file({'x': torch.ones(2)}, tmp_path / 'weights')
    others = [b'', b'cut', whole[:4], whole[:40], whole[:-1], whole[:-200], whole + b'more', b'\x89PNG\r\n\x1a\n' + bytes(60),
              struct.pack('<Q', 2 ** 62) + whole[8:], (tmp_path / 'weights').read_bytes(), b'\xff' * 200]
    for content in others:
        path.write_bytes(content)
        with pytest.raises(ValueError, match='cannot be read as a result of vidlens') as e:
            load_result(path)
        assert str(path) in str(e.value) and '\n' not in str(e.value)
    for missing in (tmp_path / 'none', tmp_path):
        with pytest.raises(FileNotFoundError, match='there is no file'):
            load_result(missing)


def test_unpack_value_is_the_way_back_of_pack_value():
    tensors = {}
    packed = json.loads(json.dumps(pack_value({'a': torch.ones(2), 'b': (1, math.nan)}, tensors)))
    assert list(tensors) == ['0'] and unpack_value(packed, tensors)['b'][0] == 1


# Tables, labels and one line

def test_a_table_of_sites(scores, tmp_path):
    again = load_result(scores.save(tmp_path / 'a'))
    assert type(again) is Scores and same(again.acc, scores.acc) and again.facts == scores.facts
    best = again.best()
    assert (best.layer, best.step, best.num_inference_steps, best.sigma, best.by) == (4, 5, 30, .8, 'acc')
    assert best['acc'] == pytest.approx(.9) and again.best('acc') == best
    with pytest.raises(ValueError, match="by='other' is unknown: use 'acc'"):
        scores.best('other')
    with pytest.raises(ValueError, match=r'layer=3 is unknown: use 2 or 4'):
        scores.at(5, 3)
    with pytest.raises(KeyError, match="'pck' was not measured here: use acc"):
        best['pck']
    scores.acc[:] = math.nan
    with pytest.raises(ValueError, match='acc was measured at no site'):
        scores.best()


def test_labels(scores):
    data = scores.to_xarray()
    assert data.acc.dims == ('step', 'layer') and float(data.acc.sel(step=5, layer=4)) == pytest.approx(.9)
    assert data.attrs == {'num_inference_steps': 30, 'ok': 'True'}
    rows = scores.to_dataframe()
    assert list(rows.columns) == ['step', 'layer', 'acc'] and len(rows) == 4 and 'step' in rows.to_latex()
    row = site().to_dataframe()
    assert row.loc[0, 'accuracy_low'] == .8 and site().to_xarray()['layer'].item() == 4
    with pytest.raises(ValueError, match='this Bare holds no tensors with named axes'):
        Bare(1).to_dataframe()


@dataclass
class Bare(Result):
    a: int
    b: dict = field(default_factory=dict)
    DIMS = dict(b=('frame',))


def test_dicts_of_tensors_and_exact_numbers():
    x = torch.tensor([.1, .2], dtype=torch.float64)
    data = Bare(1, {'cat': x, 'dog': x.bfloat16(), 'none': None}).to_xarray()
    assert data.cat.dtype == np.float64 and list(data) == ['cat', 'dog'] and float(data.cat[0]) == .1


def test_one_line(scores):
    assert repr(scores) == ("Scores(steps=[5, 20], sigmas=[0.8, 0.3], layers=[2, 4], acc=2x2 float32, "
                            "facts={num_inference_steps, ok})")
    assert repr(site()) == "BestSite(layer=4, step=18, num_inference_steps=30, sigma=0.61, by='accuracy')"
    many = Bare(1, dict.fromkeys('abcdefgh'))
    assert repr(many) == 'Bare(a=1, b={a, b, c, d, e, f, ...})' and '\n' not in repr(many)
    assert repr(Bare(list(range(30)))) == 'Bare(a=[0, 1, ..., 29], b={})'


# What holds for every class in the table

def test_every_record_is_where_the_table_says():
    from dataclasses import fields, is_dataclass
    for name, module in results.RECORDS.items():
        found = results._record(name)
        assert found.__name__ == name and found.__module__ == f'vidlens.{module}', name
        assert is_dataclass(found) or hasattr(found, '_asdict'), name
        if issubclass(found, Result) and isinstance(found.DIMS, dict):
            assert all(x in {f.name for f in fields(found)} or hasattr(found, x) for x in found.DIMS), f'{name}: DIMS names fields'


# Results without a picture: their DataFrame says it all, or a room has not drawn them yet. This list only shrinks.
NO_PICTURE = []


def test_every_result_has_a_picture():
    "A class of results is drawn by its room or by core, or holds the video that is shown."
    from importlib import import_module
    missing = []
    for name in results.RECORDS:
        found = results._record(name)
        if not issubclass(found, Result) or 'video' in {*getattr(found, '__dataclass_fields__', ()), *dir(found)}:
            continue
        rooms = {c.__module__.split('.')[1] for c in found.__mro__ if c.__module__.startswith('vidlens.')}
        for room in rooms & {'core', 'motion', 'points', 'seam', 'words', 'world'}:
            try:
                draw = getattr(import_module(f'vidlens.{room}.pictures'), 'draw', None)
            except ModuleNotFoundError:
                continue
            if draw and draw.dispatch(found) is not draw.dispatch(object):
                break
        else:
            missing.append(name)
    assert set(missing) <= set(NO_PICTURE), f'{missing}: register a picture with @draw.register in `pictures` of the room'
