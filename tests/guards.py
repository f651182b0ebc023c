"""What the guards of the house look for: functions that list faults. test_house.py runs them."""
import ast
import collections
import filecmp
import io
import json
import os
import re
import subprocess
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIB, NBS = ROOT / 'vidlens', ROOT / 'nbs'
TOP = {'nbs', 'vidlens', 'settings.ini', 'setup.py', 'tests', '_quarto.yml', 'README.md', 'LICENSE', 'CHANGELOG.md',
       'CONTRIBUTING.md', '.ci', '.gitignore', '.gitattributes', '.pre-commit-config.yaml'}
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


# The rooms, from the bottom up: a module imports only from lower rooms, and in its own from lower numbers.
ROOMS = ['core', 'world', 'seam', 'points', 'motion', 'words', 'live', '', 'bundled']
METHODS = {'points', 'motion', 'words'}   # in these, 0x takes tensors and a Grid and knows no model


def modules():
    "module -> (room, number of its notebook)."
    found = {}
    for nb in notebooks():
        exp = re.findall(r'^#\|\s*default_exp\s+(\S+)', '\n'.join(''.join(c['source']) for c in cells(nb)), re.M)
        room = nb.parent.relative_to(NBS).as_posix().replace('.', '')
        found.update((name, (room, int(re.match(r'\d*', nb.name)[0] or 0))) for name in exp)
    return found


def sources():
    files = [f for f in LIB.rglob('*.py') if not f.stem.startswith('_')]   # __init__ is written by hand
    return {'.'.join(f.relative_to(LIB).with_suffix('').parts): f.read_text(encoding='utf-8') for f in files}


def imports(source, package):
    "Dotted names that a module of this package imports, inside functions too: vidlens.core.grid.Grid."
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split('.')[:len(package.split('.')) + 1 - node.level] if node.level else []
            yield from ('.'.join([*above, *filter(None, [node.module]), a.name]) for a in node.names)


def layering(places, sources):
    for name, source in sources.items():
        room, number = me = places[name]
        method = room in METHODS and number < 10
        for target in imports(source, f'vidlens.{name}'.rpartition('.')[0]):
            top, *rest = target.split('.')
            if method and top in ('diffusers', 'transformers'):
                yield f'{name} is a method and imports {top}: take tensors and a Grid instead'
            if top != 'vidlens' or rest in (['__version__'], ['_room']):
                continue
            other = next((places['.'.join(rest[:n])] for n in range(len(rest), 0, -1) if '.'.join(rest[:n]) in places), None)
            if other is None and rest and rest[0] in ROOMS:
                other = rest[0], -1
            if other is None:
                if room:
                    yield f'{name} imports {target}: name the module, from vidlens.core.grid import Grid'
            elif (ROOMS.index(other[0]), other[1]) >= (ROOMS.index(room), number):
                yield f'{name} {me} imports {target} {other}: import only from lower rooms and lower numbers'
            elif method and not (other[0] == 'core' or other[0] in METHODS and other[1] < 10):
                yield f'{name} {me} imports {target} {other}: methods import core and lower methods'


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


def private_imports(sources):
    "module -> the private names that it imports from other modules."
    found = collections.defaultdict(list)
    for name, source in sources.items():
        for target in imports(source, f'vidlens.{name}'.rpartition('.')[0]):
            if target.startswith('vidlens.') and re.match(r'_[a-z]', target.rpartition('.')[2]) and target != 'vidlens._room':
                found[name].append(target)
    return dict(found)


def public_functions(source):
    "(name, node) of the public functions of a module and the public methods of its public classes."
    def of(body, prefix=''):
        for n in body:
            if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) and (not n.name.startswith('_') or n.name == '__init__'):
                yield prefix + n.name, n
            if isinstance(n, ast.ClassDef) and not n.name.startswith('_') and not prefix:
                yield from of(n.body, f'{n.name}.')
    return list(of(ast.parse(source).body))


def arguments(node):
    "The arguments of a function without `self`; *args and **kwargs are one each."
    a = node.args
    return [x for x in (*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg) if x and x.arg not in ('self', 'cls')]


def many_arguments(source, most=10):
    return {name: len(arguments(n)) for name, n in public_functions(source) if len(arguments(n)) > most}


def open_ended(source):
    "Public functions that take **kwargs."
    return {name for name, n in public_functions(source) if n.args.kwarg}


def undocumented(source):
    "Arguments and returns of public functions, and fields of public dataclasses, without a comment on a line of their own."
    comments = {t.start[0] for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT}
    for name, n in public_functions(source):
        first = [x.lineno for x in arguments(n)]
        last = [*first, (n.returns or n.body[0]).lineno][1:]      # a default may be longer than a line
        yield from (f'{name}({x.arg})' for x, a, b in zip(arguments(n), first, last, strict=True)
                    if not comments & set(range(a, b)))
        gives = n.returns and not (isinstance(n.returns, ast.Constant) and n.returns.value is None)
        if gives and first and n.returns.end_lineno not in comments:
            yield f'{name} -> {ast.unparse(n.returns)}'
    records = [c for c in ast.parse(source).body if isinstance(c, ast.ClassDef) and not c.name.startswith('_')
               and 'dataclass' in ' '.join(map(ast.unparse, c.decorator_list))]
    for record, x in [(c.name, x) for c in records for x in c.body if isinstance(x, ast.AnnAssign)]:
        name = ast.unparse(x.target)
        if not name.startswith('_') and 'ClassVar' not in ast.unparse(x.annotation) and \
                not comments & set(range(x.lineno, x.end_lineno + 1)):
            yield f'{record}.{name}'


def homonyms(sources):
    "Public functions and classes that several modules define: name -> modules."
    home = collections.defaultdict(list)
    for module, source in sources.items():
        for n in ast.parse(source).body:
            if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith('_'):
                home[n.name].append(module)
    return {name: sorted(found) for name, found in home.items() if len(found) > 1}


def code_cells(nb):
    "(lines, name of what is defined first, whether it is exported) of each code cell."
    for c in cells(nb):
        source = ''.join(c['source'])
        if c['cell_type'] == 'code' and source.strip():
            name = re.search(r'^(?:async )?(?:def|class) (\w+)|^(\w+)\b.* = ', source, re.M)
            yield (source.count('\n') + 1, name and (name[1] or name[2]), bool(re.search(r'^#\|\s*export', source, re.M)))


def percentile(values, share):
    return sorted(values)[int(share * (len(values) - 1))]


# Words of the house's old dialect, each with what to write instead. They are looked for in lessons, docstrings, comments and
# messages, which is all text that people read.
GLOSSARY = {
    r'\blook_inside\b': 'analyse',
    r'\b(?:is|are|was|were) told\b': 'active voice: "pass ...", "the callback receives ..."',
    r'\b(?:tokens?|heads?|layers?|words?|it|they|model|frames?) looks? at\b': 'attends to, reads',
    r'\b[Rr]ivals?\b': 'baseline',
    r'\b[Tt]wins?\b': 'untrained model',
    r'\bone habit\b': 'shared options',
    r'\blearnt something\b': 'trained',
    r'\bis believed to\b': 'name the tracker',
    r'\bwished for\b': 'target',
    r'\bby nobody\b|\bnobody (?:says|said|asked|tells|told|measured)\b': 'say what is missing',
    r'\bway it (?:goes|moves)\b|\bwhich way\b(?! (?:it|does it|they|each|a|the|words?|points?) moves?\b)': 'direction of motion',
    r'\bwhat is asked\b|\bas one asks\b': 'the request, the target',
    r'\b(?:says|said) nothing of\b': 'does not contain',
}


def old_words(nb):
    "The words of the glossary in a notebook: its markdown, and strings and comments of its code."
    for c in cells(nb):
        text = source = ''.join(c['source'])
        if c['cell_type'] == 'code':
            try:
                text = '\n'.join(t.string for t in tokenize.generate_tokens(io.StringIO(source).readline)
                                 if t.type in (tokenize.STRING, tokenize.COMMENT))
            except (tokenize.TokenError, SyntaxError):
                pass   # a magic
        yield from old_words_of(text)


def old_words_of(text):
    return [f'{m[0]!r}: {instead}' for pattern, instead in GLOSSARY.items() for m in re.finditer(pattern, text)]


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
    names = {f.relative_to(d).as_posix() for d in (a, b) for f in d.rglob('*.py')} - {'_modidx.py'}
    return sorted(n for n in names if not ((a / n).exists() and (b / n).exists() and filecmp.cmp(a / n, b / n, False)))
