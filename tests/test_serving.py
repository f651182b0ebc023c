"""The explorers served: a notebook whose texts are texts, a token by default, and Voila in a real browser."""
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from vidlens.cli import main
from vidlens.serving import explorer_notebook, serve_command

HOSTILE = "\"'); import os; os.abort() #<script>{model}\n"


def test_texts_stay_texts(tmp_path):
    video = tmp_path / "a'b.mp4"
    video.write_bytes(b'')
    for given in (dict(prompt=HOSTILE), dict(prompt=HOSTILE, video=video), dict(model=HOSTILE, prompt='a')):
        made = explorer_notebook(tmp_path / 'x.ipynb', force=True, **given)
        code = '\n'.join(c['source'] for c in json.loads(made.read_text())['cells'] if c['cell_type'] == 'code')
        names = set(compile(code, 'x', 'exec').co_names)
        assert names <= {'vidlens', 'explore', 'load', 'pipe', 'video', 'fit_video', 'read_video', 'vidlens.experiments'}
        assert repr(HOSTILE) in code


def test_this_machine_only_and_no_secret_on_the_command_line(tmp_path):
    for kind in ('lab', 'app'):
        line = serve_command(kind, tmp_path / 'x.ipynb')
        assert '--ServerApp.ip=127.0.0.1' in line and 'token' not in ' '.join(line)


def test_a_model_in_a_folder_is_found_from_where_the_kernel_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'mine').mkdir()
    made = explorer_notebook(tmp_path / 'x.ipynb', model='mine', prompt='a')
    assert str(tmp_path / 'mine') in made.read_text()


def test_bad_input_is_a_sentence_and_leaves_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(['lab', 'no.mp4']) == 2 and 'no.mp4 does not exist' in capsys.readouterr().err and not list(tmp_path.iterdir())
    (tmp_path / 'vidlens-app').mkdir()
    (tmp_path / 'vidlens-app' / 'explore.ipynb').write_text('mine')
    assert main(['app']) == 2 and 'explore.ipynb exists' in capsys.readouterr().err
    assert (tmp_path / 'vidlens-app' / 'explore.ipynb').read_text() == 'mine'
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    assert main(['app', '--out', 'x']) == 2 and 'pip install' in capsys.readouterr().err and not (tmp_path / 'x').exists()


def test_a_server_that_is_interrupted_ends_by_itself(tmp_path):
    "Ctrl+C reaches the server and the command alike: the server takes its time, and its exit status is the command's."
    slow = ('import signal, sys, time\n'
            'def stop(*_):\n    time.sleep(1)\n    sys.exit(7)\n'
            'signal.signal(signal.SIGINT, stop)\nprint("up", flush=True)\ntime.sleep(60)')
    code = f'import sys; from vidlens.serving import waited; sys.exit(waited([sys.executable, "-c", {slow!r}]))'
    it = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, start_new_session=True)
    assert it.stdout.readline() == b'up\n'
    os.killpg(it.pid, signal.SIGINT)
    assert it.wait(20) == 7


@pytest.mark.slow
@pytest.mark.browser
def test_the_app_in_a_browser(tmp_path):
    "Voila under a token; the layer slider changes the pixels; the tabs open."
    from playwright.sync_api import sync_playwright

    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    made = explorer_notebook(tmp_path / 'explore.ipynb', prompt='a red circle moves right', of=4)
    line, token = [*serve_command('app', made, port, browser=False), '--allow-root'], 'of-this-test'
    home = {k: str(tmp_path / k) for k in ('HOME', 'JUPYTER_CONFIG_DIR', 'JUPYTER_RUNTIME_DIR', 'IPYTHONDIR')}
    with open(tmp_path / 'log', 'w', encoding='utf-8') as log:
        server = subprocess.Popen(line, env=os.environ | home | dict(JUPYTER_TOKEN=token), stdout=log, stderr=subprocess.STDOUT,
                                  start_new_session=True)
    url, said = f'http://127.0.0.1:{port}', []
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f'{url}/api', timeout=1)
                break
            except OSError:
                time.sleep(.25)
        with pytest.raises(urllib.error.HTTPError, match='40[13]'):
            urllib.request.urlopen(f'{url}/api/contents', timeout=10)
        with sync_playwright() as p:
            browser = p.chromium.launch(executable_path='/usr/bin/chromium', args=['--no-sandbox', '--disable-gpu'])
            page = browser.new_page(viewport=dict(width=1280, height=720))
            page.on('pageerror', lambda e: said.append(str(e)))
            page.goto(f'{url}/voila/render/explore.ipynb?token={token}', timeout=120_000)
            page.wait_for_selector('.vidlens-viewer[data-shown]', timeout=120_000)
            page.wait_for_selector('.vidlens-viewer[aria-busy=false] .vidlens-legend span', timeout=60_000)
            before = page.locator('figure > canvas').first.evaluate('c => c.toDataURL()')
            page.locator('.widget-slider', has=page.get_by_text('layer', exact=True)).locator('.noUi-handle').focus()
            page.keyboard.press('ArrowLeft')
            page.wait_for_function('(old) => document.querySelector("figure > canvas").toDataURL() !== old', arg=before)
            page.get_by_role('tab', name='Words').click()
            page.get_by_label('words', exact=True).wait_for(timeout=60_000)
            if folder := os.environ.get('VIDLENS_SHOTS'):
                page.wait_for_timeout(3000)
                page.screenshot(path=f'{folder}/voila.png')
            browser.close()
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)
    assert said == [], (tmp_path / 'log').read_text(encoding='utf-8')[-2000:]
