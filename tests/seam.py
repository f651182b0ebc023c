"""Tiny stock pipelines, ways to run them, and snapshots of what a capture must leave as it was."""
import functools
import itertools
import threading
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import nn

from vidlens.seam import hooks
from vidlens.seam.card import model_of
from vidlens.seam.families import tiny

FAMILIES = ('cogvideox', 'wan', 'hunyuanvideo')
KINDS = {'cogvideox': 'q k v o hidden', 'wan': 'q k v o xq xk xv xo hidden', 'hunyuanvideo': 'q k v o hidden'}
LENGTH = {'cogvideox': 16, 'wan': 24, 'hunyuanvideo': 24}
LAYERS = {'cogvideox': 3, 'wan': 3, 'hunyuanvideo': 4}


@functools.cache
def pipe_of(family):
    "A tiny pipeline that has run once (diffusers keeps a registry on the model from the first run on)."
    pipe = tiny(family)
    call(pipe, steps=1)
    return pipe


def family_of(pipe):
    return next(f for f in FAMILIES if type(pipe).__name__.lower().startswith(f))


def call(pipe, prompts='a cat runs', steps=2, guided=False, seed=0, negative='blur', **more):
    "Latents of a run of 5 frames of 32x32 pixels, by the pipeline's own call."
    family, n = family_of(pipe), 1 if isinstance(prompts, str) else len(prompts)
    negative = negative if isinstance(prompts, str) else [negative] * n
    if family == 'hunyuanvideo':
        given = dict(true_cfg_scale=3.0, negative_prompt=negative) if guided else {}
    else:
        given = dict(guidance_scale=4.0, negative_prompt=negative) if guided else dict(guidance_scale=1.0)
    rows = n * more.get('num_videos_per_prompt', 1)
    generators = [torch.Generator().manual_seed(seed + i) for i in range(rows)]
    given |= dict(num_inference_steps=steps, num_frames=5, height=32, width=32, output_type='latent',
                  generator=generators, max_sequence_length=LENGTH[family])
    return pipe(prompts, **(given | more)).frames


def blocks(pipe):
    t = pipe.transformer
    return [b for stack in ('transformer_blocks', 'blocks', 'single_transformer_blocks') for b in getattr(t, stack, [])]


def attention(block):
    return getattr(block, 'attn1', None) or block.attn


HOOKS = [n for n in vars(nn.Module()) if n.endswith('hooks') or 'hooks_with' in n or 'always_called' in n]


def state(pipe):
    "Everything of a pipeline that a capture could have left behind, comparable."
    modules = {f'{name}.{path}': m for name, part in pipe.components.items() if isinstance(part, nn.Module)
               for path, m in part.named_modules()}
    hooks = {(path, h): tuple(getattr(m, h)) for path, m in modules.items() for h in HOOKS}
    own = {path: tuple(k for k in vars(m) if k in ('cache_context', 'forward')) for path, m in modules.items()}
    flags = {path: (m.training, *(p.requires_grad for p in m.parameters(recurse=False))) for path, m in modules.items()}
    return hooks, own, flags, torch._C._len_torch_function_stack(), torch.is_grad_enabled()


def kept_hooks(pipe):
    "Hooks on any part of the denoiser, which has none of its own."
    return sum(len(getattr(m, h)) for m in model_of(pipe).modules() for h in HOOKS)


def leaves_nothing(pipe, run, expected, ran):
    "Assert that `ran(patch)`, which raises `expected` unless None, leaves no hook or flag, and the call `run` as it was."
    before, plain = state(pipe), run(pipe)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(expected) if expected else nullcontext():
        ran(patch)
    assert state(pipe) == before and not kept_hooks(pipe) and torch._C._len_torch_function_stack() == 0
    assert not hooks.OPEN_SEAMS and torch.equal(plain, run(pipe))


def combinations(*lists):
    return list(itertools.product(*lists))


def untouched(family):
    "Yields a tiny pipeline, for a fixture; a test must leave it as it was."
    pipe = pipe_of(family)
    before = state(pipe)
    yield pipe
    assert state(pipe) == before and not hooks.OPEN_SEAMS


@contextmanager
def model_elsewhere(pipe):
    "Another thread has the model until the block ends, or what it yields is set."
    has, go = threading.Event(), threading.Event()

    def run():
        with hooks.lock_of(pipe):
            has.set()
            go.wait(30)
    thread = threading.Thread(target=run)
    thread.start()
    has.wait(10)
    try:
        yield go
    finally:
        go.set()
        thread.join()
