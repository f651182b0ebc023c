"""What every room needs and no model does: token grids, files, statistics, video, pictures and reports.

    grid        where tokens lie in space and time
    files       files that are written whole or not at all
    stats       intervals, paired differences, areas under curves
    upsampling  maps of tokens brought to pixels along the edges of the video
    video       read, write, resize and check videos
    pictures    what was found as pictures: maps, tracks, tables, curves
    reports     a report as one file of HTML
"""
from vidlens import _room

__getattr__, __dir__ = _room(__name__, 'grid files stats upsampling video pictures reports')
