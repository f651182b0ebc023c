"""Which tokens match over time, in which layer, step and head (DiffTrack).

    matching     query-key matching of points
    metrics      how right tracks are
    attention    where attention goes: scores of points and heads, tables
    flow         dense displacement from attention
    trackers     baseline trackers
    scoring      score: which layer matches points
    long_videos  tracking in clips of any length
    tracking     track: where points go
    tapvid       TAP-Vid data and its protocol
"""
from vidlens import _room

__getattr__, __dir__ = _room(__name__, 'matching metrics attention flow trackers scoring long_videos tracking tapvid')
