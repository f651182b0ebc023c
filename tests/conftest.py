"""Tests stay inside a temporary home and off the network; what cannot run here says why."""
import os
import shutil
import tempfile

import pytest

HOME = tempfile.mkdtemp(prefix='vidlens-tests-')
os.environ.update(HOME=HOME, HF_HOME=f'{HOME}/hf', HF_HUB_OFFLINE='1', MPLBACKEND='agg')
for name in [n for n in os.environ if n.startswith(('JUPYTER_', 'IPYTHON', 'XDG_'))]:
    del os.environ[name]


def pytest_unconfigure():
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture(scope='module')
def one_thread():
    "Sums are split by threads: with one, two trainings find the same bits."
    import torch

    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


@pytest.fixture(scope='module')
def pipe():
    "The bundled model."
    from vidlens.seam.loading import load

    pipe = load()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pytest_runtest_setup(item):
    if item.get_closest_marker('gpu'):
        import torch
        if not torch.cuda.is_available():
            pytest.skip('needs a CUDA device')
    # CI installs the browser, so there its absence is a failure, not a reason to skip
    if item.get_closest_marker('browser') and not shutil.which('chromium') and not os.environ.get('CI'):
        pytest.skip('needs Chromium: apt-get install chromium')
