"""The viewer: what is sent is what was given, what is painted comes back, and a page without a kernel shows the same pixels."""
import base64
import io
import re

import numpy as np
import pytest
import torch
from live import until
from PIL import Image

from vidlens import world
from vidlens.core.grid import Grid
from vidlens.core.pictures import colour_table
from vidlens.core.video import read_video
from vidlens.live.viewer import Viewer, encode_frames, viewer_page

GRID = Grid(5, 8, 8, stride=8)
VIDEO = torch.rand(17, 64, 64, 3, generator=torch.Generator().manual_seed(0))


def maps(n=2, seed=1):
    x = torch.randn(n, *GRID.shape, generator=torch.Generator().manual_seed(seed))
    return {f'map {i}': m for i, m in enumerate(x)}


def test_small_frames_are_exact_and_large_ones_are_close():
    for video, kind, far in ((VIDEO, 'WEBP', .5 / 255 + 1e-6), (torch.full((2, 480, 720, 3), .3), 'JPEG', .02)):
        data, cuts = encode_frames(video)
        assert len(cuts) == len(video) + 1 and cuts[-1] == len(data)
        for i in (0, len(video) - 1):
            image = Image.open(io.BytesIO(data[cuts[i]:cuts[i + 1]]))
            assert image.format == kind
            assert (torch.from_numpy(np.asarray(image).copy()) / 255 - video[i]).abs().max() <= far


def test_values_can_be_read_back():
    viewer, given = Viewer(VIDEO), maps()
    viewer.show_maps(given, GRID, unit='cos')
    sent = torch.from_numpy(np.frombuffer(viewer.maps, '<u2').reshape(viewer.shape) / 65535)
    for x, got, (lo, hi) in zip(given.values(), sent, viewer.ranges):
        assert (got * (hi - lo) + lo - x).abs().max() <= (hi - lo) / 65535
    assert viewer.times == [GRID.frame_of(i) for i in range(17)] and viewer.panels == list(given)
    viewer.show_maps({}, GRID)
    assert viewer.shape[0] == 0 and viewer.maps == b'' and torch.equal(viewer.picture(), VIDEO)


NAN = torch.full((5, 8, 8), torch.nan)


@pytest.mark.parametrize('odd', [torch.zeros(5, 8, 8), NAN, torch.cat([NAN[:1], torch.ones(4, 8, 8)])])
def test_flat_and_missing_values_do_not_break(odd):
    viewer = Viewer(VIDEO)
    viewer.show_maps({'x': odd}, GRID)
    assert np.isfinite(viewer.ranges).all() and len(viewer.maps) == 2 * GRID.n


def test_bad_maps_are_refused():
    viewer = Viewer(VIDEO)
    with pytest.raises(ValueError, match=r'each must be \(5 frames, rows, cols\)'):
        viewer.show_maps({'a': torch.zeros(4, 8, 8)}, GRID)
    with pytest.raises(ValueError, match='cmap='):
        Viewer(VIDEO, cmap='rainbows')
    viewer.show_maps(maps(2), GRID)
    with pytest.raises(ValueError, match='but the maps shown have'):
        viewer_page(viewer, {'0': maps(1)})


def test_painting_comes_back():
    viewer = Viewer(VIDEO)
    assert viewer.painted is None
    mask = torch.zeros(64, 64, dtype=torch.uint8)
    mask[10:20, 30:50] = 1
    viewer.mask = mask.numpy().tobytes()
    assert torch.equal(viewer.painted, mask.bool())
    viewer.set_state(dict(mask=memoryview(mask.T.contiguous().numpy().tobytes())))   # as the browser sends it
    assert torch.equal(viewer.painted, mask.T.bool())


def test_the_page_is_closed_off_and_escaped():
    viewer = Viewer(VIDEO, label='</script><img onerror=x>')
    viewer.show_maps(maps(), GRID)
    page = viewer_page(viewer, {'<b>0': maps(), '1': maps(seed=2)}, title='<i>t', name='<u>')
    assert page.count('<script') == page.count('</script>') == 1 and not re.search(r'<(img|b|i|u)\b|https?://', page)


def test_files_are_what_is_seen(tmp_path):
    viewer = Viewer(world.clip('a red circle moves right', seed=3).video, label='x')
    viewer.show_maps(maps(2), GRID)
    track = torch.stack([torch.linspace(10, 50, len(VIDEO)), torch.full((len(VIDEO),), 20.)], -1)[None]
    viewer.show_tracks(track, torch.ones(1, len(VIDEO)), track + 3)
    want = viewer.picture(points=True)
    assert want.shape[0] == len(VIDEO) and not torch.equal(want[0], want[-1])
    for kind in ('gif', 'mp4', 'webp'):
        path = tmp_path / f'x.{kind}'
        path.write_bytes(viewer.file(kind))
        got = read_video(path)
        assert got.shape[0] == len(VIDEO) and (got[:, :want.shape[1], :want.shape[2]] - want).abs().mean() < .05
    sent = []
    viewer.send = lambda content, buffers: sent.append((content, buffers))
    viewer._handle_custom_msg(dict(save='gif'), [])            # what a button sends
    viewer._saver._jobs['save'].result(60)
    assert sent == [(dict(saved='vidlens-x.gif'), [viewer.file('gif')])]
    with pytest.raises(ValueError):
        viewer.save('exe').result(60)
    assert "'video.exe'" in viewer.message
    viewer.close()


def test_another_video_takes_its_place():
    viewer = Viewer(VIDEO)
    before = viewer.video
    viewer.show_video(1 - VIDEO)
    assert viewer.video != before and torch.equal(viewer.pixels, 1 - VIDEO) and torch.equal(viewer.picture(), 1 - VIDEO)


# In a browser

@pytest.fixture(scope='module')
def browser():
    from playwright.sync_api import sync_playwright
    flags = '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-sync'
    with sync_playwright() as p:
        it = p.chromium.launch(executable_path='/usr/bin/chromium', args=flags.split())
        yield it
        it.close()


@pytest.fixture
def page(browser, tmp_path):
    "A page of the viewer, and what the browser complained about."
    said = []

    def open_(viewer, choices=None, width=1280, scheme='light', **options):
        path = tmp_path / 'page.html'
        path.write_text(viewer_page(viewer, choices, **options), encoding='utf-8')
        here = browser.new_page(viewport=dict(width=width, height=720), color_scheme=scheme)
        here.on('console', lambda m: said.append(m.text) if m.type in ('error', 'warning') else None)
        here.on('pageerror', lambda e: said.append(str(e)))
        here.goto(path.as_uri())
        here.wait_for_selector('[data-shown]')
        return here
    yield open_
    assert said == []


def pixels(page, panel=0):
    "A canvas as the browser drew it, (height, width, 3) in [0, 1], a pixel for each of the video's."
    uri = page.locator('figure > canvas').nth(panel).evaluate('c => c.toDataURL("image/png")')
    x = torch.from_numpy(np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(',')[1]))))[..., :3].copy()) / 255
    n = x.shape[1] // 64
    return x[n // 2::n, n // 2::n]


def drawn(video, m, frame, alpha=.6, cmap='magma'):
    "What Python says a panel must look like."
    unit = (m - m.min()) / (m.max() - m.min())
    colours = colour_table(cmap)[((unit * 65535).round().long() >> 8)][GRID.frame_of(frame)]
    big = colours.repeat_interleave(8, 0).repeat_interleave(8, 1)
    return (video[frame] * 255).round() / 255 * (1 - alpha) + big * alpha


@pytest.mark.browser
def test_pixels_are_those_of_python(page):
    viewer, choices = Viewer(VIDEO), {'0': maps(), '1': maps(seed=5)}
    viewer.show_maps(choices['0'], GRID)
    here = page(viewer, choices)
    assert (pixels(here, 1) - drawn(VIDEO, choices['0']['map 1'], 0)).abs().max() < .02
    here.locator('canvas').first.focus()
    for _ in range(6):
        here.keyboard.press('.')
    assert (pixels(here) - drawn(VIDEO, choices['0']['map 0'], 6)).abs().max() < .02
    here.locator('#choice').focus()
    here.keyboard.press('ArrowRight')
    until(lambda: (pixels(here) - drawn(VIDEO, choices['1']['map 0'], 6)).abs().max() < .02, 10)


@pytest.mark.browser
def test_keyboard_and_pointer_ask_for_the_place_under_them(page):
    viewer, given = Viewer(VIDEO), maps(1)
    viewer.show_maps(given, GRID, unit='cos')
    here = page(viewer)
    box = here.locator('figure canvas').first.bounding_box()
    here.mouse.move(box['x'] + box['width'] * 20.5 / 64, box['y'] + box['height'] * 45.5 / 64)
    said = here.locator('.vidlens-says').inner_text()
    value = float(given['map 0'][0, 45 // 8, 20 // 8])
    assert said.startswith('x 20, y 45, frame 1: ') and said.endswith('cos')
    assert abs(float(said.split(': ')[1].split()[0]) - value) < .005 * abs(value) + .001
    here.mouse.down()
    assert here.locator('.vidlens-says').inner_text() == 'selected x 21, y 46 in frame 1'
    here.locator('canvas').first.focus()
    for key in ('ArrowRight', 'ArrowUp', 'Enter'):
        here.keyboard.press(key)
    assert here.locator('.vidlens-says').inner_text() == 'selected x 40, y 24 in frame 1'


@pytest.mark.browser
def test_colours_are_chosen_and_files_need_a_kernel(page):
    viewer, m = Viewer(VIDEO), maps(1)
    viewer.show_maps(m, GRID)
    viewer.code = 'engine.match("<b>")'
    here = page(viewer)
    assert here.get_by_label('Colour map').locator('option').all_inner_texts() == viewer.cmaps
    for cmap in ('viridis', 'gray'):
        here.get_by_label('Colour map').select_option(cmap)
        assert (pixels(here) - drawn(VIDEO, next(iter(m.values())), 0, cmap=cmap)).abs().max() < 2.5 / 255
    assert here.get_by_label('Save as PNG').count() == 1 and here.get_by_label('Save as GIF').count() == 0
    assert here.locator('.vidlens-code code').inner_text() == viewer.code
    with here.expect_download() as got:
        here.get_by_label('Save as PNG').click()
    assert Image.open(got.value.path()).size == (320, 320)


@pytest.mark.browser
def test_a_fast_hand_leaves_no_gaps(page):
    here = page(Viewer(VIDEO, tool='mask'))
    canvas = here.locator('figure > canvas').first
    box = canvas.bounding_box()
    here.mouse.move(box['x'] + box['width'] * .1, box['y'] + box['height'] * .5)
    here.mouse.down()
    here.mouse.move(box['x'] + box['width'] * .9, box['y'] + box['height'] * .5)    # one event, the whole width
    here.mouse.up()
    green = pixels(here)[32, 7:57] - (VIDEO[0, 32, 7:57] * 255).round() / 255
    assert (green.abs().sum(-1) > .05).float().mean() > .9


@pytest.mark.browser
@pytest.mark.parametrize('width, scheme', [(1280, 'light'), (360, 'dark')])
def test_nothing_sticks_out(page, width, scheme):
    viewer = Viewer(world.clip('a red circle moves right', seed=3).video)
    viewer.show_maps(maps(3), GRID)
    here = page(viewer, width=width, scheme=scheme)
    assert here.evaluate('document.documentElement.scrollWidth') <= width
    assert here.locator('figure canvas[role="img"]').count() >= 3
    for kind in ('button', 'input'):
        for each in here.locator(f'.vidlens-viewer {kind}').all():
            assert each.get_attribute('aria-label')
