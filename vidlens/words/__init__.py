"""Where, when and which way a word is expressed in a video (IMAP, GramCol).

    maps          concept maps from queries, keys and outputs
    heads         scores of heads, and their choice
    spans         when a word happens, and which way it moves
    metrics       how right maps are
    word_maps     imap: maps of words
    selection     score_heads: which heads show a word
    grounding     score_words: at which step and layers maps of words lie on their objects
    segmentation  segmented videos, and evaluation on them
    prompts       prompt files of published benchmarks
    judging       a judge of your own
    pictures      figures of words
"""
from vidlens import _room

__getattr__, __dir__ = _room(__name__, 'maps heads spans metrics word_maps selection grounding segmentation prompts judging '
                             'pictures')
