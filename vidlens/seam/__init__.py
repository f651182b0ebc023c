"""Where vidlens meets diffusers: what a model family looks like, and how its attention is read while it runs.

    card      the facts of a model family
    families  small random pipelines of every family
    tape      what a capture kept
    hooks     capture and edit
    concepts  free words that ride beside a run
    loading   load a pipeline, checked
    run       generate, renoise, invert
"""
from vidlens import _room

__getattr__, __dir__ = _room(__name__, 'card families tape hooks concepts loading run')
