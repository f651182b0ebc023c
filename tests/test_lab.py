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
from contextlib import contextmanager

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

ALL = '''
import torch
from vidlens.experiments import explore
from vidlens.run import load

torch.set_num_threads(1)
pipe = load()
every = explore(pipe, prompt='a red circle', seed=1, of=6)
every
'''
TELL_ALL = '''
import json
from vidlens.experiments import silenced
from vidlens.steering import Region, control
from vidlens.viewer import _packed
said = dict(made=list(every.made), step=every.state.step, messages=[x.viewer.message for x in every.made.values()])
for x in every.made.values():
    x.job.result(120)
if 'Heads' in every.made:
    heads = every.made['Heads']
    said['heads'] = heads.viewer.maps == _packed(eval(heads.call, dict(engine=every.engine)).maps[:1])[0]
if 'Words' in every.made:
    words = every.made['Words']
    said['words'] = words.viewer.maps == _packed(eval(words.call, dict(engine=every.engine)).maps)[0]
if 'Channels' in every.made:
    alike = every.made['Channels']
    said['channels'] = alike.viewer.maps == _packed(eval(alike.call, dict(engine=every.engine))[None])[0]
if 'Steer' in every.made and every.made['Steer'].video is not None:
    steer = every.made['Steer']
    want = eval(steer.call, dict(control=control, Region=Region, pipe=pipe, mask=steer.viewer.painted))
    said['steer'] = bool(torch.equal(want.video, steer.video)), int(steer.viewer.painted.sum()), list(steer.viewer.arrow)
print('TOLD', json.dumps(said))
'''


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "JupyterLab on a free port, in a folder with two notebooks."
    folder = tmp_path_factory.mktemp('lab')
    for name, cells in (('explore', (CELL, TELL)), ('all', (ALL, TELL_ALL))):
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
        nb.metadata = dict(kernelspec=dict(name='python3', display_name='Python 3', language='python'))
        nbformat.write(nb, folder / f'{name}.ipynb')
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
def browser():
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        it = p.chromium.launch(executable_path='/usr/bin/chromium', args=FLAGS)
        yield it
        it.close()


@contextmanager
def opened(lab, browser, name):
    "A notebook, opened and run; ends with what the browser complained about."
    said = []
    page = browser.new_page(viewport=dict(width=1280, height=720))
    page.on('pageerror', lambda e: said.append(str(e)))
    page.goto(f'{lab}/lab/workspaces/{name}/tree/{name}.ipynb?reset')
    page.wait_for_selector('.jp-NotebookPanel .jp-Cell', timeout=90_000)
    page.wait_for_timeout(1500)
    page.get_by_role('menuitem', name='Run', exact=True).click()
    page.get_by_text('Run All Cells', exact=True).click()
    page.wait_for_selector('.vidlens-viewer[data-shown]', timeout=120_000)
    yield page
    if folder := os.environ.get('VIDLENS_SHOTS'):
        page.screenshot(path=f'{folder}/lab-{name}.png')
    page.close()
    assert said == []


@pytest.fixture(scope='module')
def page(lab, browser):
    with opened(lab, browser, 'explore') as page:
        yield page


@pytest.fixture(scope='module')
def tabs(lab, browser):
    with opened(lab, browser, 'all') as page:
        yield page


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


# All explorers, in their tabs

def open_tab(page, name):
    "A tab, and the canvas that shows in it once the answer is there."
    page.get_by_role('tab', name=name, exact=True).click()
    shown = page.locator('.vidlens-viewer[aria-busy="false"] figure > canvas:visible').first
    shown.wait_for(timeout=60_000)
    return shown


@pytest.mark.parametrize('name', ['Heads', 'Words', 'Channels'])
def test_a_step_changes_every_tab(tabs, name):
    shown = open_tab(tabs, name)
    tabs.wait_for_timeout(500)
    before, step = shown.evaluate('c => c.toDataURL()'), ask(tabs)['step']
    tabs.locator('.widget-slider:visible', has=tabs.get_by_text('step', exact=True)).locator('.noUi-handle').focus()
    tabs.keyboard.press('ArrowLeft' if step > 3 else 'ArrowRight')
    tabs.wait_for_function('([c, old]) => c.toDataURL() !== old', arg=[shown.element_handle(), before], timeout=60_000)
    told = ask(tabs)
    assert told['step'] == step + (-1 if step > 3 else 1) and told[name.lower()] and not any(told['messages'])


def test_painting_and_an_arrow_steer(tabs):
    shown = open_tab(tabs, 'Steer')
    shown.scroll_into_view_if_needed()
    box = shown.bounding_box()

    def drag(*places):
        at = [(box['x'] + box['width'] * x, box['y'] + box['height'] * y) for x, y in places]
        tabs.mouse.move(*at[0])
        tabs.mouse.down()
        for place in at[1:]:
            tabs.mouse.move(*place)
        tabs.mouse.up()

    drag((.4, .4), (.6, .5), (.5, .6))
    tabs.get_by_role('button', name='arrow').click()
    shown.scroll_into_view_if_needed()
    box = shown.bounding_box()
    drag((.5, .5), (.75, .5))
    tabs.get_by_role('button', name='Run', exact=True).click()
    tabs.get_by_text('changed', exact=True).wait_for(timeout=60_000)
    same, painted, arrow = ask(tabs)['steer']
    assert same and painted > 50 and abs(arrow[0] - 32) < 1 and abs(arrow[2] - 48) < 1 and abs(arrow[3] - arrow[1]) < 1


def test_the_video_plays(tabs):
    open_tab(tabs, 'Video')
    seen = tabs.locator('.vidlens-count:visible')
    before = seen.inner_text()
    tabs.locator('.vidlens-viewer:visible button[aria-label="Play"]').click()
    tabs.wait_for_function('([c, old]) => c.innerText !== old', arg=[seen.element_handle(), before], timeout=10_000)
