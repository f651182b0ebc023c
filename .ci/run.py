#!/usr/bin/env python3
"""The whole check, on a clean checkout and a machine that may be new.   bash .ci/run

Sets up and tests as the README says; checks the export, the linter and the types; builds the wheel and the source
archive; then runs the README's first command in an empty folder, on the wheel. No check stops the next one. The last
line is `N passed, N failed`, tests and checks together; the exit status is 1 if anything failed."""
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / '.venv/bin'
DEADLINE = time.time() + 59 * 60
ENV = os.environ | dict(CI='true', PIP_NO_INPUT='1', PYTHONUNBUFFERED='1', DEBIAN_FRONTEND='noninteractive')
ENV = {k: v for k, v in ENV.items() if k not in ('VIRTUAL_ENV', 'PYTHONPATH', 'PYTHONHOME', 'IN_TEST')}
results = {}


def run(command, minutes=10, cwd=ROOT):
    "Run a shell command, show its output as it comes, and return (succeeded, last line)."
    p = subprocess.Popen(['bash', '-c', command], cwd=cwd, env=ENV, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True, errors='replace', start_new_session=True)
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(p.pid, signal.SIGKILL))
    signal.alarm(max(1, int(min(minutes * 60, DEADLINE - time.time()))))
    last = ''
    for line in p.stdout:
        print(line, end='', flush=True)
        last = line.strip() or last
    status = p.wait()
    signal.alarm(0)
    return status == 0, last


def check(name, test, *args, **options):
    "Record whether a check passed; it returns a boolean, or (boolean, ...)."
    print(f'\n== {name}', flush=True)
    began = time.time()
    try:
        got = test(*args, **options)
    except (OSError, ValueError, LookupError) as e:
        got = print(f'{type(e).__name__}: {e}')
    results[name] = bool(got[0] if isinstance(got, tuple) else got)
    print(f'== {"passed" if results[name] else "FAILED"} in {time.time() - began:.0f} s: {name}', flush=True)
    return got


def readme_commands():
    "The README's first two commands: the demo, and the tests."
    demo, test = re.findall(r'^```sh\n(.+)\n```$', (ROOT / 'README.md').read_text(encoding='utf-8'), re.M)[:2]
    if not demo.endswith('vidlens demo') or not test.endswith('.ci/test'):
        raise ValueError('the first two ```sh blocks of README.md must end in `vidlens demo` and `.ci/test`')
    return demo, test


def browser():
    "Chromium, if a test needs it: without it those tests fail here."
    if any('mark.browser' in f.read_text(encoding='utf-8') for f in (ROOT / 'tests').rglob('test_*.py')):
        install = 'apt-get update -q && apt-get install -qy --no-install-recommends chromium'
        return bool(shutil.which('chromium')) or run(install)
    return True


def test_command(command):
    "The README's second command; adds its own counts."
    ok, last = run(command, minutes=45)
    counts = re.fullmatch(r'(\d+) passed, (\d+) failed', last)
    return ok and counts, *(map(int, counts.groups()) if counts else (0, 0))


def in_sync():
    "Exporting again changes nothing. Modules without a notebook are found by tests/test_house.py."
    if not (ROOT / '.git').exists():
        print('not a git clone: left to tests/test_house.py')
        return True
    return run(f'{BIN}/nbdev_export && git diff --exit-code -- vidlens && test -z "$(git status --porcelain vidlens)"')


def weight(limit_mb=35):
    "A shallow clone fetches little: the checkpoints of the training are kept outside of the tree."
    if not (ROOT / '.git').exists():
        print('not a git clone: left to whoever has one')
        return True
    with tempfile.TemporaryDirectory(prefix='vidlens-clone-', ignore_cleanup_errors=True) as folder:
        ok, _ = run(f'git clone -q --depth 1 file://{ROOT} {folder}/vidlens')
        sizes = {f: f.lstat().st_size / 1e6 for f in Path(folder, 'vidlens').rglob('*') if f.is_file()}
    fetched = sum(size for f, size in sizes.items() if '.git' in f.parts)
    print(f'a shallow clone fetches {fetched:.1f} MB, at most {limit_mb}, and unpacks {sum(sizes.values()) - fetched:.1f} MB')
    return ok and fetched <= limit_mb


def contents(dist):
    "The wheel holds the package and nothing else: not how the bundled model was made, not nbdev's index of symbols."
    wheel, = Path(dist).glob('*.whl')
    names = zipfile.ZipFile(wheel).namelist()
    strangers = [n for n in names if not re.match(r'vidlens(-[^/]+\.dist-info)?/', n) or
                 re.match(r'vidlens/(bundled/|_modidx)|.*judge\.safetensors', n)]
    print(f'{wheel.name}: {len(names)} files, {wheel.stat().st_size / 2**20:.1f} MiB; strangers: {strangers}')
    return {'vidlens/py.typed', 'vidlens/assets/pipeline/model_index.json'} <= set(names) and not strangers


def demo_of_wheel(command, folder):
    wheel, = Path(folder, 'dist').glob('*.whl')
    ok, _ = run(command.replace('-e .', str(wheel)), minutes=20, cwd=folder)
    return ok and any(Path(folder).glob('*/report.html'))


def main():
    demo, test = readme_commands()
    check('browser', browser)
    _, passed, failed = check('tests, by the second command of the README', test_command, test) or (False, 0, 0)
    check('export in sync', in_sync)
    check('weight of a shallow clone', weight)
    check('linter', run, f'{BIN}/ruff check --config .ci/ruff.toml vidlens tests setup.py .ci/run.py .ci/test .ci/readme')
    check('types', run, f'{BIN}/mypy --config-file .ci/mypy.ini')
    with tempfile.TemporaryDirectory(prefix='vidlens-run-', ignore_cleanup_errors=True) as folder:
        check('wheel and source archive', run, f'{BIN}/python -m build --outdir {folder}/dist .')
        check('contents of the wheel', contents, f'{folder}/dist')
        check('the wheel in an empty environment, by the first command of the README', demo_of_wheel, demo, folder)
    print()
    for name, ok in results.items():
        print(f'{"passed" if ok else "FAILED"}  {name}')
    failed += sum(not ok for ok in results.values())
    print(f'{passed + sum(results.values())} passed, {failed} failed')
    sys.exit(failed > 0)


if __name__ == '__main__':
    main()
