"""Procedural videos whose captions, masks, tracks, visibility and flow are known exactly."""
from .scenes import *  # noqa: F403
from .scenes import __all__  # noqa: F401
