"""The explorers served: a notebook whose texts are texts, a token by default, and Voila in a real browser."""
import json
import os
import signal
import subprocess
import sys

import live
import pytest
import torch

from vidlens.cli import main
from vidlens.seam.loading import pipeline_path
from vidlens.live.serving import explorer_notebook, serve_command
from vidlens.core.video import write_video

HOSTILE = "\"'); import os; os.abort() #<script>{model}\n"


def test_texts_stay_texts(tmp_path):
    video, model = tmp_path / "a'b.mp4", tmp_path / HOSTILE
    write_video(torch.rand(3, 16, 16, 3), video)
    model.mkdir()
    (model / 'model_index.json').write_text('{}')
    ours = {'vidlens', 'load', 'pipe', 'video', 'fit_video', 'read_video', 'tabs', 'vidlens.live.tabs', 'explore',
            'ablated', 'vidlens.live.steer_explorer', 'vidlens.motion.one_site', 'moft', 'motion_map', 'vidlens.motion.steering',
            'Guide', 'Region', 'control', 'vidlens.points.matching', 'Matching', 'vidlens.points.tracking', 'point_map', 'track',
            'vidlens.words.word_maps', 'imap'}
    for given in (dict(prompt=HOSTILE), dict(prompt=HOSTILE, video=video), dict(model=str(model), prompt='a')):
        made = explorer_notebook(tmp_path / 'x.ipynb', force=True, **given)
        code = '\n'.join(c['source'] for c in json.loads(made.read_text())['cells'] if c['cell_type'] == 'code')
        assert set(compile(code, 'x', 'exec').co_names) <= ours
        assert repr(str(model.resolve()) if 'model' in given else HOSTILE) in code


def test_this_machine_only_and_no_secret_on_the_command_line(tmp_path):
    for kind in ('lab', 'app'):
        line = serve_command(kind, tmp_path / 'x.ipynb')
        assert '--ServerApp.ip=127.0.0.1' in line and 'token' not in ' '.join(line)


def test_a_model_in_a_folder_is_found_from_where_the_kernel_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'mine').mkdir()
    with pytest.raises(FileNotFoundError, match='model_index'):
        explorer_notebook(tmp_path / 'x.ipynb', model='mine', prompt='a')
    (tmp_path / 'mine' / 'model_index.json').write_text('{}')
    made = explorer_notebook(tmp_path / 'x.ipynb', model='mine', prompt='a')
    assert str(tmp_path / 'mine') in made.read_text()


def test_bad_input_is_a_sentence_and_leaves_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(['lab', 'no.mp4']) == 2 and 'no.mp4 does not exist' in capsys.readouterr().err and not list(tmp_path.iterdir())
    (tmp_path / 'odd.mp4').write_bytes(b'no video')
    assert main(['app', 'odd.mp4']) == 2 and 'odd.mp4' in capsys.readouterr().err and len(list(tmp_path.iterdir())) == 1
    (tmp_path / 'vidlens-app').mkdir()
    (tmp_path / 'vidlens-app' / 'explore.ipynb').write_text('mine')
    assert main(['app']) == 2 and 'explore.ipynb exists' in capsys.readouterr().err
    assert (tmp_path / 'vidlens-app' / 'explore.ipynb').read_text() == 'mine'
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    assert main(['app', '--out', 'x']) == 2 and 'pip install' in capsys.readouterr().err and not (tmp_path / 'x').exists()


def test_a_server_that_did_not_start_is_a_failure(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('vidlens.live.serving.serve_command', lambda *_: [sys.executable, '-c', 'raise SystemExit(3)'])
    assert main(['lab', '--quiet']) == 1
    said = capsys.readouterr().err
    assert said.startswith('vidlens: the server ended with status 3;') and said.count('\n') == 1


def test_words_are_read_before_anything_is_served(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('vidlens.live.serving.serve', lambda *_: pytest.fail('served'))
    assert main(['lab', '--prompt', 'a zebra runs']) == 2
    assert "the model does not know 'zebra', 'runs'" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_request_to_end_reaches_the_server(tmp_path):
    slow = ('import signal, sys, time\n'
            'signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\nprint("up", flush=True)\ntime.sleep(60)')
    code = f'import sys; from vidlens.live.serving import run_to_end; sys.exit(run_to_end([sys.executable, "-c", {slow!r}]))'
    it = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE)
    assert it.stdout.readline() == b'up\n'
    it.terminate()
    assert it.wait(20) == 5


def test_a_server_that_is_interrupted_ends_by_itself(tmp_path):
    "Ctrl+C reaches the server and the command alike: the server takes its time, and its exit status is the command's."
    slow = ('import signal, sys, time\n'
            'def stop(*_):\n    time.sleep(1)\n    sys.exit(7)\n'
            'signal.signal(signal.SIGINT, stop)\nprint("up", flush=True)\ntime.sleep(60)')
    code = f'import sys; from vidlens.live.serving import run_to_end; sys.exit(run_to_end([sys.executable, "-c", {slow!r}]))'
    it = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, start_new_session=True)
    assert it.stdout.readline() == b'up\n'
    os.killpg(it.pid, signal.SIGINT)
    assert it.wait(20) == 7


VOILA = '|'.join((r'\(https://cdn\.jsdelivr\.net/npm/@fortawesome/',    # icons and formulas that Voila fetches from outside
                  r'\(https://cdnjs\.cloudflare\.com/ajax/libs/mathjax/',
                  r'labextensions/@jupyter-notebook/lab-extension'))      # Notebook's own extension, which Voila loads in vain


@pytest.mark.slow
@pytest.mark.browser
def test_the_app_in_a_browser(tmp_path):
    "Voila under a token: what the layer slider shows is what Python says, the tabs open, and their charts are drawn."
    options = ['--prompt', 'a red circle moves right', '--num-inference-steps', '4', '--no-browser', '--port']
    command, said = [*live.VIDLENS, 'app', *options], []
    with live.Served([*command, str(live.free_port())], tmp_path, live.home(tmp_path)) as server, live.chromium() as browser:
        assert '/voila/render/explore.ipynb?token=' in server.address
        assert server.status('/api/contents') == 403 and '/login' in server.get('/voila/render/explore.ipynb').url
        page = live.listened(browser.new_page(viewport=dict(width=1280, height=900)), said, VOILA)
        page.goto(server.address, timeout=120_000)
        page.locator(f'{live.VIEWER} .vidlens-code code').first.wait_for(timeout=120_000)
        kernel = live.Kernel(server.connection())
        live.agreed(page, kernel, 'Match')
        live.pressed(page, 'layer', 'ArrowLeft')
        kernel.until("made('Match').state.layer == 3")
        live.agreed(page, kernel, 'Match')
        for name, drawn in (('Heads', '.heatmaplayer image'), ('Words', '.scatterlayer .trace path.js-line')):
            live.tab(page, name)
            live.agreed(page, kernel, name)
            page.locator(f'.js-plotly-plot:visible {drawn}').first.wait_for(timeout=30_000)
            live.shot(page, f'voila-{name}')
        kernel.close()
        page.close()
        assert server.stop() == 0
    assert not said, '\n'.join(said)


@pytest.mark.slow
@pytest.mark.browser
def test_what_cannot_be_is_read_in_the_app(tmp_path):
    "Of a model that is not the bundled one, which is asked before."
    options = ['--prompt', 'a zebra runs', '--num-inference-steps', '4', '--no-browser', '--port']
    command = [*live.VIDLENS, 'app', '--model', pipeline_path('bundled'), *options]
    with live.Served([*command, str(live.free_port())], tmp_path, live.home(tmp_path)) as server, live.chromium() as browser:
        page = browser.new_page()
        page.goto(server.address, timeout=120_000)
        page.get_by_text("the model does not know 'zebra', 'runs'").first.wait_for(timeout=120_000)
        page.close()
        assert server.stop() == 0
