"""What the tests of served explorers need: a home of their own, a server, its kernel, a browser, and the pixels in it."""
import ast
import base64
import fcntl
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import termios
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

FLAGS = '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-sync'.split()
VIDLENS = [sys.executable, '-c', 'import sys; from vidlens.cli import main; sys.exit(main())']


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def until(what, seconds=60, every=.05):
    "Wait until what() is true, and give what it said."
    for _ in range(int(seconds / every)):
        if found := what():
            return found
        time.sleep(every)
    raise TimeoutError(f'still not after {seconds} s: {what}')


def home(folder):
    "Variables of a server that touches no other home; Jupyter asks those who are root, as in containers, to say so."
    names = dict(HOME='home', JUPYTER_CONFIG_DIR='config', JUPYTER_DATA_DIR='data', JUPYTER_RUNTIME_DIR='run', IPYTHONDIR='ipython')
    news = folder / 'config/lab/user-settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings'
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false", "checkForUpdates": false}')       # else it asks, and looks outside
    (folder / 'config/jupyter_server_config.json').write_text(json.dumps(dict(ServerApp=dict(allow_root=True))))
    return os.environ | {k: str(folder / v) for k, v in names.items()} | dict(OMP_NUM_THREADS='1')


def at_a_terminal():
    "In the child: what it reads from is the terminal of a session of its own, so a server asks there, and Ctrl+C reaches it."
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)      # shells let what runs in the background ignore it


class Served:
    "A server: its `address` as it prints it, and its `token`."

    def __init__(self, command, folder, env, **more):
        self.folder, self.log = folder, folder / 'log'
        self.keys, terminal = os.openpty()
        with open(self.log, 'w', encoding='utf-8') as log:
            self.process = subprocess.Popen(command, cwd=folder, env=env | more, stdin=terminal, stdout=log,
                                            stderr=subprocess.STDOUT, preexec_fn=at_a_terminal)
        os.close(terminal)

    def ready(self):
        self.address = until(self._printed, 90)
        self.root, self.token = re.fullmatch(r'(http://[^/]+)/.*?(?:token=(.*))?', self.address).groups()
        until(lambda: self.status('/api') == 200)
        return self

    def _printed(self):
        text = self.log.read_text(encoding='utf-8')
        if self.process.poll() is not None:
            raise RuntimeError(text[-3000:])
        found = re.findall(r'^\s+(http://127\.0\.0\.1:\S+)$', text, re.M)
        return found and found[-1]

    def get(self, path, token=''):
        return urllib.request.urlopen(f'{self.root}{path}{token and "?token=" + token}', timeout=10)

    def status(self, path, token=''):
        "Of an answer; 0 where there is none."
        try:
            return self.get(path, token).status
        except urllib.error.HTTPError as e:
            return e.code
        except OSError:
            return 0

    def kernel(self, notebook):
        "What the server knows of a notebook's kernel; {}: nothing yet."
        sessions = json.load(self.get('/api/sessions', self.token))
        return next((s['kernel'] for s in sessions if s['path'] == notebook), {})

    def connected(self, notebook):
        "Does a page listen to the notebook's kernel?"
        return self.kernel(notebook).get('connections', 0) > 0

    def connection(self, notebook=None):
        "The file by which a notebook's kernel is reached; None: the only kernel's."
        return next((self.folder / 'run').glob(f"kernel-{'*' if notebook is None else self.kernel(notebook)['id']}.json"))

    def stop(self):
        "Ctrl+C: the server asks whether that was meant, and again says yes. Gives the exit status."
        os.write(self.keys, b'\x03')
        until(lambda: 'Shut down this Jupyter server' in self.log.read_text(encoding='utf-8'))
        os.write(self.keys, b'\x03')
        return self.process.wait(30)

    def __enter__(self):
        try:
            return self.ready()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *error):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
        os.close(self.keys)


# Defined in the kernel: what the visible explorer's Python call gives, and what Python draws of it.
HELP = '''
import base64, io, json, time
import torch
from PIL import Image
from ipywidgets.widgets.widget import _instances
from vidlens.live.steer_explorer import ablated
from vidlens.live.tabs import Explorers
from vidlens.live.words_explorer import METHODS
from vidlens.motion.one_site import moft, motion_map
from vidlens.points.matching import Matching
from vidlens.points.tracking import point_map, track
from vidlens.words.word_maps import head_maps, imap
from vidlens.points.scoring import score
from vidlens.core.pictures import overlay
from vidlens.motion.steering import Guide, Region, control
from vidlens.core.video import read_video
from vidlens.live.viewer import pack_maps

def every():
    return [x for x in _instances.values() if isinstance(x, Explorers)][-1]

def made(name):
    every().trace                  # it may be on its way
    return every().made[name]

def said(x):
    known = dict(trace=x.trace, pipe=x.trace.pipe, track=track, point_map=point_map, imap=imap, Matching=Matching,
                 motion_map=motion_map, control=control, Guide=Guide, Region=Region, ablated=ablated, moft=moft,
                 mask=getattr(x, 'mask', None))
    found = []
    for line in x.viewer.code.splitlines():
        name, is_set, rest = line.partition(' = ')
        found.append(eval(rest if is_set and name.isidentifier() else line, known))
        known[name] = found[-1]
    first, last = found[0], found[-1]
    if hasattr(last, 'baselines'):
        methods = getattr(x, 'methods', None)
        by = dict(GramCol=first.maps, IMAP=last.maps, **{v: first.baselines.get(n) for v, n in METHODS.items() if n != 'maps'})
        return torch.cat([by[v] for v in (methods.value if methods else ['IMAP'])])
    return last[None] if torch.is_tensor(last) and last.ndim == 3 else getattr(last, 'video', last)

def png(frame):
    out = io.BytesIO()
    Image.fromarray((frame * 255).round().byte().numpy()).save(out, 'png')
    return base64.b64encode(out.getvalue()).decode()

def told(name):
    x = made(name)
    for _ in range(200):                # a change may be halfway: comms run in a thread of their own
        if x.job and not x.job.cancelled:
            x.job.result(120)
        if x.viewer.message or x.viewer.code == x.call:
            break
        time.sleep(.05)
    v, want = x.viewer, said(x)
    if v.shown:
        same, drawn = (v.maps, v.ranges) == pack_maps(want), overlay(v.pixels, want[0], v.grid, v.alpha, v.cmap, smooth=v.smooth)
    else:
        same, drawn = torch.equal(want, v.pixels if getattr(x, 'video', None) is None else x.video), v.pixels
    paths = [[p[:2] for p in path[:v.frame + 1]] for path in [*v.tracks, *v.truth]]
    if v.point and v.point[0] == v.frame:
        paths.append([v.point[1:]])
    if v.arrow:
        paths.append([v.arrow[:2], v.arrow[2:]])
    over = [] if v.painted is None else v.painted.nonzero().tolist()
    return dict(code=v.code, call=x.call, same=bool(same), picture=png(drawn[v.frame]), paths=paths, over=over, message=v.message)
'''


class Kernel:
    "A kernel that a page uses, asked past the page: `told` gives the value of an expression."

    def __init__(self, connection):
        from jupyter_client import BlockingKernelClient

        self.client = BlockingKernelClient(connection_file=str(connection))
        self.client.load_connection_file()
        self.client.start_channels(iopub=False, stdin=False, hb=False, control=False)
        self._ask(HELP)

    def _ask(self, code, **expressions):
        sent = self.client.execute(code, silent=True, store_history=False, user_expressions=expressions, allow_stdin=False)
        while (reply := self.client.get_shell_msg(timeout=120))['parent_header'].get('msg_id') != sent:
            pass
        assert reply['content']['status'] == 'ok', '\n'.join(reply['content']['traceback'])
        return reply['content']['user_expressions']

    def told(self, expression):
        "A value that JSON can tell."
        found = self._ask('', it=f'json.dumps({expression})')['it']
        assert found['status'] == 'ok', '\n'.join(found['traceback'])
        return json.loads(ast.literal_eval(found['data']['text/plain']))

    def until(self, expression, seconds=60):
        "Wait until it is true."
        until(lambda: self.told(f'bool({expression})'), seconds)

    def close(self):
        self.client.stop_channels()


@contextmanager
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        it = p.chromium.launch(executable_path='/usr/bin/chromium', args=FLAGS)
        yield it
        it.close()


def listened(page, said, but='$^'):
    "Into `said`: all that the browser complains about, but what is known to be another's."
    def hear(text):
        if not re.search(but, text):
            said.append(text)
    page.on('pageerror', lambda e: hear(f'page: {e} {e.stack}'))
    page.on('console', lambda m: hear(f'console: {m.text} ({m.location.get("url")})') if m.type == 'error' else None)
    return page


def shot(page, name):
    if folder := os.environ.get('VIDLENS_SHOTS'):
        page.screenshot(path=Path(folder, f'{name}.png'))


def image_of(data):
    "A picture file as (height, width, 3) numbers in [0, 1]."
    return np.asarray(Image.open(io.BytesIO(data)).convert('RGB')) / 255


def picture(text):
    "What the kernel's `png` told."
    return image_of(base64.b64decode(text))


def drawn(canvas):
    "What a canvas shows, (height, width, 3) in [0, 1]."
    return image_of(base64.b64decode(canvas.evaluate('c => c.toDataURL("image/png")').split(',')[1]))


def at_centres(image, width):
    "Of each of the video's pixels the one in its middle."
    n = image.shape[1] // width
    return image[n // 2::n, n // 2::n]


def far_from(paths, over, size, radius=5):
    "Which pixels (height, width) no line and no paint covers."
    height, width = size
    y, x = np.mgrid[:height, :width] + .5
    free = np.ones(size, bool)
    for path in paths:
        for (x0, y0), (x1, y1) in zip(path, [*path[1:], path[-1]], strict=True):
            for u in np.linspace(0, 1, 30):
                free &= np.hypot(x - x0 - u * (x1 - x0), y - y0 - u * (y1 - y0)) > radius
    for row, col in over:
        free[row, col] = False
    return free


def agreed(page, kernel, name):
    """What the kernel told of an explorer, once all is as Python says: the call that is shown is that of where the controls are,
    the maps are those of the call, and the pixels those that Python draws, wherever no line and no paint covers them."""
    told = kernel.told(f'told({name!r})')
    want = picture(told['picture'])
    free, far = far_from(told['paths'], told['over'], want.shape[:2]), [1.]

    def same():
        viewer = page.locator(VIEWER).first
        if viewer.get_attribute('aria-busy') != 'false' or viewer.locator('code').text_content() != told['code']:
            return False
        shown = at_centres(drawn(viewer.locator('figure > canvas').first), want.shape[1])
        far[0] = (np.abs(shown - want).max(-1) > 3.01 / 255)[free].mean()
        return far[0] <= .01

    try:
        until(same, 20)
    except TimeoutError:
        raise AssertionError(f'{far[0]:.0%} of the pixels differ from what {told["code"]} gives') from None
    assert told['same'] and told['code'] == told['call'] and free.mean() > .5, told['code']
    return told


VIEWER = '.vidlens-tabs .vidlens-viewer:not(.vidlens-bare):visible'


def slider(page, name):
    return page.locator('.vidlens-tabs .widget-slider:visible', has=page.get_by_text(name, exact=True)).locator('.noUi-handle')


def tapped(page, name, value):
    "With the pointer, on a place of the slider's line."
    handle = slider(page, name)
    handle.scroll_into_view_if_needed()
    low, high = (float(handle.get_attribute(f'aria-value{k}')) for k in ('min', 'max'))
    box = handle.locator('xpath=ancestor::*[contains(@class, "noUi-base")]').bounding_box()
    page.mouse.click(box['x'] + box['width'] * (value - low) / (high - low), box['y'] + box['height'] / 2)


def pressed(page, name, *keys):
    slider(page, name).focus()
    for key in keys:
        page.keyboard.press(key)


def tab(page, name):
    page.get_by_role('tab', name=name, exact=True).click()
    page.locator(VIEWER).first.wait_for(timeout=60_000)
