"""Look inside video diffusion models: motion channels, correspondence and concept maps on stock diffusers.

The public names come when they are first used, so that `import vidlens` itself is instant.
`from vidlens.all import *` brings them all into a notebook."""
import importlib
import logging
from typing import Any

__version__ = "0.1.0"

# module -> its public names. A module that lists its own name is public itself (`from vidlens import world`).
_TABLE = {
    'grid': 'Grid',
    'world': 'world',
    'video': 'read_video write_video as_video resize',
    'card': 'Card card_of sites',
    'tape': 'Tape save_tape load_tape',
    'hooks': 'capture edit CaptureError',
    'run': 'load generate fit_video encode decode renoise invert',
    'scores': 'ScoreTable attention_scores save_scores load_scores',
    'evaluation': 'PointClip read_tapvid evaluate_tapvid',
    'trackers': 'pseudo_truth',
    'flow': 'motion_flow',
    'tracking': 'track_long',
    'lens': 'score score_generation best_layer track moft',
    'guidance': 'CAG',
    'steering': 'control Region Drag motion_of',
    'motion': 'discover',
    'words': 'imap imap_generation',
    'selection': 'score_heads published_choice',
    'upsampling': 'upsample',
    'segmentation': 'read_segmentation segment evaluate_segmentation',
    'prompts': 'read_prompts',
    'judging': 'JudgeItem judged',
    'plots': 'show overlay draw_tracks layer_step_map',
    'reporting': 'report',
    'tour': 'look_inside write_findings save_tracks',
    'engine': 'hold',
    'experiments': 'explore',
}
_HOME = {name: module for module, names in _TABLE.items() for name in names.split()}
__all__ = sorted(_HOME)

logging.getLogger('vidlens').addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f'vidlens has no public name {name!r}; it has: {", ".join(__all__)}')
    module = importlib.import_module(f'vidlens.{_HOME[name]}')
    return module if name == _HOME[name] else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
