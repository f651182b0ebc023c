"""What every room needs and no model does: token grids, files, results, statistics, video, pictures and reports.

    checks      one of these words, a number in this range
    grid        where tokens lie in space and time
    files       files that are written whole or not at all
    results     what a verb returns: save, load, DataFrame, xarray
    stats       intervals, paired differences, areas under curves
    tables      tables by layer and step, and the best site in them
    upsampling  maps of tokens enlarged to pixels, along the edges of the video
    video       read, write, resize and check videos
    charts      tables, curves and points as figures
    pictures    pictures on videos, and `show`: maps, tracks, arrows
    reports     a report as one HTML file
"""
from vidlens import _room

__getattr__, __dir__ = _room(__name__, 'checks grid files results stats tables upsampling video charts pictures reports')
