"""Guards of the house, run on the project and, at the end, on planted faults."""
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from exceptions import ARGUMENTS, CELL_LINES, HOMONYMS, LONG_CELLS, OLD_WORDS, OPEN_ENDED, UNDOCUMENTED
from guards import (ENV, GLOSSARY, KB, LIB, NBS, ROOMS, ROOT, TOP, code_cells, diet, differences, homonyms, imported, layering,
                    long_functions, many_arguments, modules, notebooks, old_words, old_words_of, open_ended, percentile,
                    private_imports, sources, strangers, texts, tracked, undocumented, unfinished)

import vidlens

# their classes are widgets, which need a base
EXPLORERS = {'live.tabs', 'live.viewer', 'live.widgets', 'live.explorer'} | {
    f'live.{m}_explorer' for m in ('match', 'words', 'heads', 'video', 'channels', 'steer')}


def test_top_level():
    assert {f.relative_to(ROOT).parts[0] for f in tracked()} == TOP
    assert (NBS / '_quarto.yml').is_symlink() and (NBS / '_quarto.yml').samefile(ROOT / '_quarto.yml')


def test_layering():
    assert not list(layering(modules(), sources()))


def test_import_cost():
    assert not imported('import vidlens'), '`import vidlens` must load torch and numpy at most'
    names = [m for m in sorted(modules()) if m not in EXPLORERS]
    heavy = imported('\n'.join(f'import vidlens.{m}' for m in names))
    assert not heavy, f'importing modules of vidlens loads {heavy}: import them inside the functions that use them'


def test_public_names():
    everything = {}
    exec('from vidlens import *', everything)
    pinned = (ROOT / 'tests/public_names.txt').read_text().split()
    assert sorted(vidlens.__all__) == sorted(pinned), 'a change of public names goes into tests/public_names.txt too'
    assert everything.keys() >= set(pinned)
    assert {'sites', 'fit_video', 'trace', 'load_result'} <= set(pinned) and len(pinned) <= 30, 'messages and docstrings name them'
    with pytest.raises(AttributeError, match='Grid'):
        vidlens.__getattr__('no_such_name')


def test_no_module_is_named_like_a_function():
    "Importing such a module would put it in the function's place."
    names = {m.rpartition('.')[2] for m in modules()} | set(ROOMS)
    public = {m: importlib.import_module(f'vidlens.{m}').__all__ for m in modules()}
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


def test_private_names_stay_at_home():
    found = private_imports(sources())
    assert sum(map(len, found.values())) <= 20, found


def test_functions_take_few_arguments():
    found = {f'{m}.{name}': n for m, source in sources().items() for name, n in many_arguments(source).items()}
    assert not {name: n for name, n in found.items() if n > ARGUMENTS.get(name, (0,))[0]}, 'gather options in a frozen dataclass'
    more = {f'{m}.{name}' for m, source in sources().items() for name in open_ended(source)}
    assert more <= set(OPEN_ENDED), f'{more - set(OPEN_ENDED)}: name the arguments instead of **kwargs'


def test_public_names_have_one_home():
    assert not {name: at for name, at in homonyms(sources()).items() if name not in HOMONYMS}


def by_room(found):
    "Faults of notebooks or modules, by room."
    rooms = {}
    for name, faults in found.items():
        room = name.split('/')[0] if name.endswith('.ipynb') else name.split('.')[0]
        rooms.setdefault(room, []).extend(faults)
    return rooms


def test_arguments_are_documented():
    found = by_room({m: [f'{m}.{x}' for x in undocumented(source)] for m, source in sources().items()})
    assert not {m: what for m, what in found.items() if len(what) > UNDOCUMENTED.get(m, 0)}, 'a comment beside each argument'


def test_cells_are_short():
    found = {nb.relative_to(NBS).as_posix(): list(code_cells(nb)) for nb in notebooks()}
    lines = percentile([n for rows in found.values() for n, _, _ in rows], .9)
    assert lines <= CELL_LINES, f'one code cell of ten has more than {lines} lines: split them at function borders'
    long = by_room({nb: [f'{nb}: {name}, {n} lines' for n, name, exported in rows if exported and n > 40]
                    for nb, rows in found.items()})
    assert not {nb: names for nb, names in long.items() if len(names) > LONG_CELLS.get(nb, (0,))[0]}, 'over 40 lines'


def test_words_of_the_field():
    found = by_room({nb.relative_to(NBS).as_posix(): list(old_words(nb)) for nb in notebooks()})
    found['CONTRIBUTING'] = old_words_of((ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8'))
    assert not {name: words for name, words in found.items() if len(words) > OLD_WORDS.get(name, 0)}


def test_exceptions_have_reasons():
    assert all(reason for _, reason in [*ARGUMENTS.values(), *LONG_CELLS.values()])
    assert all([*OPEN_ENDED.values(), *HOMONYMS.values()])


def test_export_in_sync(tmp_path):
    "Modules are what the notebooks export, no more (orphans of deleted notebooks) and no less."
    shutil.copytree(NBS, tmp_path / 'nbs', symlinks=True, ignore=shutil.ignore_patterns('.ipynb_checkpoints'))
    by_hand = [f.relative_to(ROOT) for f in LIB.rglob('__*__.py')]
    for f in (*map(Path, ('settings.ini', 'setup.py', 'README.md', '_quarto.yml')), *by_hand):
        (tmp_path / f).parent.mkdir(parents=True, exist_ok=True)
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
    places = {'core.grid': ('core', 0), 'world.scenes': ('world', 5), 'seam.run': ('seam', 6), 'points.matching': ('points', 0),
              'words.maps': ('words', 0), 'words.word_maps': ('words', 10), 'cli': ('', 90), 'bundled.net': ('bundled', 1),
              'bundled.dit': ('bundled', 2)}
    for name, line in [('core.grid', 'from ..world.scenes import clip'), ('words.maps', 'from vidlens.world import clip'),
                       ('points.matching', 'import vidlens.words.maps'), ('words.maps', 'def f():\n    import diffusers.utils'),
                       ('world.scenes', 'from vidlens.seam import run'), ('words.word_maps', 'from vidlens import Grid'),
                       ('words.maps', 'from .maps import f'), ('words.maps', 'from .word_maps import f'),
                       ('words.maps', 'from ..seam.run import f'), ('bundled.net', 'from .dit import f'),
                       ('words.word_maps', 'from ..bundled.net import f'), ('cli', 'from .bundled import net'),
                       ('bundled.net', 'from . import dit')]:
        assert list(layering(places, {name: line})), (name, line)
    fine = {'words.maps': 'from ..core.grid import Grid\nfrom vidlens.points.matching import f',
            'words.word_maps': 'from . import maps\nfrom .. import __version__, world', 'bundled.dit': 'from .net import f',
            'cli': 'import vidlens\nfrom vidlens import Grid'}
    assert not list(layering(places, fine))


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


def test_guards_of_signatures_can_fail():
    source = ('class A:\n    def b(self, c, *d, e, **f):\n        return 1\n    def _g(self, **h):\n        pass\n'
              'def k(l):\n    pass\n')
    assert many_arguments(source, 3) == {'A.b': 4} and not many_arguments(source, 4) and open_ended(source) == {'A.b'}
    assert list(undocumented(source)) == ['A.b(c)', 'A.b(d)', 'A.b(e)', 'A.b(f)', 'k(l)']
    good = ('def f(a: int,    # px\n      b=(1,\n         2)  # pair\n      ) -> int:    # sum\n    "Adds."\n'
            'def g() -> int:\n    pass\n')
    assert not list(undocumented(good)) and list(undocumented(good.replace('# sum', ''))) == ['f -> int']
    fields = '@dataclass(frozen=True)\nclass C:\n    a: int\n    b: int = 1   # px\n'
    assert list(undocumented(fields)) == ['C.a'] and homonyms({'x': 'def f(): 1', 'y': 'class f: pass'}) == {'f': ['x', 'y']}
    assert private_imports({'core.a': 'from .b import _c\nfrom vidlens.core.d import e'}) == {'core.a': ['vidlens.core.b._c']}
    assert not private_imports({'core.a': 'from vidlens import _room, __version__\nfrom torch import _C'})


def test_guards_of_cells_and_words_can_fail(tmp_path):
    source = ['#| export\n', 'def f():\n', '    "The twin is told which way it goes."\n', *['    x = 1\n'] * 40]
    lesson = {'cell_type': 'markdown', 'source': ['The heads look at a rival.']}
    (tmp_path / 'a.ipynb').write_text(json.dumps({'cells': [{'cell_type': 'code', 'source': source}, lesson]}))
    assert list(code_cells(tmp_path / 'a.ipynb')) == [(44, 'f', True)] and percentile([*range(10), 50], .9) == 9
    assert len(list(old_words(tmp_path / 'a.ipynb'))) == 5 and not old_words_of('the untrained model attends to tokens')
    assert all(len(old_words_of(text)) == 1 for text in ('look_inside', 'Rivals', 'was told', 'it looks at', 'what is asked'))
    assert len(GLOSSARY) > 10
