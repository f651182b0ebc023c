"""Look inside video diffusion models: motion channels, correspondence and concept maps on stock diffusers.

The rooms, each of which imports only from those above it:

    vidlens.core      token grids, checks of arguments, files, statistics, video, pictures and charts, reports
    vidlens.world     procedural videos: their attributes, with exact captions, masks, tracks and flow
    vidlens.seam      where vidlens meets diffusers: cards of model families, choices of layers and steps, tapes, hooks,
                      loading, running, traces
    vidlens.points    which tokens match over time: matching, flow, scores of layers, tracking       (DiffTrack)
    vidlens.motion    which channels carry motion; steering by them, and what it changed             (MOFT)
    vidlens.words     where, when and in which heads a word is expressed, and its direction of motion  (IMAP)
    vidlens.live      explorers in JupyterLab
    vidlens.analysis  one video, all three methods, and a report: `analyse`
    vidlens.cli       the command line
    vidlens.bundled   how the bundled model was made and graded (in the repository, not in the wheel)

The names below are public; `from vidlens import *` brings them all. They load on first use, so that `import vidlens`
itself is instant. What is more special lives in its room: `from vidlens.words import read_segmentation`."""
import importlib
import logging
from collections.abc import Callable
from typing import Any

__version__ = "0.1.0"

# module -> its public names; '' is for a room that is public itself (`from vidlens import world`).
_TABLE = {
    '': 'world',
    'core.grid': 'Grid',
    'core.results': 'load_result',
    'core.video': 'read_video write_video',
    'core.pictures': 'show',
    'core.reports': 'report',
    'seam.card': 'sites',
    'seam.tape': 'Tape',
    'seam.capturing': 'capture',
    'seam.editing': 'edit',
    'seam.loading': 'load',
    'seam.run': 'generate renoise invert fit_video',
    'seam.traces': 'trace',
    'points.scoring': 'score',
    'points.tracking': 'track',
    'motion.discovery': 'discover',
    'motion.steering': 'control Region Drag',
    'words.word_maps': 'imap',
    'words.selection': 'score_heads',
    'live.tabs': 'explore',
}
_HOME = {name: module for module, names in _TABLE.items() for name in names.split()}
__all__ = sorted(_HOME)

logging.getLogger('vidlens').addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f'vidlens has no public name {name!r}; it has: {", ".join(__all__)}')
    if not _HOME[name]:
        return importlib.import_module(f'vidlens.{name}')
    return getattr(importlib.import_module(f'vidlens.{_HOME[name]}'), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _room(package: str, modules: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    "`__getattr__` and `__dir__` of a room: the public names of its modules, loaded when one of them is asked for."
    def public(module: str) -> Any:
        return importlib.import_module(f'{package}.{module}')

    def get(name: str) -> Any:
        if not name.startswith('_'):
            if name in modules.split():
                return public(name)
            for module in modules.split():
                if name in public(module).__all__:
                    return getattr(public(module), name)
        raise AttributeError(f'{package} has no public name {name!r}: dir({package}) lists those that it has')

    return get, lambda: sorted({n for m in modules.split() for n in [m, *public(m).__all__]})
