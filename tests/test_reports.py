"""Reports as a browser's parser sees them: well formed, closed off, escaped, every image with an alternative text."""
import base64
import io
import os
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from vidlens import world
from vidlens.core.grid import Grid
from vidlens.words.metrics import iou
from vidlens.core.charts import curve, head_atlas, layer_step_map
from vidlens.core.pictures import draw_arrows, draw_tracks, overlay, show, side_by_side
from vidlens.core.reports import Code, Item, Section, report, report_html

VOID = {'meta', 'img', 'source', 'br', 'hr', 'link', 'input'}
NASTY = ('<script>alert("x")</script><img src=http://evil.example/a.png onerror=\'steal()\'> & "it\'s" {title} '
         '\x00\x1b[31m')


class Page(HTMLParser):
    "Checks nesting while it parses, and collects what a browser would load, show and read out."

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attrs, self.text = [], [], [], ''
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == [], f'never closed: {self.open}'

    def handle_starttag(self, tag, attrs):
        names = [k for k, _ in attrs]
        assert len(names) == len(set(names)), f'an attribute twice in {tag}'
        self.tags.append(tag)
        self.attrs += [(tag, k, v) for k, v in attrs]
        self.rows += [[]] if tag == 'tr' else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f'</{tag}> closes {self.open[-3:]}'
        self.open.pop()

    def handle_data(self, data):
        if 'style' not in self.open:
            self.text += data
        if self.open and self.open[-1] in ('td', 'th'):
            self.rows[-1].append(data)

    def get(self, name):
        return [v for _, k, v in self.attrs if k == name]


def clip(n=9, h=48, w=64):
    y, x = torch.meshgrid(torch.arange(h) / h, torch.arange(w) / w, indexing='ij')
    return torch.stack([torch.stack([x, y, (x + t / n) % 1], -1) for t in range(n)])


def everything():
    table = np.linspace(0, 1, 12).reshape(3, 4)
    return [
        Section('Words', 'One.\n\nTwo.', ['A paragraph.', Code('vidlens demo --seed 0'), {'seed': 0, 'sigma': .5}]),
        Section('Pictures', '', [
            clip(), Item(clip(1), 'One frame.'), Image.new('RGB', (20, 10), 'red'),
            (clip()[..., 0] * 255).byte().numpy(),
            Item(layer_step_map(table), 'A map.', 'a table of 3 steps by 4 layers', wide=True), curve([1, 2, 3])]),
        Section('Tables', '', [[{'a': 1, 'b': .5}, {'a': 2, 'c': None}], pd.DataFrame({'x': [1.5, 2.25]}),
                               pd.DataFrame({'x': [True]}, index=pd.Index(['row'], name='name'))]),
    ]


def test_well_formed_and_closed_off(tmp_path):
    page = Page(report(everything(), tmp_path / 'r.html', 'All kinds').read_text(encoding='utf-8'))
    assert not {'script', 'link', 'iframe', 'object', 'base', 'form', 'video'} & set(page.tags)
    loads = [v for name in ('src', 'href', 'srcset', 'poster', 'data', 'action') for v in page.get(name)]
    assert loads and all(v.startswith(('data:image/', '#s')) for v in loads)
    assert not any(k.startswith('on') for _, k, _ in page.attrs)
    assert "default-src 'none'" in ''.join(page.get('content'))
    assert page.tags.count('h1') == 1 and page.tags.count('h2') == 3


def test_style_loads_nothing():
    html = report_html(everything(), 'x')
    style = html[html.index('<style>'):html.index('</style>')]
    assert 'url(' not in style and '@import' not in style and 'prefers-color-scheme:dark' in style
    assert not re.search(r'https?://', html), 'not even as text'


def test_contents_point_at_the_sections():
    page = Page(report_html([Section('Same'), Section('Same'), Section('Ünï <b>')], 'x'))
    assert page.get('href') == ['#s1', '#s2', '#s3'] and len(set(page.get('id'))) == len(page.get('id'))
    assert {'s1', 's2', 's3'} <= set(page.get('id'))


def test_every_image_is_described_and_whole():
    page = Page(report_html(everything(), 'x'))
    assert page.tags.count('img') == len(page.get('alt')) == 6 and all(page.get('alt'))
    assert 'a table of 3 steps by 4 layers' in page.get('alt') and 'One frame.' in page.get('alt')
    for uri in page.get('src') + page.get('srcset'):
        kind, data = re.fullmatch(r'data:image/(\w+);base64,(.*)', uri).groups()
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as im:
            im.load()
            assert im.format.lower() == kind
    assert len(page.get('width')) == 6


def test_a_video_moves_and_can_be_stilled():
    page = Page(report_html([Section('v', items=[Item(clip(), fps=5)])], 'x'))
    with Image.open(io.BytesIO(base64.b64decode(page.get('src')[0].split(',')[1]))) as im:
        im.load()
        assert (im.format, im.n_frames, im.info['duration'], im.info['loop']) == ('WEBP', 9, 200, 0)
    assert 'prefers-reduced-motion' in page.get('media')[0] and '9 frames · 64×48 · 5 fps' in page.text


@pytest.mark.parametrize('place', [
    'title', 'subtitle', 'section', 'text', 'string', 'code', 'key', 'value', 'column', 'cell', 'caption', 'alt',
    'frame'])
def test_text_is_never_markup(place):
    items = {
        'string': NASTY, 'code': Code(NASTY), 'key': {NASTY: 1}, 'value': {'prompt': NASTY}, 'column': [{NASTY: 1}],
        'cell': [{'a': NASTY}], 'caption': Item(clip(2), NASTY), 'alt': Item(clip(2), 'c', NASTY),
        'frame': pd.DataFrame({NASTY: [NASTY]})}
    section = Section(NASTY if place == 'section' else 's', NASTY if place == 'text' else '',
                      [items[place]] if place in items else [])
    html = report_html([section], NASTY if place == 'title' else 't', NASTY if place == 'subtitle' else '')
    page = Page(html)
    assert 'script' not in page.tags and not any(k == 'onerror' for _, k, _ in page.attrs)
    assert all(v.startswith('data:') for v in page.get('src'))
    shown = NASTY.replace('\x00', '\ufffd').replace('\x1b', '\ufffd')
    assert shown in page.text + ''.join(page.get('alt'))
    assert '\x00' not in html and '\x1b' not in html


def test_tables():
    page = Page(report_html([Section('t', items=[
        [{'layer': 1, 'share': .8123, 'note': 'x'}, {'layer': 10, 'share': .5}, {'layer': 2, 'share': float('nan')}],
        pd.DataFrame({'ok': [True, False]}, index=pd.Index(['a', 'b'], name='clip'))])], 't'))
    assert page.rows[:4] == [['layer', 'share', 'note'], ['1', '0.812', 'x'], ['10', '0.500', '–'], ['2', '–', '–']]
    assert page.rows[4:] == [['clip', 'ok'], ['a', 'yes'], ['b', 'no']]


def test_same_input_same_bytes_and_size_told(tmp_path):
    a = report(everything(), tmp_path / 'a.html', 'x')
    b = report(everything(), tmp_path / 'b.html', 'x')
    assert a.read_bytes() == b.read_bytes()
    assert f'{round(a.stat().st_size / 1000)} KB' in Page(a.read_text(encoding='utf-8')).text


def test_never_half_a_file(tmp_path):
    old = report([Section('old')], tmp_path / 'r.html', 'x').read_bytes()
    with pytest.raises(TypeError):
        report([Section('new', items=[object()])], tmp_path / 'r.html', 'x', force=True)
    assert os.listdir(tmp_path) == ['r.html'] and (tmp_path / 'r.html').read_bytes() == old
    report([Section('new')], tmp_path / 'r.html', 'x', force=True)
    assert 'new' in (tmp_path / 'r.html').read_text()


@pytest.mark.parametrize('call, error, parts', [
    (lambda p: report([], p / 'a.html', 't'), ValueError, ['no sections', "Section('Result'"]),
    (lambda p: report(['text'], p / 'a.html', 't'), TypeError, ['sections[0] is str', 'Section(title, text, items)']),
    (lambda p: report([Section('s', items='abc')], p / 'a.html', 't'), TypeError, ["'s'", 'items=[x]']),
    (lambda p: report([Section('s', items=[1.5])], p / 'a.html', 't'), TypeError, ["section 's', items[0] is float"]),
    (lambda p: report([Section('s', items=[clip() * 9])], p / 'a.html', 't'), ValueError,
     ["section 's', items[0]", '[0, 1]']),
    (lambda p: report([Section('s')], p / 'a.pdf', 't'), ValueError, ["'a.pdf'", 'a.html']),
    (lambda p: report([Section('s')], p / 'no' / 'a.html', 't'), FileNotFoundError, ['mkdir -p']),
    (lambda p: report([Section('s')], p / 'there.html', 't'), FileExistsError, ['force=True']),
])
def test_messages(tmp_path, call, error, parts):
    (tmp_path / 'there.html').touch()
    with pytest.raises(error) as caught:
        call(tmp_path)
    for part in parts:
        assert part in str(caught.value), str(caught.value)
    assert os.listdir(tmp_path) == ['there.html']


# Pictures that reports and notebooks are made of

def test_show_is_still_html_of_bounded_size():
    noise = torch.rand(16, 240, 320, 3, generator=torch.Generator().manual_seed(0))
    for thing in (noise, noise[0], Image.fromarray((noise[0] * 255).byte().numpy()), {'a': noise, 'b': noise}):
        out = show(thing)
        page = Page(out.data)
        assert len(out.data) <= 101_000 and page.tags == ['figure', 'img'] and page.get('alt')[0]
        assert page.get('src')[0].startswith('data:image/')
    figure = head_atlas(np.random.default_rng(0).random((30, 24)))
    assert len(show(figure, caption=NASTY).data) < 100_000
    assert 'script' not in Page(show(figure, caption=NASTY).data).tags


def test_figures_leave_no_state_behind():
    import matplotlib.pyplot as plt
    before = plt.get_fignums(), dict(plt.rcParams)
    layer_step_map(np.eye(3))
    curve({'a': [1, 2], 'b': [2, 1]})
    assert (plt.get_fignums(), dict(plt.rcParams)) == before


def test_overlay_follows_the_edges_of_the_video():
    clip = world.clip('a red circle stays still', seed=2)
    grid = Grid.of(17, 64, 64, 8, 4)
    maps = torch.nn.functional.avg_pool2d(clip.masks[0][[0, 2, 6, 10, 14]].float()[:, None], 8)[:, 0]
    heat = {s: overlay(clip.video, maps, grid, alpha=1, cmap='gray', smooth=s)[..., 0] for s in (False, True, 'edges')}
    fits = {k: float(iou(x, clip.masks[0], .5).mean()) for k, x in heat.items()}
    assert fits['edges'] > fits[True] + .05 and heat['edges'].min() >= 0 and heat['edges'].max() <= 1


def test_overlay_of_a_row_of_tokens_and_of_an_unknown_smooth():
    grid, maps, video = Grid(2, 1, 4, 8, 4), torch.rand(2, 1, 4), torch.rand(5, 8, 32, 3)
    assert all(overlay(video, maps, grid, smooth=s).shape == video.shape for s in (True, False, 'edges'))
    for smooth in ('edge', 'blocks', None):
        with pytest.raises(ValueError, match=rf"smooth={smooth!r} is unknown: use True, False .* 'edges'"):
            overlay(video, maps, grid, smooth=smooth)


def test_overlay_normalisation_is_as_named():
    black = torch.zeros(9, 16, 16, 3)
    maps = torch.stack([torch.full((2, 2), 1.), torch.tensor([[0., 2.], [4., float('nan')]]), torch.full((2, 2), 3.)])
    grey = {norm: overlay(black, maps, alpha=1, cmap='gray', norm=norm, smooth=False, **_grid())[:, 4::8, 4::8, 0]
            for norm in ('video', 'frame', (0, 8))}
    assert torch.allclose(grey['video'][0], torch.tensor(.25), atol=.01)
    assert torch.allclose(grey['video'][4].flatten(), torch.tensor([0, .5, 1, 0]), atol=.01)
    assert grey['frame'][0].max() == 0, 'a flat map says nothing'
    assert torch.allclose(grey[(0, 8)][8], torch.tensor(.375), atol=.01)
    white = overlay(torch.ones(9, 16, 16, 3), maps, **_grid())
    assert (white[4, 8:, 8:] == 1).all(), 'NaN leaves the pixels alone'


def _grid():
    from vidlens.core.grid import Grid
    return {'grid': Grid.of(9, 16, 16, stride=8)}


def test_tracks_colours_are_stable_and_hidden_points_are_not_drawn():
    v = torch.zeros(5, 40, 40, 3)
    t = torch.tensor([[[5., 10.]], [[30., 30.]]]).repeat(1, 5, 1)
    both, swapped = draw_tracks(v, t, scale=1), draw_tracks(v, t.flip(0), scale=1)
    assert torch.equal(both, swapped), 'a colour follows from where a point starts'
    lost = t.clone()
    lost[1, 2:] = float('nan')
    assert torch.equal(draw_tracks(v, lost, trail=2, scale=1)[4, 25:], v[4, 25:])
    far = t.clone()
    far[0, 3] = 1e9
    assert draw_tracks(v, far).isfinite().all()
    assert draw_tracks(v, t[:0], scale=1).sum() == 0 and draw_tracks(v, t, trail=0).shape == (5, 240, 240, 3)


def test_arrows_and_outlines_of_regions():
    "White from the centre of the region along the request; the outline follows the region; the rest is unchanged."
    masks = torch.zeros(1, 2, 32, 32).bool()
    masks[0, 0, 8:16, 4:12] = masks[0, 1, 8:16, 14:22] = True
    video = torch.zeros(5, 32, 32, 3)
    drawn = draw_arrows(video, masks, [[2.5, 0.]], [[float('nan'), 0.]])
    s = drawn.shape[1] // 32
    assert s == 8 and not video.any() and (drawn[0, 12 * s, 8 * s:17 * s] == 1).all() and not drawn[0, :8 * s].any()
    assert drawn[0, 8 * s, 8 * s].any() and not drawn[4, 8 * s, 8 * s].any() and drawn[4, 8 * s, 18 * s].any()
    moved = draw_arrows(video, masks, [[0., 0.]], [[0., 2.5]])
    assert moved[0, 14 * s:20 * s, 8 * s].any(-1).all() and not (moved[0, 14 * s:20 * s, 8 * s] == 1).all()
    for bad in (dict(requested=[]), dict(requested=[[0., 0.]] * 2), dict(requested=[[0., 0.]], measured=[[0., 0.]] * 2)):
        with pytest.raises(ValueError, match='with a velocity'):
            draw_arrows(video, masks, **bad)
    with pytest.raises(ValueError, match='regions, times, 32, 32'):
        draw_arrows(video, masks[..., :8], [[0., 0.]])


def test_side_by_side_holds_single_frames_and_scales():
    row = side_by_side([clip(), clip(1), clip(9, 24, 32)], ['a', NASTY, 'c'], gap=4, scale=2)
    assert row.shape == (9, 96 + 16, 3 * 128 + 8, 3)


def test_side_by_side_breaks_into_rows():
    given, labels = [torch.full((2, 8, 12, 3), i / 8) for i in range(5)], list('abcde')
    flat = side_by_side(given, labels, gap=4, scale=1)
    rows = side_by_side(given, labels, gap=4, scale=1, columns=2)
    assert flat.shape == (2, 24, 5 * 12 + 4 * 4, 3) and rows.shape == (2, 3 * 24 + 2 * 4, 2 * 12 + 4, 3)
    for i in range(5):
        top, left = i // 2 * 28, i % 2 * 16
        assert torch.equal(rows[:, top:top + 24, left:left + 12], flat[:, :, 16 * i:16 * i + 12])
    assert (rows[:, 24:28] == 1).all() and (rows[:, :, 12:16] == 1).all() and (rows[:, 56:, 12:] == 1).all()
    assert torch.equal(side_by_side(given, labels, gap=4, scale=1, columns=9), flat)


# Results draw themselves

def test_show_draws_results(monkeypatch):
    import sys
    from functools import singledispatch
    from types import ModuleType
    from vidlens.core.results import Result
    from vidlens.core.stats import Interval
    from vidlens.core.tables import BestSite, SiteTable
    best = BestSite(4, 18, 30, scores={'accuracy': Interval(.9, .8, .95), 'pck': .7})
    assert Page(show(best).data).tags == ['figure', 'img']

    class Scores(SiteTable):
        facts = {'num_inference_steps': 30}
        names = ['acc', 'pck']

        def map(self, name):
            return torch.eye(2)

    table = Scores([0, 5], [1., .8], [2, 4])
    page = Page(show(table, kilobytes=60).data)
    assert page.tags.count('img') == 2 and 'acc' in page.text and 'pck' in page.text

    class Found(Result):
        __module__ = 'vidlens.nowhere.finding'

    with pytest.raises(TypeError, match=r'there is no picture of a Found yet.*@draw.register in vidlens.nowhere.pictures'):
        show(Found())
    room = ModuleType('vidlens.nowhere.pictures')
    monkeypatch.setitem(sys.modules, 'vidlens.nowhere', ModuleType('vidlens.nowhere'))
    monkeypatch.setitem(sys.modules, 'vidlens.nowhere.pictures', room)
    with pytest.raises(TypeError, match='there is no picture of a Found yet'):
        show(Found())
    room.draw = singledispatch(lambda result, over=None: 1 / 0)
    with pytest.raises(TypeError, match='there is no picture of a Found yet'):
        show(Found())
    room.draw.register(Found, lambda result, over=None: over)
    assert Page(show(Found(), over=torch.rand(5, 8, 8, 3)).data).get('alt') == ['video of 5 frames, 8x8 pixels, 8 frames a second']
    room.draw.register(Scores, lambda result, over=None: 'never')   # another room is not asked
    assert Page(show(table).data).tags.count('img') == 2


def test_show_draws_other_results_as_rows():
    from vidlens.core.results import Result

    class Rows(Result):
        def to_dataframe(self):
            return pd.DataFrame({'layer': range(30), 'name': ['<b>'] * 30})

    page = Page(show(Rows(), caption='All').data)
    assert page.tags.count('tr') == 21 and 'b' not in page.tags and 'All: 20 of 30 rows' in page.text
    assert 'figcaption' not in Page(show(pd.DataFrame({'a': [1]})).data).tags


def test_show_plays_the_video_that_a_result_holds():
    from vidlens.core.results import Result

    class Made(Result):
        video = torch.rand(5, 8, 8, 3)

    assert show(Made()).data == show(Made(), over=torch.rand(5, 8, 8, 3)).data == show(Made.video).data


def test_show_takes_figures_in_a_row():
    pictures = {'a': curve([1, 2]), 'b <i>': Image.new('RGB', (4, 4))}
    page = Page(show(pictures).data)
    assert page.tags == ['div'] + ['figure', 'img', 'figcaption'] * 2 and 'b <i>' in page.text
    assert Page(show(list(pictures.values())).data).tags.count('img') == 2


def test_reports_draw_results(tmp_path):
    from vidlens.core.results import Result
    from vidlens.core.tables import BestSite, SiteTable

    class Scores(SiteTable):
        facts = {'num_inference_steps': 30}
        names = ['acc', 'pck']

        def map(self, name):
            return torch.eye(2)

    class Rows(Result):
        def to_dataframe(self):
            return pd.DataFrame({'layer': [3], 'share': [.5]})

    best = BestSite(4, 18, 30, scores={'accuracy': .7})
    page = Page(report_html([Section('x', items=[Item(Scores([0, 5], [1., .8], [2, 4]), 'Scores:'), best, Rows()])], 'T'))
    assert page.tags.count('img') == 3 and 'Scores: acc' in page.text and 'Scores: pck' in page.text and 'share' in page.text
