"""What the guards of the house look for: functions that list faults. test_house.py runs them."""
import ast
import filecmp
import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIB, NBS = ROOT / 'vidlens', ROOT / 'nbs'
TOP = {'nbs', 'vidlens', 'settings.ini', 'setup.py', 'tests', '_quarto.yml', 'README.md', 'LICENSE', 'CHANGELOG.md',
       'CONTRIBUTING.md', '.ci', '.gitignore', '.gitattributes'}
# What may be loaded by importing vidlens: these, and whatever they load themselves.
LIGHT = ['torch', 'numpy', 'einops']
KB = 1000
ENV = {k: v for k, v in os.environ.items() if k != 'IN_TEST'}   # with it nbdev_export would do nothing


def tracked():
    "Files that belong to the project: what git tracks or would add; without git, all but hidden and built ones."
    git = subprocess.run(['git', '-c', f'safe.directory={ROOT}', 'ls-files', '-co', '--exclude-standard', '-z'],
                         cwd=ROOT, capture_output=True, text=True) if (ROOT / '.git').exists() else None
    if git and git.returncode == 0:
        files = [ROOT / name for name in git.stdout.split('\0') if name]
    else:
        files = [f for top in TOP for f in [ROOT / top, *(ROOT / top).rglob('*')]
                 if not re.search(r'/(__pycache__|\.\w+_cache|\.ipynb_checkpoints|_proc)/', f'/{f.relative_to(ROOT)}')]
    return sorted(f for f in files if f.is_file())


def texts():
    for f in tracked():
        try:
            yield f.relative_to(ROOT).as_posix(), f.read_text(encoding='utf-8')
        except UnicodeDecodeError:
            pass   # weights, pictures


def notebooks():
    return [f for f in tracked() if f.suffix == '.ipynb']


def cells(nb):
    return json.loads(nb.read_text(encoding='utf-8'))['cells']


def modules():
    "module -> number of its notebook; a folder of notebooks (model.net) comes after all of nbs."
    found = {}
    for nb in notebooks():
        exp = re.findall(r'^#\|\s*default_exp\s+(\S+)', '\n'.join(''.join(c['source']) for c in cells(nb)), re.M)
        number = re.match(r'\d*[a-z]?(?=_)|', nb.name)[0]
        found.update((name, number if nb.parent == NBS else f'99{number}') for name in exp)
    return found


def sources():
    files = [f for f in LIB.rglob('*.py') if not f.stem.startswith('_')]
    return {'.'.join(f.relative_to(LIB).with_suffix('').parts): f.read_text(encoding='utf-8') for f in files}


def imports(source, package):
    "Dotted names that a module of this package imports, inside functions too: vidlens.grid.Grid."
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split('.')[:len(package.split('.')) + 1 - node.level] if node.level else []
            yield from ('.'.join([*above, *filter(None, [node.module]), a.name]) for a in node.names)


def layering(numbers, sources):
    for name, source in sources.items():
        me, method = numbers[name], '10' <= numbers[name] < '15'
        for target in imports(source, f'vidlens.{name}'.rpartition('.')[0]):
            top, *rest = target.split('.')
            other = next((o for n in range(len(rest), 0, -1) if (o := numbers.get('.'.join(rest[:n])))), None)
            if method and top in ('diffusers', 'transformers'):
                yield f'{name} ({me}) is a method and imports {top}: take tensors and a Grid instead'
            if top != 'vidlens' or rest == ['__version__']:
                continue
            if other is None and me < '50':
                yield f'{name} ({me}) imports {target}: below 50 name the module, from vidlens.grid import Grid'
            elif other is not None and (other >= me or method and other[:2] != '00' and not '10' <= other < '15'):
                rule = 'methods import 00 and lower methods' if method else 'import only from lower numbers'
                yield f'{name} ({me}) imports {target} ({other}): {rule}'


def diet(nb, size):
    "Faults of one notebook, given as parsed JSON and its size in bytes."
    text = json.dumps(nb)
    code = [c for c in nb['cells'] if c['cell_type'] == 'code']
    outputs = [o for c in code for o in c['outputs']]
    pictures = [d for o in outputs for k, d in o.get('data', {}).items() if k.startswith('image/')]
    faults = {
        f'{size // KB} KB, more than 120': size > 120 * KB,
        f'{len(nb["cells"])} cells, more than 80': len(nb['cells']) > 80,
        'widget state in the metadata': 'widgets' in nb['metadata'],
        'a widget or plotly output': re.search(r'application/vnd\.(jupyter\.widget|plotly)', text),
        'a picture over 40 KB': any(len(''.join(p)) * 3 // 4 > 40 * KB for p in pictures),
        'execution counts': any(x.get('execution_count') for x in code + outputs),
        'stored stderr or a traceback': any(o['output_type'] == 'error' or o.get('name') == 'stderr' for o in outputs),
    }
    return [fault for fault, found in faults.items() if found]


def strangers(text):
    "Machine paths and hosts of package registries. (Written so that this file does not find itself.)"
    return re.findall(r'(?<![\w.])/(?:work|root|home/\w+|Users/\w+|opt/\w+|tmp/\w+)/?|pypi[.]org|pythonhosted[.]org|'
                      r'download[.]pytorch|npmjs[.]|anaconda[.]org', text)


def long_functions(source, limit=45):
    functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [f'{n.name} has {n.end_lineno - n.lineno + 1} lines, more than {limit}' for n in functions
            if n.end_lineno - n.lineno >= limit]


def unfinished(text):
    return re.findall(r'\b(?:TO[D]O|FIX[M]E|XX[X]|NotImplemented[E]rror)\b', text)


def imported(code):
    "Top-level packages that this code loads beside the light ones, in a fresh interpreter."
    probe = f'import sys, {", ".join(LIGHT)}; before = set(sys.modules)\n{code}\n' \
            'print(*{m.partition(".")[0] for m in set(sys.modules) - before} - {m.partition(".")[0] for m in before})'
    out = subprocess.run([sys.executable, '-c', probe], cwd=ROOT, env=ENV, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    return set(out.stdout.split()) - sys.stdlib_module_names - {'vidlens'}


def differences(a, b):
    names = {f.relative_to(d).as_posix() for d in (a, b) for f in d.rglob('*.py')}
    return sorted(n for n in names if not ((a / n).exists() and (b / n).exists() and filecmp.cmp(a / n, b / n, False)))
