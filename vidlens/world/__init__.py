"""Procedural videos whose captions, masks, tracks, visibility and flow are known exactly.

    geometry     affine maps, shapes and the layers of a clip
    captions     attributes, captions and their parser
    clips        one video and what is true of it
    poses        where objects and camera are at each moment
    painting     from maps to pixels
    scenes       batches of scenes
    sampling     random scenes, and scenes from captions
    photographs  a camera over a picture
"""
from .captions import (CAMERAS, COLOURS, FAMILIES, KINDS, MARKS, MAX_WORDS, MOTIONS, PACES, SCHEDULES, SHAPES, Description,
                       SceneObject, caption_of, parse, vocabulary)
from .clips import Clip
from .geometry import Layers
from .photographs import pan_over
from .sampling import KNOBS, Knobs, Mixture, allowed, clip, from_captions, sample
from .scenes import Scenes

__all__ = ['CAMERAS', 'COLOURS', 'FAMILIES', 'KINDS', 'KNOBS', 'MARKS', 'MAX_WORDS', 'MOTIONS', 'PACES', 'SCHEDULES', 'SHAPES',
           'Clip', 'Description', 'Knobs', 'Layers', 'Mixture', 'SceneObject', 'Scenes', 'allowed', 'caption_of', 'clip',
           'from_captions', 'pan_over', 'parse', 'sample', 'vocabulary']
