"""Guards of the house, run on the project and, at the end, on planted faults."""
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from guards import (ENV, KB, LIB, NBS, ROOT, TOP, diet, differences, imported, layering, long_functions, modules,
                    notebooks, sources, strangers, texts, tracked, unfinished)

import vidlens

EXPLORERS = {'controls', 'explorers', 'experiments', 'viewer'}  # their classes are widgets, which need a base


def test_top_level():
    assert {f.relative_to(ROOT).parts[0] for f in tracked()} == TOP
    assert (NBS / '_quarto.yml').is_symlink() and (NBS / '_quarto.yml').samefile(ROOT / '_quarto.yml')


def test_layering():
    assert not list(layering(modules(), sources()))


def test_import_cost():
    assert not imported('import vidlens'), '`import vidlens` must load torch and numpy at most'
    names = [m for m in sorted(modules()) if m not in EXPLORERS | {'all'}]
    heavy = imported('\n'.join(f'import vidlens.{m}' for m in names))
    assert not heavy, f'importing modules of vidlens loads {heavy}: import them inside the functions that use them'


def test_public_names():
    everything = importlib.import_module('vidlens.all')
    pinned = (ROOT / 'tests/public_names.txt').read_text().split()
    assert sorted(everything.__all__) == sorted(pinned), 'a change of public names goes into tests/public_names.txt too'
    assert all(hasattr(everything, name) for name in pinned)
    assert {'sites', 'resize', 'encode', 'decode', 'as_video', 'best_layer'} <= set(pinned), 'messages and docstrings name them'
    with pytest.raises(AttributeError, match='Grid'):
        vidlens.__getattr__('no_such_name')


def test_no_module_is_named_like_a_function():
    "Importing such a module would put it in the function's place."
    names = set(modules())
    public = {m: importlib.import_module(f'vidlens.{m}').__all__ for m in names - {'all'}}
    assert not {m: clash for m, own in public.items() if (clash := names & set(own))}


@pytest.mark.parametrize('nb', notebooks(), ids=lambda nb: nb.relative_to(ROOT).as_posix())
def test_diet(nb):
    assert not diet(json.loads(nb.read_text(encoding='utf-8')), nb.stat().st_size)


def test_no_strangers():
    assert not {name: found for name, text in texts() if (found := strangers(text))}


def test_nothing_unfinished():
    assert not {name: found for name, text in texts() if (found := unfinished(text))}


def test_functions_fit_on_a_screen():
    assert not {name: found for name, source in sources().items() if (found := long_functions(source))}


def test_export_in_sync(tmp_path):
    "Modules are what the notebooks export, no more (orphans of deleted notebooks) and no less."
    shutil.copytree(NBS, tmp_path / 'nbs', symlinks=True, ignore=shutil.ignore_patterns('.ipynb_checkpoints'))
    (tmp_path / 'vidlens').mkdir()
    for f in ('settings.ini', 'setup.py', 'README.md', '_quarto.yml', 'vidlens/__init__.py', 'vidlens/__main__.py'):
        shutil.copy(ROOT / f, tmp_path / f)
    subprocess.run([Path(sys.executable).parent / 'nbdev_export'], cwd=tmp_path, env=ENV, check=True)
    assert not differences(LIB, tmp_path / 'vidlens'), 'run nbdev_export; delete modules whose notebook is gone'


def test_readme_in_sync():
    done = subprocess.run([sys.executable, '.ci/readme', '--check'], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_typed():
    assert (LIB / 'py.typed').exists() and "'py.typed'" in (ROOT / 'setup.py').read_text()


def test_quiet_by_default():
    code = "import logging, vidlens; logging.getLogger('vidlens.x').warning('heard'); print(len(logging.root.handlers))"
    out = subprocess.run([sys.executable, '-c', code], cwd=ROOT, env=ENV, capture_output=True, text=True)
    assert (out.stdout, out.stderr) == ('0\n', '')


# Guards that cannot fail guard nothing: each sees a planted fault.

def test_layering_can_fail():
    numbers = {'grid': '00', 'world': '01', 'matching': '12', 'maps': '14', 'lens': '20', 'cli': '50',
               'model.net': '9901', 'model.dit': '9902'}
    for name, line in [('grid', 'from .world import clip'), ('maps', 'from vidlens.world import clip'),
                       ('matching', 'import vidlens.maps'), ('maps', 'def f():\n    import diffusers.utils'),
                       ('world', 'from vidlens import lens'), ('lens', 'from vidlens import Grid'),
                       ('maps', 'from .maps import f'), ('model.net', 'from .dit import f'),
                       ('lens', 'from .model.net import f'), ('model.net', 'from . import dit')]:
        assert list(layering(numbers, {name: line})), (name, line)
    fine = {'maps': 'from .grid import Grid\nfrom vidlens.matching import f', 'lens': 'from . import maps, __version__',
            'cli': 'import vidlens\nfrom vidlens import Grid', 'model.dit': 'from .net import f\nfrom .. import world'}
    assert not list(layering(numbers, fine))


def test_diet_can_fail():
    def nb(**output):
        cell = {'cell_type': 'code', 'outputs': [{'output_type': 'display_data', **output}]}
        return {'cells': [cell], 'metadata': {}}
    assert not diet(nb(data={'image/png': 'x' * 50 * KB}), 60 * KB)
    assert diet(nb(), 121 * KB) and diet(nb() | {'metadata': {'widgets': {}}}, KB) and diet(nb(execution_count=1), KB)
    assert diet({'cells': nb()['cells'] * 81, 'metadata': {}}, KB) and diet(nb(name='stderr'), KB)
    assert diet(nb(data={'application/vnd.plotly.v1+json': {}}), KB)
    assert diet(nb(data={'image/png': 'x' * 60 * KB}), KB)


def test_other_guards_can_fail(tmp_path):
    assert strangers('see /wo' 'rk/x') and strangers('/tm' 'p/abc') and strangers('https://py' 'pi.org/simple')
    assert not strangers('a/work/b, tmp/x and ../home') and unfinished('# TO' 'DO: x')
    assert long_functions('def f():\n' + '    x = 1\n' * 45) and not long_functions('def f():\n' + '    x = 1\n' * 44)
    assert 'scipy' in imported('import scipy.stats')
    (tmp_path / 'a').mkdir(), (tmp_path / 'b').mkdir(), (tmp_path / 'a/orphan.py').touch()
    assert differences(tmp_path / 'a', tmp_path / 'b') == ['orphan.py']
