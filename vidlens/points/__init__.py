"""Which tokens match over time, in which layer, step and head (DiffTrack).

    matching     query-key matching of points
    metrics      how right tracks are
    attention    what points attend to; statistics of heads
    flow         dense displacement from attention
    trackers     baseline trackers
    score_tables scores by layer, step and head; the best site
    scoring      score: which layer matches points
    long_videos  tracking in clips of any length
    tracking     track: where points go
    tapvid       TAP-Vid data and its protocol
    pictures     what show draws of this room
"""
from vidlens import _room

__getattr__, __dir__ = _room(
    __name__, 'matching metrics attention flow trackers score_tables scoring long_videos tracking tapvid pictures')
