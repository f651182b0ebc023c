"""Where vidlens meets diffusers: what a model family looks like, and how its attention is read while it runs.

    card      the facts of a model family
    families  small random pipelines of every family
    tape      what a capture kept
    choices   which layers, steps and heads; budgets, number types, devices
    hooks     where attention is seen while a model runs, and who listens
    capturing capture: keep what is seen
    editing   edit: change it
    concepts  free words beside a run
    loading   load a pipeline, checked
    run       generate, renoise, invert
"""
from vidlens import _room

__getattr__, __dir__ = _room(__name__, 'card families tape choices hooks capturing editing concepts loading run traces')
