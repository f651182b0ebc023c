"""Explorers: a video held inside a model, looked at from all sides in JupyterLab or in a browser.

    worker     one background worker
    viewer     the video widget
    widgets    charts, chips and tasks
    trace      a video held inside a model
    explorers  explorers of matches, heads, words and channels
    tabs       explore: all explorers of a video
    serving    the page that vidlens app serves
"""
from vidlens import _room

__getattr__, __dir__ = _room(__name__, 'worker viewer widgets trace explorers tabs serving')
