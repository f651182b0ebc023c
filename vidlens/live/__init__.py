"""Explorers: a video inside a model, live in JupyterLab or a browser.

    worker              background jobs that can be cancelled
    viewer              the video widget
    widgets             charts, toggle buttons and long tasks
    explorer            what explorers share: one state, requests and answers
    match_explorer      explorer of point matches and tracks
    words_explorer      explorer of word maps
    heads_explorer      explorer of attention heads
    video_explorer      the video, large
    channels_explorer   explorer of motion channels
    steer_explorer      explorer of interventions: move a region, ablate heads
    tabs                explore: all explorers of a video
    serving             what vidlens lab and vidlens app serve
"""
from vidlens import _room

__getattr__, __dir__ = _room(__name__, 'worker viewer widgets explorer match_explorer words_explorer heads_explorer '
                                'video_explorer channels_explorer steer_explorer tabs serving')
