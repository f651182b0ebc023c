"""Which channels carry motion, what they encode, and steering by them (MOFT).

    channels   motion channels by PCA, probes of direction
    losses     distance between observed and target motion
    sweep      channels of many sites at once
    fidelity   does a clip move as requested
    regions    requests: regions, the camera and points
    clips      clips with known motion
    one_site   moft: channels of one layer at one step
    discovery  discover: channels over layers, steps and kinds
    cag        cross-attention guidance
    steering   control: training-free motion control
    pictures   figures of channels and guided videos
"""
from vidlens import _room

__getattr__, __dir__ = _room(__name__, 'channels losses sweep fidelity regions clips one_site discovery cag steering pictures')
