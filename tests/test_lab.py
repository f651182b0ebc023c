"""Explorers in a real JupyterLab, with a real kernel and a real browser: what is clicked is what Python says."""
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]
FLAGS = '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-sync'.split()
CELL = '''
import torch
from vidlens import world
from vidlens.engine import hold
from vidlens.explorers import Match
from vidlens.run import load

torch.set_num_threads(1)
match = Match(hold(load(), world.clip('a red circle moves right', seed=3)))
match
'''
TELL = '''
import json, os
from hashlib import sha256
match.job.result(60)
want = match.engine.match(**match.asked)
print('TOLD', json.dumps(dict(
    maps=sha256(match.viewer.maps).hexdigest()[:8], same=bool(torch.equal(match.field, want)), asked=match.asked,
    track=bool(torch.equal(match.track.xy, match.engine.track([match.asked['point']], match.asked['step'], match.asked['layer'],
               heads=match.asked['heads'], symmetric=match.asked['symmetric']).xy)),
    message=match.viewer.message, pid=os.getpid(), scored=int((~match.scores.isnan()).all(1).sum()))))
'''


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "JupyterLab on a free port, in a folder with one notebook."
    folder = tmp_path_factory.mktemp('lab')
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL), nbformat.v4.new_code_cell(TELL)])
    nb.metadata = dict(kernelspec=dict(name='python3', display_name='Python 3', language='python'))
    nbformat.write(nb, folder / 'explore.ipynb')
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    home = {k: str(folder / v) for k, v in dict(HOME='home', JUPYTER_CONFIG_DIR='config', JUPYTER_DATA_DIR='data',
                                                JUPYTER_RUNTIME_DIR='run', IPYTHONDIR='ipython').items()}
    command = [sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', '--ip', '127.0.0.1', '--port', str(port),
               '--IdentityProvider.token=', '--ServerApp.password=', f'--ServerApp.root_dir={folder}']
    with open(folder / 'log', 'w', encoding='utf-8') as log:
        server = subprocess.Popen(command, env=os.environ | home, stdout=log, stderr=subprocess.STDOUT)
    url = f'http://127.0.0.1:{port}'
    for _ in range(240):
        try:
            urllib.request.urlopen(url + '/api', timeout=1)
            break
        except OSError:
            time.sleep(.25)
    else:
        server.kill()
        raise RuntimeError((folder / 'log').read_text(encoding='utf-8')[-2000:])
    yield url
    server.terminate()
    server.wait(20)


@pytest.fixture(scope='module')
def page(lab):
    "The notebook, run; ends with what the browser complained about."
    from playwright.sync_api import sync_playwright
    said = []
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path='/usr/bin/chromium', args=FLAGS)
        page = browser.new_page(viewport=dict(width=1280, height=720))
        page.on('pageerror', lambda e: said.append(str(e)))
        page.goto(f'{lab}/lab/workspaces/test/tree/explore.ipynb?reset')
        page.wait_for_selector('.jp-NotebookPanel .jp-Cell', timeout=90_000)
        page.wait_for_timeout(1500)
        page.get_by_role('menuitem', name='Run', exact=True).click()
        page.get_by_text('Run All Cells', exact=True).click()
        page.wait_for_selector('.vidlens-viewer[data-shown]', timeout=120_000)
        page.said = said
        yield page
        if folder := os.environ.get('VIDLENS_SHOTS'):
            page.screenshot(path=f'{folder}/lab.png')
        browser.close()
    assert said == []


def ask(page):
    "Run the second cell, and what it printed."
    before = page.locator('.jp-OutputArea-output pre', has_text='TOLD').count()
    cell = page.locator('.jp-CodeCell').nth(1)
    old = cell.locator('.jp-InputPrompt').inner_text()
    cell.locator('.cm-content').click()
    page.keyboard.press('Control+Enter')
    page.wait_for_function('([i, old]) => { const t = document.querySelectorAll(".jp-CodeCell")[i].querySelector(".jp-InputPrompt")'
                           '.innerText; return t !== old && !t.includes("*"); }', arg=[1, old], timeout=60_000)
    text = cell.locator('.jp-OutputArea-output pre').last.inner_text()
    assert before >= 0 and 'TOLD' in text, text
    return json.loads(text.split('TOLD', 1)[1])


def canvas(page):
    return page.locator('.vidlens-stage figure > canvas').first


def slider(page, name):
    return page.locator('.widget-slider', has=page.get_by_text(name, exact=True)).locator('.noUi-handle')


def test_sliders_and_clicks_show_what_python_says(page):
    first = ask(page)
    assert first['same'] and first['track'] and first['asked']['layer'] == 4
    before = canvas(page).evaluate('c => c.toDataURL()')
    slider(page, 'layer').focus()
    page.keyboard.press('ArrowLeft')
    page.wait_for_function('(old) => document.querySelector(".vidlens-stage figure > canvas").toDataURL() !== old', arg=before)
    told = ask(page)
    assert told['asked']['layer'] == 3 and told['same'] and told['track'] and told['maps'] != first['maps']
    slider(page, 'head').focus()
    page.keyboard.press('ArrowRight')
    page.wait_for_timeout(300)
    assert ask(page)['asked']['heads'] == [0]
    canvas(page).scroll_into_view_if_needed()
    box = canvas(page).bounding_box()
    canvas(page).click(position=dict(x=box['width'] * .25, y=box['height'] * .5))
    page.wait_for_timeout(300)
    told = ask(page)
    t, x, y = told['asked']['point']
    assert t == 0 and abs(x - 16) < 1 and abs(y - 32) < 1 and told['same'] and told['track'] and told['message'] == ''
    shown = page.locator('code', has_text='engine.match').inner_text()
    assert re.search(r'engine\.match\(\(0, 1[567]\.\d, 3[123]\.\d\), step=18, layer=3, heads=\[0\]\)', shown)


def test_a_drag_ends_on_the_last_place(page):
    slider(page, 'step').focus()
    for _ in range(40):
        page.keyboard.press('ArrowLeft')
    told = ask(page)
    assert told['asked']['step'] == 0 and told['same']


def test_scoring_can_be_cancelled(page):
    page.get_by_role('button', name='Score all steps').click()
    page.get_by_text(re.compile(r'[2-9] of 30 steps')).wait_for(timeout=60_000)
    page.get_by_role('button', name='Cancel').click()
    page.locator('.js-plotly-plot').wait_for(timeout=30_000)
    told = ask(page)
    assert 2 <= told['scored'] < 30
    assert page.get_by_role('button', name='Score all steps').is_enabled()


def test_a_dead_kernel_is_said(page):
    os.kill(ask(page)['pid'], signal.SIGKILL)
    page.get_by_text('The kernel has stopped').wait_for(timeout=30_000)
    assert page.locator('.vidlens-viewer').get_attribute('aria-busy') == 'false'
