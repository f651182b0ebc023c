"""Bad input is answered by vidlens itself: what was found, and the call that works."""
import re
import traceback
from pathlib import Path

import pytest
import torch
from seam import call, pipe_of

import vidlens
from vidlens.seam.card import card_of
from vidlens.seam.choices import Budget
from vidlens.core.grid import Grid
from vidlens.core.tables import BestSite
from vidlens.seam.capturing import capture
from vidlens.seam.editing import edit
from vidlens.seam.hooks import CaptureError
from vidlens.seam.loading import load
from vidlens.seam.run import encode, generate, invert, renoise, step_at, text_of
from vidlens.seam.tape import Tape
from vidlens.seam.families import tiny
from vidlens.core.video import as_video, read_video, resize, take_frames, write_video

VIDEO = torch.zeros(5, 32, 32, 3)
SITE = BestSite(layer=1, step=1, num_inference_steps=4)


@pytest.fixture(scope='module')
def bundled():
    return load(device='cpu')


def run(pipe, **options):
    with capture(pipe, **options):
        call(pipe)


def changed(pipe, *args, **options):
    with edit(pipe, *args, **options):
        call(pipe)


def written(folder, name, content):
    (folder / name).write_bytes(content)
    return folder / name


# name: (call of (pipe, bundled, folder), error, what was found, what works)
BAD = {
    # files
    'no such video': (lambda p, b, d: read_video(d / 'no.mp4'), FileNotFoundError, 'no.mp4', 'holds|is|did you mean'),
    'an empty video': (lambda p, b, d: read_video(written(d, 'a.mp4', b'')), ValueError, r'0 bytes', 'again'),
    'not a video': (lambda p, b, d: read_video(written(d, 'a.mp4', b'text' * 99)), ValueError, 'a.mp4', r'\.mp4'),
    'an ending for no video': (lambda p, b, d: write_video(VIDEO, d / 'a.txt'), ValueError, r'\.txt', r'\.mp4'),
    'a file in the way': (lambda p, b, d: write_video(VIDEO, written(d, 'a.mp4', b'x')),
                          FileExistsError, 'a.mp4', 'force=True'),
    'negative frames': (lambda p, b, d: read_video(written(d, 'a.gif', b'x'), frames=-1),
                        ValueError, 'frames=-1', 'at least 1'),
    'more frames than there are': (lambda p, b, d: take_frames(VIDEO, 17), ValueError, 'n=17', 'use 1 to 5'),
    'an unknown fit': (lambda p, b, d: resize(VIDEO, 8, 8, 'squeeze'), ValueError, "'squeeze'", "'crop'"),
    'channels first': (lambda p, b, d: as_video(torch.zeros(5, 3, 32, 32)), ValueError, r'\(5, 3, 32, 32\)', 'movedim'),
    'values from -1': (lambda p, b, d: as_video(VIDEO - 1), ValueError, '-1', r'\+ 1\) / 2'),
    # models, devices, dtypes
    'no such folder': (lambda p, b, d: load(d / 'none'),
                       FileNotFoundError, 'none', 'leave it out for the bundled model'),
    'a folder without a model': (lambda p, b, d: load(d), FileNotFoundError, 'model_index.json', 'save_pretrained'),
    'a file for a model': (lambda p, b, d: load(written(d, 'm', b'x')), ValueError, 'is a file', 'give the folder'),
    'a number for a model': (lambda p, b, d: load(5), TypeError, 'model 5', 'leave it out'),
    'no name': (lambda p, b, d: load(''), TypeError, "model ''", 'leave it out'),
    'a hub name out of reach': (lambda p, b, d: load('nobody/nothing'),
                                ValueError, 'nobody/nothing', 'hub name that can be'),
    'an unknown tiny family': (lambda p, b, d: load('tiny/sora'), ValueError, "'sora'", 'cogvideox, wan, hunyuanvideo'),
    'a module for a family': (lambda p, b, d: tiny(3), ValueError, 'family 3', 'choose among cogvideox'),
    'no such device': (lambda p, b, d: load('tiny/wan', device='cpux'), ValueError, "device='cpux'", "use 'cpu'"),
    'no such dtype': (lambda p, b, d: load('tiny/wan', dtype='float7'), ValueError, "dtype='float7'", 'bfloat16'),
    'a whole-number dtype': (lambda p, b, d: load('tiny/wan', dtype=torch.int64), ValueError, 'int64', 'bfloat16'),
    'offload to nowhere': (lambda p, b, d: load('tiny/wan', device='cpu', offload=True),
                           ValueError, 'offload=True', 'Leave'),
    'no pipeline': (lambda p, b, d: capture('pipe'), TypeError, 'str is neither', r'vidlens.load\(\)'),
    'a model without card': (lambda p, b, d: card_of(torch.nn.ReLU()), TypeError, 'no card for ReLU', 'CARDS'),
    # prompts
    'an unknown word': (lambda p, b, d: generate(b, 'a purple dog'), ValueError, "'dog'", 'it knows: .*circle'),
    'a long prompt': (lambda p, b, d: generate(b, 'a red circle moves left ' * 60), ValueError, 'tokens that the model reads',
                      'shorten'),
    'no prompt': (lambda p, b, d: generate(b, []), ValueError, r'prompt=\[\]', 'at least one prompt'),
    'None for a prompt': (lambda p, b, d: generate(b, None), ValueError, 'prompt=None', "for example 'a red"),
    'a number among prompts': (lambda p, b, d: generate(b, ['a red circle', 3]), TypeError, 'int', 'must be a string'),
    'an unknown negative word': (lambda p, b, d: generate(b, 'a red circle', negative='dog'),
                                 ValueError, "'dog'", 'knows'),
    'a word that is not there': (lambda p, b, d: text_of(b, 'a red circle').slots('square'),
                                 ValueError, "'square'", 'red, circle'),
    # sizes and runs
    'no steps': (lambda p, b, d: generate(b, 'a red circle', num_inference_steps=0), ValueError, 'steps=0', 'at least 1'),
    'half a step': (lambda p, b, d: generate(b, 'a red circle', num_inference_steps=2.5), ValueError, 'steps=2.5', 'whole number'),
    'an odd size': (lambda p, b, d: generate(b, 'a red circle', size=(60, 64)), ValueError, '60', 'use 56 or 64'),
    'half a size': (lambda p, b, d: generate(b, 'a red circle', size=(64,)),
                    ValueError, r'size=\(64,\)', r'\(height, width\)'),
    'an odd number of frames': (lambda p, b, d: generate(b, 'a red circle', frames=16),
                                ValueError, '16 frames', '13 or 17'),
    'frames in words': (lambda p, b, d: generate(b, 'a red circle', frames='5'),
                        ValueError, "frames='5'", 'whole number'),
    'a seed in words': (lambda p, b, d: generate(b, 'a red circle', seed='x'), ValueError, "seed='x'", 'seed=0'),
    'guidance in words': (lambda p, b, d: generate(b, 'a red circle', guidance='x'),
                          ValueError, "guidance='x'", 'guidance=6'),
    'no videos of a prompt': (lambda p, b, d: generate(b, 'a red circle', num_videos_per_prompt=0),
                              ValueError, '=0', 'at least 1'),
    'a video that does not fit': (lambda p, b, d: encode(p, VIDEO[:, :30]), ValueError, 'height is 30', '16 or 32'),
    'a coding of its own': (lambda p, b, d: encode(p, VIDEO, 'fast'), ValueError, "encoding='fast'", "'causal' or 'frames'"),
    'a step too far': (lambda p, b, d: renoise(p, VIDEO, step=30), ValueError, 'step=30', r'0 \(noisiest\) to 29'),
    'step and sigma': (lambda p, b, d: renoise(p, VIDEO, step=1, sigma=.5), ValueError, 'sigma=0.5', 'either step'),
    'too much noise': (lambda p, b, d: step_at(p, sigma=1.5), ValueError, 'sigma=1.5', '0 .clean. to 1'),
    'a step in words': (lambda p, b, d: step_at(p, 'last'), ValueError, "step='last'", '0 .noisiest. to 29'),
    'noise in words': (lambda p, b, d: step_at(p, sigma='half'), ValueError, "sigma='half'", '0 .clean. to 1'),
    'nothing to renoise': (lambda p, b, d: renoise(p, None),
                           ValueError, 'renoise needs a video', r'encode\(pipe, video\)'),
    'nothing to invert': (lambda p, b, d: invert(p), ValueError, 'invert needs a video', r'encode\(pipe, video\)'),
    'inverting in no steps': (lambda p, b, d: invert(p, VIDEO, num_inference_steps=0), ValueError, 'steps=0', 'at least 1'),
    'refining backwards': (lambda p, b, d: invert(p, VIDEO, refine=-1), ValueError, 'refine=-1', 'of at least 0'),
    # sites
    'no such kind': (lambda p, b, d: run(p, kinds='q z'), ValueError, "'z'", 'q k v o xq xk xv xo hidden'),
    'no kind': (lambda p, b, d: run(p, kinds=''), ValueError, r'\(none\)', 'choose among q k'),
    'cross-attention where there is none': (lambda p, b, d: run(b, kinds='xk'),
                                            ValueError, "'xk'.*CogVideoX", 'q k v o hidden'),
    'kinds as a number': (lambda p, b, d: run(p, kinds=3), ValueError, 'kind 3', 'choose among q k'),
    'no such layer': (lambda p, b, d: run(p, layers=3), ValueError, 'layers=3', '3 layers, 0 to 2'),
    'no such layer from the end': (lambda p, b, d: run(p, layers=[0, -4]), ValueError, r'layers=\[0, -4\]', '-3 to -1'),
    'layers in words': (lambda p, b, d: run(p, layers='12'), ValueError, "layers='12'", r'layers=\[0, -1\]'),
    'half a layer': (lambda p, b, d: run(p, layers=[.5]), ValueError, r'layers=\[0.5\]', 'layers=range'),
    'no layer at all': (lambda p, b, d: run(p, layers=slice(9, 12)), ValueError, r'slice\(9, 12', '0 to 2'),
    'no such step': (lambda p, b, d: run(p, steps=2), ValueError, r'steps=\[2\]', '2 steps, 0 to 1'),
    'steps in words': (lambda p, b, d: capture(p, steps='last'), ValueError, "steps='last'", r'steps=\[0, -1\]'),
    'no such head': (lambda p, b, d: run(p, heads=2), ValueError, 'heads=2', '2 heads, 0 to 1'),
    'no such branch': (lambda p, b, d: run(p, branch='left'), ValueError, "branch='left'", "'cond', 'uncond', 'both'"),
    'guidance that is off': (lambda p, b, d: run(p, branch='uncond'), CaptureError, "'uncond'", 'turn guidance on'),
    'tokens of neither': (lambda p, b, d: run(p, tokens='words'),
                          ValueError, "tokens='words'", "'video', 'text' or 'all'"),
    'a probe that cannot be called': (lambda p, b, d: run(p, probe=3), TypeError, 'probe is a int', 'def probe'),
    'a budget in words': (lambda p, b, d: run(p, budget='lots'), ValueError, "budget='lots'", "'500 MB' or '2 GiB'"),
    'a budget of nothing': (lambda p, b, d: run(p, budget=0), ValueError, 'budget=0', 'above 0'),
    'too much': (lambda p, b, d: run(p, budget='1 KB'),
                 CaptureError, r'x 2 steps x .* budget of 0.00 MiB', r'layers=\[\.\.\.\]'),
    'a device that is not there': (lambda p, b, d: run(p, budget=Budget(device='gpu')), ValueError, "device='gpu'", "use 'cpu'"),
    'a dtype that is none': (lambda p, b, d: run(p, budget=Budget(dtype='int')), ValueError, "dtype='int'", 'float16'),
    'edits of two moments': (lambda p, b, d: changed(p, 'q o', print), ValueError, 'edit q o', 'nest edits'),
    'an edit by a number': (lambda p, b, d: changed(p, 'q', 3), TypeError, 'f is a int', 'def f'),
    'an edit of another shape': (lambda p, b, d: changed(p, 'q', lambda s, q: q[0]),
                                 ValueError, 'returned', 'same shape'),
    'a site that is none': (lambda p, b, d: capture(p, site=3), TypeError, 'site is a int', r'score\(pipe, clips\).best\(\)'),
    'a site and layers': (lambda p, b, d: capture(p, layers=0, site=SITE), ValueError, 'layers=0', 'leave out layers'),
    'a site and steps': (lambda p, b, d: changed(p, 'q', print, steps=[0], site=SITE), ValueError, r'steps=\[0\]',
                         'leave out steps'),
    'a site of a longer run': (lambda p, b, d: run(p, site=SITE), ValueError, 'step 1 of a run of 4 steps.*has 2',
                               'num_inference_steps=4'),
    'a site and a step': (lambda p, b, d: renoise(p, VIDEO, step=2, site=SITE), ValueError, 'step=2', 'leave out step'),
    'a site and another run': (lambda p, b, d: renoise(p, VIDEO, num_inference_steps=9, site=SITE), ValueError,
                               'num_inference_steps=9', 'leave out num_inference_steps'),
    # tapes
    'no such tape': (lambda p, b, d: Tape.load(d / 'none.tape'), FileNotFoundError, 'none.tape', r'result.save\(path\)'),
    'half a tape': (lambda p, b, d: Tape.load(written(d, 'a.tape', b'\x09' * 99)), ValueError, 'a.tape', r'result.save\(path\)'),
    'a tape in the way': (lambda p, b, d: Tape().save(written(d, 'a', b'')),
                          FileExistsError, 'a exists', 'force=True'),
    'a tape of objects': (lambda p, b, d: Tape({('q', 0, 0, 'cond'): object()}).save(d / 'a'),
                          TypeError, "'q', 0, 0, 'cond'", 'give numbers, strings, tensors'),
    'a site that was not kept': (lambda p, b, d: Tape().get('q', 0), KeyError, "'q', layer 0", 'holds nothing'),
    # grids
    'a height between tokens': (lambda p, b, d: Grid.of(5, 30, 32, 8), ValueError, 'height is 30', 'use 24 or 32'),
    'a grid without rows': (lambda p, b, d: Grid(1, 0, 2), ValueError, 'rows is 0', 'at least 1'),
    'a token outside': (lambda p, b, d: Grid(1, 2, 2).index(0, 2, 0), IndexError, 'row 2', '0 to 1'),
}


@pytest.mark.parametrize('name', BAD)
def test_message(name, bundled, tmp_path):
    pipe = pipe_of('wan')
    act, error, found, works = BAD[name]
    with pytest.raises(error) as e:
        act(pipe, bundled, tmp_path)
    message, raised = str(e.value), Path(traceback.extract_tb(e.tb)[-1].filename)
    assert re.search(found, message, re.S), message
    assert re.search(works, message, re.S), message
    assert Path(vidlens.__file__).parent in raised.parents, f'raised by {raised}: {message}'
    assert type(e.value) in (error, KeyError) and len(message) < 900


def test_there_are_enough():
    assert len(BAD) >= 30
