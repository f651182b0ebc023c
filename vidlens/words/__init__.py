"""Where and when a word is expressed in a video, and how it moves (IMAP, GramCol).

    maps          concept maps from queries, keys and outputs
    heads         criteria of heads, HeadTable, HeadChoice
    spans         temporal extent and displacement of words
    metrics       how well maps fit masks
    word_maps     imap: maps of words
    selection     score_heads: which heads show a word
    grounding     score_words: at which step and layers maps of words lie on their objects
    segmentation  segmented videos, and evaluation on them
    prompts       prompt files of published benchmarks
    judging       IMAP's questions, for a judge that you supply
    pictures      figures and files of words
"""
from vidlens import _room

__getattr__, __dir__ = _room(__name__, 'maps heads spans metrics word_maps selection grounding segmentation prompts judging '
                             'pictures')
