"""Explorers in a real JupyterLab, with a real kernel and a real browser: what is clicked is what Python says."""
import os
import re
import signal
import sys
from contextlib import closing, contextmanager

import live
import nbformat
import numpy as np
import pytest
from live import VIEWER, agreed, drawn, home, image_of, listened, pressed, shot, tab, tapped
from playwright.sync_api import expect

from vidlens.live.serving import explorer_notebook

pytestmark = [pytest.mark.browser, pytest.mark.slow]
TABS = ['Match', 'Heads', 'Words', 'Channels', 'Steer', 'Video']
CLIP = '''
from vidlens import load, world
from vidlens.live.tabs import explore

pipe, clip = load(), world.clip('a red circle moves right', seed=3)
explore(pipe, clip)
'''
SMALL = '''
from vidlens.seam.traces import trace
from vidlens.live.match_explorer import MatchExplorer

MatchExplorer(trace(pipe, clip, budget=1000))
'''


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "`vidlens lab`, and beside the notebook that it writes one on a clip whose true tracks are known."
    folder = tmp_path_factory.mktemp('lab')
    command = [*live.VIDLENS, 'lab', '--prompt', 'a red circle moves right', '--num-inference-steps', '6', '--no-browser', '--port']
    with live.Served([*command, str(live.free_port())], folder, home(folder)) as server:
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in (CLIP, SMALL)])
        nb.metadata = dict(kernelspec=dict(name='python3', display_name='Python 3', language='python'))
        nbformat.write(nb, folder / 'vidlens-lab/clip.ipynb')
        yield server
        assert server.stop() == 0        # Ctrl+C ends it in order


@pytest.fixture(scope='module')
def browser():
    with live.chromium() as it:
        yield it


@pytest.fixture(scope='module')
def complaints():
    return []


@pytest.fixture(autouse=True)
def no_complaints(complaints):
    "Nothing goes wrong unseen in a page."
    yield
    said, complaints[:] = complaints[:], []
    assert not said, '\n'.join(said)


def run_all(page):
    page.locator('.jp-Notebook-ExecutionIndicator[data-status=idle]:visible').wait_for(timeout=60_000)
    page.get_by_role('menuitem', name='Run', exact=True).click()
    page.get_by_text('Run All Cells', exact=True).click()


def opened(browser, server, name, complaints, where='lab/tree', but='$^'):
    "A notebook in a page of its own, run as a user would."
    context = browser.new_context(viewport=dict(width=1280, height=900), permissions=['clipboard-read', 'clipboard-write'])
    page = listened(context.new_page(), complaints, but)
    page.goto(f'{server.root}/{where}/{name}?token={server.token}')
    live.until(lambda: server.connected(name))       # before that the page calls a kernel idle that it does not have yet
    run_all(page)
    page.locator(f'{VIEWER} .vidlens-code code, .jp-RenderedText[data-mime-type*=error]').first.wait_for(timeout=120_000)
    assert page.locator(VIEWER).count(), page.locator('.jp-OutputArea').all_inner_texts()
    return page


@pytest.fixture(scope='module')
def page(lab, browser, complaints):
    page = opened(browser, lab, 'explore.ipynb', complaints)
    yield page
    page.context.close()


@pytest.fixture(scope='module')
def kernel(lab, page):
    with closing(live.Kernel(lab.connection('explore.ipynb'))) as kernel:
        yield kernel


@pytest.fixture(scope='module')
def clip(lab, browser, complaints):
    page = opened(browser, lab, 'clip.ipynb', complaints, 'lab/workspaces/of-its-own/tree')
    yield page
    page.context.close()


@pytest.fixture(scope='module')
def clip_kernel(lab, clip):
    with closing(live.Kernel(lab.connection('clip.ipynb'))) as kernel:
        yield kernel


@contextmanager
def waits_at(kernel, task, step):
    "The task's thread stays at this step meanwhile, so that a press finds it at work however fast the machine is."
    kernel.told("globals().update(gate=__import__('threading').Event())")
    kernel.told(f"globals().update(stay=lambda change: change['new'].startswith('{step} of') and gate.wait(120))")
    kernel.told(f"{task}.progress.observe(stay, 'value')")
    try:
        yield
    finally:
        kernel.told(f"[gate.set(), {task}.progress.unobserve(stay, 'value')]")


def changed(page, kernel, name, expression):
    "What is shown once the explorer x fulfils the expression."
    kernel.until(f'(lambda x: {expression})(made({name!r}))')
    return agreed(page, kernel, name)


def stepped(page, kernel, name, *sliders):
    "Sliders move by a key, one after the other, and the picture with each."
    for which in sliders:
        place = kernel.told(f'made({name!r}).state.{which}')
        pressed(page, which, 'ArrowLeft' if place > 1 else 'ArrowRight')
        told = changed(page, kernel, name, f'x.state.{which} == {place + (-1 if place > 1 else 1)}')
    return told


def first_canvas(page):
    return page.locator(VIEWER).first.locator('figure > canvas').first


def box_of(canvas):
    canvas.scroll_into_view_if_needed()
    return canvas.bounding_box()


def click_video(page, x, y):
    "At parts of its width and height."
    box = box_of(first_canvas(page))
    page.mouse.click(box['x'] + box['width'] * x, box['y'] + box['height'] * y)


def button(page, name):
    return page.locator('.vidlens-tabs').get_by_role('button', name=name, exact=True).locator('visible=true')


def alerted(page, text):
    page.locator(VIEWER).first.get_by_role('alert').filter(has_text=text).wait_for(timeout=30_000)


def click_chart(page, row, col):
    "A cell of a table of colours, where plotly drew it."
    plot = page.locator('.vidlens-tabs .js-plotly-plot:visible').first
    plot.scroll_into_view_if_needed()
    x, y = plot.evaluate('''(plot, [row, col]) => {
        const { xaxis, yaxis } = plot._fullLayout, box = plot.getBoundingClientRect();
        return [box.left + xaxis._offset + xaxis.d2p(col), box.top + yaxis._offset + yaxis.d2p(row)]; }''', [row, col])
    page.mouse.move(x, y)
    page.wait_for_function('([plot, row, col]) => plot._hoverdata?.some(d => +d.x === col && +d.y === row)',
                           arg=[plot.element_handle(), row, col])
    page.mouse.click(x, y)


# A real address

def test_nobody_comes_in_without_the_token(lab, browser):
    assert '/lab/tree/explore.ipynb?token=' in lab.address
    assert lab.status('/api/contents') == 403 and lab.status('/api/contents', lab.token) == 200
    page = browser.new_page()
    page.goto(f'{lab.root}/lab/tree/explore.ipynb')
    assert '/login' in page.url and page.locator('.vidlens-viewer').count() == 0
    page.close()


@pytest.mark.parametrize('name', TABS)
def test_each_explorer_opens(page, kernel, name):
    tab(page, name)
    agreed(page, kernel, name)
    shot(page, f'lab-{name}')


# Whatever can be pressed or moved, but has no name that is read out, or no tip where the pointer rests
NAMELESS = '''root => {
  const all = [...root.querySelectorAll('button, input, select, textarea, .noUi-handle')].filter(e => e.checkVisibility());
  return all.map(e => {
    const text = [...(e.labels ?? [])].map(l => l.innerText).join(' ') + (e.tagName === 'BUTTON' ? e.innerText : '');
    const label = document.getElementById(e.getAttribute('aria-labelledby'))?.innerText;
    const name = (e.getAttribute('aria-label') || label || text).trim();
    let tip = '';
    for (let x = e; x && x !== root; x = x.parentElement) {
      tip ||= x.title || x.dataset.title || '';
      if (x.matches('.jupyter-widgets, .vidlens-viewer')) break;
    }
    const where = e.closest('.jupyter-widgets')?.innerText.split('\\n')[0];
    return name && tip ? null : `${e.className || e.tagName} at ${where}: name '${name}', tip '${tip}'`;
  }).filter(Boolean); }'''


@pytest.mark.parametrize('name', TABS)
def test_all_that_can_be_pressed_has_a_name_and_a_tip(page, kernel, name):
    tab(page, name)
    agreed(page, kernel, name)
    missing = page.locator('.vidlens-tabs').evaluate(NAMELESS)
    assert not missing, '\n'.join(missing)


# Match

HEARD = """viewer => {
    window.heard = [];
    const said = viewer.querySelector('.vidlens-pending');
    new MutationObserver(() => heard.push(said.textContent)).observe(said, { childList: true, characterData: true }); }"""


def test_matches_follow_sliders_and_the_second_way(page, kernel):
    tab(page, 'Match')
    before = agreed(page, kernel, 'Match')
    assert before['code'].splitlines() == ['track(trace, points=[(0, 32, 32)], layers=4, steps=3)',
                                           'point_map(trace, point=(0, 32, 32), step=3, layer=4)']
    stepped(page, kernel, 'Match', 'step', 'layer')
    pressed(page, 'head', 'ArrowRight', 'ArrowRight')
    assert 'heads=[1]' in changed(page, kernel, 'Match', 'x.state.head == 1')['code']
    page.locator(VIEWER).first.evaluate(HEARD)
    ways = page.get_by_label('symmetric')
    ways.check()
    assert 'symmetric=True' in changed(page, kernel, 'Match', 'x.symmetric.value')['code']
    assert 'computing the symmetric map' in page.evaluate('heard')
    ways.uncheck()
    assert 'symmetric' not in changed(page, kernel, 'Match', 'not x.symmetric.value')['code']
    pressed(page, 'head', 'Home')
    changed(page, kernel, 'Match', 'x.state.head == -1')


def test_a_click_gives_the_track(page, kernel):
    tab(page, 'Match')
    click_video(page, .25, .625)
    told = changed(page, kernel, 'Match', 'x.state.point')
    at = kernel.told("made('Match').state.point")
    assert at[0] == 0 and abs(at[1] - 16) < .2 and abs(at[2] - 40) < .2 and f'(0, {at[1]:g}, {at[2]:g})' in told['code']
    call = "(lambda x: track(x.trace, points=[x.state.point], layers=x.state.layer, steps=x.state.step))(made('Match'))"
    xy = kernel.told(f'{call}.xy[0].tolist()')
    shown = kernel.told("made('Match').viewer.tracks")
    assert np.allclose(np.array(shown[0])[:, :2], xy)
    last = len(xy) - 1
    page.locator(VIEWER).get_by_label('Frame', exact=True).press('End')
    changed(page, kernel, 'Match', f'x.state.frame == {last}')
    image = drawn(first_canvas(page))
    scale = image.shape[1] / 64
    x, y = (min(max(int(v * scale), 0), image.shape[1] - 1) for v in xy[-1])
    colour = np.array([0xe6, 0x9f, 0]) / 255 if shown[0][-1][2] else image[y, x]         # filled while it is seen
    assert np.abs(image[y, x] - colour).max() < .05
    page.locator(VIEWER).get_by_label('Frame', exact=True).press('Home')
    changed(page, kernel, 'Match', 'x.state.frame == 0')


@pytest.mark.parametrize('name', ['layer', 'step'])
def test_a_fast_hand_ends_on_the_last_place(page, kernel, name):
    tab(page, 'Match')
    pressed(page, name, *['ArrowLeft', 'ArrowRight'] * 10, *['ArrowRight'] * 20, *['ArrowLeft'] * 18, *['ArrowRight'] * 2)
    most = kernel.told(f"dict(layer=len(made('Match').trace.stacks), step=len(made('Match').trace.plan))[{name!r}]") - 1
    changed(page, kernel, 'Match', f'x.state.{name} == 2')
    assert most < 18


# Heads

def test_heads_are_chosen_by_a_measure_and_by_hand(page, kernel):
    tab(page, 'Heads')
    stepped(page, kernel, 'Heads', 'step', 'layer')
    by, five = page.locator('.vidlens-tabs').get_by_label('criterion', exact=True), "sum(map(len, x.chosen.values())) == 5"
    for label, code in (('compactness (Davies-Bouldin, lower is better)', 'dbi'), ('attention distance, tokens', 'distance')):
        by.select_option(label)
        changed(page, kernel, 'Heads', f'x.options["by"] == {code!r} and {five} and not x.job.running')
    row, col = kernel.told("next([n, h] for n in range(6) for h in (2, 1, 3) if h not in made('Heads').chosen.get(n, []))")
    click_chart(page, row, col)
    told = changed(page, kernel, 'Heads', f'{col} in x.chosen.get({row}, []) and not x.job.running')
    assert f'{row}: [' in told['code'] and kernel.told("len(made('Heads').atlas.children[0].layout.shapes)") == 6
    layer = kernel.told("made('Heads').state.layer")
    head = kernel.told("next(h for h in (3, 2, 1) if h not in made('Heads').chosen.get(made('Heads').state.layer, []))")
    small = page.locator('.vidlens-tabs .vidlens-bare:visible figure > canvas').nth(head)
    small.scroll_into_view_if_needed()
    alone = kernel.told(f"png(overlay(made('Heads').small.pixels, head_maps(made('Heads').trace, made('Heads').options['word'], "
                        f"step=made('Heads').state.step, layer={layer})[{head}], made('Heads').small.grid, smooth=False)[0])")
    live.until(lambda: (np.abs(live.at_centres(drawn(small), 64) - live.picture(alone)).max(-1) <= 3.01 / 255).mean() > .99, 20)
    small.click()
    changed(page, kernel, 'Heads', f'{head} in x.chosen.get({layer}, []) and not x.job.running')
    expect(page.get_by_text(f'{layer}.{head} selected', exact=True)).to_be_visible()
    button(page, 'Best five').click()
    changed(page, kernel, 'Heads', f'{five} and not x._by_hand and not x.job.running')


# Words

def test_words_and_ways_are_pressed_and_written(page, kernel):
    tab(page, 'Words')
    stepped(page, kernel, 'Words', 'step', 'layer')
    box = page.locator('.vidlens-tabs').get_by_label('words', exact=True)
    box.fill('moves right, red')
    box.press('Enter')
    assert "['moves right', 'red']" in changed(page, kernel, 'Words', "x.state.words == ['moves right', 'red']")['code']
    button(page, 'circle').click()
    changed(page, kernel, 'Words', "x.state.words == ['moves right', 'red', 'circle']")
    expect(box).to_have_value('moves right, red, circle')
    for way in ('cross-attention', 'ConceptAttention'):
        button(page, way).click()
        told = changed(page, kernel, 'Words', f'{way!r} in x.methods.value')
        assert 'baselines=' in told['code']
        expect(page.get_by_text(f'red: {way}', exact=True)).to_be_visible()
    for way in ('GramCol', 'ConceptAttention'):
        button(page, way).click()
        changed(page, kernel, 'Words', f'{way!r} not in x.methods.value')
    button(page, 'IMAP').click()
    button(page, 'cross-attention').click()
    assert 'heads=2' in changed(page, kernel, 'Words', "x.methods.value == ['IMAP']")['code']
    button(page, 'cross-attention').click()
    assert changed(page, kernel, 'Words', "x.methods.value == ['IMAP', 'cross-attention']")['code'].count('imap(trace') == 2
    button(page, 'cross-attention').click()
    page.get_by_label('all layers').check()
    assert 'layers' not in changed(page, kernel, 'Words', 'x.every.value')['code']
    page.get_by_label('all layers').uncheck()
    button(page, 'GramCol').click()
    button(page, 'IMAP').click()
    changed(page, kernel, 'Words', "x.methods.value == ['GramCol'] and not x.every.value")
    expect(page.locator('.vidlens-tabs .js-plotly-plot:visible .scatterlayer .trace')).to_have_count(3)


def test_a_strange_word_is_a_sentence(page, kernel):
    tab(page, 'Words')
    box = page.locator('.vidlens-tabs').get_by_label('words', exact=True)
    for word, sentence in (('zebra', "does not know 'zebra'"), (' , ', 'enter a word, for example red')):
        box.fill(word)
        box.press('Enter')
        alerted(page, sentence)
        expect(page.locator(VIEWER).first).to_have_attribute('aria-busy', 'false')
    box.fill('red')
    box.press('Enter')
    assert changed(page, kernel, 'Words', "x.state.words == ['red']")['message'] == ''


# Channels

def test_motion_channels_are_those_of_the_verb(page, kernel):
    tab(page, 'Channels')
    stepped(page, kernel, 'Channels', 'step', 'layer')
    click_video(page, .75, .375)
    told = changed(page, kernel, 'Channels', 'abs(x.state.point[1] - 48) < .2 and abs(x.state.point[2] - 24) < .2')
    assert 'motion_map(trace, point=(0, 4' in told['code']
    button(page, 'Find motion channels').click()
    told = changed(page, kernel, 'Channels', '"channels=found" in x.viewer.code')
    verb = 'moft(x.trace.pipe, layer=x.state.layer, step=x.state.step, num_inference_steps=len(x.trace.plan)).channels.index'
    assert kernel.told(f"(lambda x: torch.equal({verb}, x.found.channels.index))(made('Channels'))")
    charts = page.locator('.vidlens-tabs .js-plotly-plot:visible')
    expect(charts).to_have_count(3)
    expect(charts.locator('.bars .point')).to_have_count(kernel.told("len(made('Channels').found.channels)"))


# Steer

def drag(page, *places):
    "Over parts of the width and height of the first canvas."
    box = box_of(first_canvas(page))
    at = [(box['x'] + box['width'] * x, box['y'] + box['height'] * y) for x, y in places]
    page.mouse.move(*at[0])
    page.mouse.down()
    for place in at[1:]:
        page.mouse.move(*place)
    page.mouse.up()


def test_a_painted_part_and_an_arrow_steer(page, kernel):
    tab(page, 'Steer')
    button(page, 'Run').click()
    alerted(page, 'draw an arrow first')
    drag(page, (.4, .4), (.6, .5), (.5, .6))
    kernel.until("made('Steer').viewer.painted is not None")
    image, painted = live.at_centres(drawn(first_canvas(page)), 64), kernel.told("made('Steer').viewer.painted.nonzero().tolist()")
    plain = live.picture(kernel.told("png(made('Steer').viewer.pixels[made('Steer').viewer.frame])"))
    green = np.abs(image - plain).max(-1) > 3 / 255
    assert len(painted) > 50 and green.sum() == sum(green[r, c] for r, c in painted) > .95 * len(painted)
    button(page, 'arrow').click()
    drag(page, (.5, .5), (.75, .5))
    kernel.until("made('Steer').viewer.arrow")
    assert np.allclose(kernel.told("made('Steer').viewer.arrow"), [32, 32, 48, 32], atol=.3)
    pressed(page, 'strength', 'ArrowRight')
    pressed(page, 'last step', 'ArrowLeft')
    kernel.until("(made('Steer').strength.value, made('Steer').last.value) == (.35, 5)")
    button(page, 'Run').click()
    told = changed(page, kernel, 'Steer', 'x.video is not None and not x.run.running')
    assert 'rate=0.35' in told['code'] and 'steps=range(1, 5)' in told['code'] and ', mask)' in told['code']
    after = page.locator(VIEWER).nth(1)
    after.wait_for()
    want = live.picture(kernel.told("png(made('Steer').video[made('Steer').viewer.frame])"))
    live.until(lambda: (np.abs(live.at_centres(drawn(after.locator('figure > canvas')), 64) - want) < 1.5 / 255).all(), 20)
    shot(page, 'lab-steered')


def test_cancelling_keeps_what_was_made(page, kernel):
    tab(page, 'Steer')
    number = kernel.told("id(made('Steer').video)")
    with waits_at(kernel, "made('Steer').run", 3):
        button(page, 'Run').click()
        page.get_by_text('3 of 12 steps', exact=True).wait_for(timeout=60_000)
        button(page, 'Cancel').click()
        kernel.until("not made('Steer').run.running")
    kernel.until("made('Steer').run.job.cancelled and not made('Steer').run.job.running and not made('Steer').viewer.busy")
    assert kernel.told("id(made('Steer').video)") == number
    expect(button(page, 'Run')).to_be_enabled()
    expect(button(page, 'Cancel')).to_be_disabled()
    expect(page.locator(VIEWER).first).to_have_attribute('aria-busy', 'false')


def test_heads_off_are_silent_and_what_is_none_is_said(page, kernel):
    tab(page, 'Steer')
    button(page, 'Clear').click()
    kernel.until("made('Steer').viewer.painted is None and not made('Steer').viewer.arrow")
    box = page.locator('.vidlens-tabs').get_by_label('ablate', exact=True)
    for bad, sentence in (('x', 'is neither a head nor a layer'), ('9.9', 'layers=9 is outside')):
        box.fill(bad)
        box.press('Enter')
        button(page, 'Run').click()
        alerted(page, sentence)
    box.fill('4.0, 4.1 2')
    box.press('Enter')
    kernel.until("made('Steer').off.value == '4.0, 4.1 2'")
    button(page, 'Run').click()
    told = changed(page, kernel, 'Steer', "x.viewer.code.startswith('ablated') and not x.run.running")
    assert '{4: [0, 1], 2: None}' in told['code'] and told['message'] == ''


def test_before_and_after_play_together(page, kernel):
    tab(page, 'Steer')
    before, after = page.locator(VIEWER).first, page.locator(VIEWER).nth(1)
    expect(after.locator('figcaption')).to_have_text('without heads 4.0, 4.1, layer 2')
    before.get_by_label('Play').click()
    page.wait_for_function('([a, b]) => +a.dataset.shown > 2 && a.dataset.shown === b.dataset.shown',
                           arg=[before.element_handle(), after.element_handle()])
    before.get_by_label('Pause').click()
    kernel.until("made('Steer').viewer.frame == made('Steer').after.frame == made('Steer').state.frame > 2")


# Video, and what every viewer has

def test_the_video_plays_and_stops(page, kernel):
    tab(page, 'Video')
    viewer = page.locator(VIEWER).first
    viewer.get_by_label('Play').click()
    page.wait_for_function('v => +v.dataset.shown > 2', arg=viewer.element_handle())
    viewer.get_by_label('Pause').click()
    shown = int(viewer.get_attribute('data-shown'))
    changed(page, kernel, 'Video', f'x.state.frame == {shown}')
    viewer.get_by_label('Frame', exact=True).press('ArrowRight')
    changed(page, kernel, 'Video', f'x.state.frame == {shown + 1}')
    assert viewer.locator('.vidlens-count').inner_text() == f'{shown + 2} / 17'


def test_the_video_wears_what_another_explorer_shows(page, kernel):
    tab(page, 'Match')
    stepped(page, kernel, 'Match', 'layer')
    tab(page, 'Video')
    page.locator('.vidlens-tabs').get_by_label('show', exact=True).select_option('Match')
    told = changed(page, kernel, 'Video', "x.viewer.shown and not x.viewer.busy")
    assert told['code'] == kernel.told("made('Match').call")
    page.locator(VIEWER).first.get_by_label('Opacity of the map').press('End')
    changed(page, kernel, 'Video', 'x.viewer.alpha == 1')
    page.locator('.vidlens-tabs').get_by_label('show', exact=True).select_option('video only')
    assert changed(page, kernel, 'Video', 'not x.viewer.shown')['code'] == 'trace.video'


STICKS_OUT = '''root => [...root.querySelectorAll('*')].filter(e => e.checkVisibility() && e.clientWidth
    && e.getBoundingClientRect().right > root.getBoundingClientRect().right + 1 && getComputedStyle(e).position !== 'absolute'
    && !e.closest('.js-plotly-plot, .noUi-base')).map(e => e.className || e.tagName)'''


@pytest.mark.parametrize('width, height', [(1280, 720), (680, 800)])
def test_all_fits_and_nothing_jumps(page, kernel, width, height):
    was = page.viewport_size
    page.set_viewport_size(dict(width=width, height=height))
    try:
        for name in TABS:
            tab(page, name)
            changed(page, kernel, name, 'x.visible and not x._stale and not x.viewer.busy')
            assert not page.locator('.vidlens-tabs').evaluate(STICKS_OUT), name
        tab(page, 'Match')
        stepped(page, kernel, 'Match', 'layer')
        place = first_canvas(page).bounding_box()
        stepped(page, kernel, 'Match', 'step', 'layer')
        assert first_canvas(page).bounding_box() == place
    finally:
        page.set_viewport_size(was)


def test_charts_are_told_in_words(page, kernel):
    tab(page, 'Words')
    agreed(page, kernel, 'Words')
    chart = page.locator('.vidlens-tabs .js-plotly-plot:visible').first
    expect(chart).to_have_attribute('aria-label', re.compile('^evidence, .* over RGB frame: .*frame'))


def test_opacity_and_colours(page, kernel):
    tab(page, 'Match')
    viewer = page.locator(VIEWER).first
    viewer.get_by_label('Opacity of the map').press('End')
    changed(page, kernel, 'Match', 'x.viewer.alpha == 1')
    viewer.get_by_label('Colour map').select_option('viridis')
    changed(page, kernel, 'Match', "x.viewer.cmap == 'viridis'")
    viewer.get_by_label('Opacity of the map').press('ArrowLeft')
    changed(page, kernel, 'Match', 'abs(x.viewer.alpha - .95) < 1e-6')


@pytest.mark.parametrize('name', ['Match', 'Video'])
def test_files_hold_what_is_seen(page, kernel, name, tmp_path):
    tab(page, name)
    viewer = page.locator(VIEWER).first
    with page.expect_download() as got:
        viewer.get_by_label('Save as PNG').click()
    assert np.array_equal(image_of(got.value.path().read_bytes()), drawn(first_canvas(page)))
    for kind in ('gif', 'mp4'):
        with page.expect_download() as got:
            viewer.get_by_label(f'Save as {kind.upper()}').click()
        assert got.value.suggested_filename == f'vidlens-{"match" if name == "Match" else "video"}.{kind}'
        got.value.save_as(tmp_path / f'x.{kind}')
        far, frames = kernel.told('(lambda a, b: [(a[:, :b.shape[1], :b.shape[2]] - b).abs().mean().item(), len(a) - len(b)])'
                                  f"(read_video({str(tmp_path / f'x.{kind}')!r}), made({name!r}).viewer.picture(points=True))")
        assert far < .05 and frames == 0


def test_the_call_is_copied(page, kernel):
    tab(page, 'Match')
    code = agreed(page, kernel, 'Match')['code']
    page.locator(VIEWER).first.get_by_label('Copy the Python call').click()
    page.locator(VIEWER).first.get_by_text('copied', exact=True).wait_for()
    assert page.evaluate('navigator.clipboard.readText()') == code


# A clip whose true tracks are known

def test_a_budget_too_small_is_a_sentence(clip):
    small = clip.locator('.jp-CodeCell').nth(1).locator('.vidlens-viewer')
    small.get_by_role('alert').filter(has_text='budget=').wait_for(timeout=30_000)
    assert 'alone takes' in small.get_by_role('alert').inner_text() and small.get_attribute('aria-busy') == 'false'


def test_scoring_is_cancelled_and_the_best_is_gone_to(clip, clip_kernel):
    agreed(clip, clip_kernel, 'Match')
    expect(button(clip, 'Cancel')).to_be_disabled()
    with waits_at(clip_kernel, "made('Match').score_task", 3):
        button(clip, 'Score all steps').click()
        clip.get_by_text('3 of 30 steps', exact=True).wait_for(timeout=60_000)
        button(clip, 'Cancel').click()
        clip_kernel.until("not made('Match').score_task.running")
    clip_kernel.until("not made('Match').score_task.job.running")
    scored = clip_kernel.told("(~made('Match').scores.isnan()).all(1).nonzero().flatten().tolist()")
    assert scored == [0, 1, 2]
    expect(button(clip, 'Score all steps')).to_be_enabled()
    button(clip, 'Go to best').click()
    best = "divmod(int(x.scores.nan_to_num(-1).argmax()), x.scores.shape[1])"
    changed(clip, clip_kernel, 'Match', f'(x.state.step, x.state.layer) == {best}')
    click_chart(clip, 1, 2)
    told = changed(clip, clip_kernel, 'Match', '(x.state.step, x.state.layer) == (1, 2)')
    assert 'step=1, layer=2' in told['code']
    score = clip_kernel.told("score(made('Match').trace, steps=1, layers=[2]).map('accuracy')[0, 0].item()")
    clip.get_by_text(f'step 1, layer 2: {score:.2f} of the ground-truth points', exact=False).wait_for()
    shot(clip, 'lab-scored')


def test_a_known_track_is_drawn_beside_the_one_that_is_found(clip, clip_kernel):
    x, y = clip_kernel.told("made('Match').trace.clip.tracks[-1, 0].tolist()")
    click_video(clip, x / 64, y / 64)
    changed(clip, clip_kernel, 'Match', f'x.state.point and abs(x.state.point[1] - {x}) < .5')
    assert np.allclose(np.array(clip_kernel.told("made('Match').viewer.truth[0]"))[:, :2],
                       clip_kernel.told("made('Match').trace.clip.tracks[-1].tolist()"))


def test_a_cell_that_is_run_again_leaves_one_explorer(clip, clip_kernel):
    clip_kernel.until("globals().update(before=every()) or True")
    run_all(clip)
    clip_kernel.until('every() is not before and before.trace.closed and made("Match")')
    clip.locator('.vidlens-tabs').first.wait_for()
    pressed(clip, 'layer', 'ArrowLeft')
    changed(clip, clip_kernel, 'Match', 'x.state.layer == 3')
    expect(clip.locator('.vidlens-tabs')).to_have_count(1)
    expect(clip.locator('.vidlens-tabs .vidlens-viewer')).to_have_count(1)


def test_a_dead_kernel_is_said(clip, clip_kernel):
    viewer = clip.locator(VIEWER).first
    os.kill(clip_kernel.told("__import__('os').getpid()"), signal.SIGKILL)
    viewer.get_by_role('alert').filter(has_text='The kernel has stopped').wait_for(timeout=60_000)
    assert viewer.get_attribute('aria-busy') == 'false'
    shot(clip, 'lab-dead')


# Notebook 7

OWN = r"reading 'schema'.*notebook_core"         # settings of Notebook 7.6's shortcuts, where another plugin's come first


def test_notebook_7(tmp_path, browser, complaints):
    pytest.importorskip('notebook', reason='needs Notebook 7: pip install notebook')
    explorer_notebook(tmp_path / 'explore.ipynb', prompt='a red circle', num_inference_steps=4)
    command = [sys.executable, '-m', 'notebook', '--no-browser', f'--ServerApp.root_dir={tmp_path}', '--port']
    with live.Served([*command, str(live.free_port())], tmp_path, home(tmp_path)) as server:
        page = opened(browser, server, 'explore.ipynb', complaints, 'notebooks', f'(?s){OWN}')
        kernel = live.Kernel(server.connection('explore.ipynb'))
        agreed(page, kernel, 'Match')
        for layer in (1, 3):
            tapped(page, 'layer', layer)
            changed(page, kernel, 'Match', f'x.state.layer == {layer}')
        stepped(page, kernel, 'Match', 'layer')      # the arrow is the slider's, and goes to no other cell
        shot(page, 'notebook')
        kernel.close()
        page.context.close()
        assert server.stop() == 0
