"""What the guards still let stand, each with its reason. These lists only shrink."""

# Public functions with more than 10 arguments: how many they have, and why.
ARGUMENTS = {
    'seam.run.generate': (11, 'its further arguments are those of the diffusers pipeline that it calls'),
    'words.selection.score_heads': (11, 'a video, its words, and which layers and steps: what one types at a prompt'),
    'words.word_maps.imap': (12, 'the same, and three records'),
}

# Public functions that take **kwargs, and why.
OPEN_ENDED = {
    'points.scoring.GridProbes.__init__': 'options of the probe that it makes',
    'seam.capturing.note_facts': 'facts of any name go into the tape',
    'seam.hooks.announce': 'facts of any name go to open captures',
    'seam.run.generate': 'its further arguments are those of the diffusers pipeline that it calls',
    'world.sampling.Knobs.__init__': 'one keyword for each number that a scene has; the docstring lists them',
}

# Public names that several modules define, and why.
HOMONYMS = {
    'draw': 'each room draws its own results, for `show`',
    'main': 'each script of the bundled model, and the command line, starts there',
}

# Exported cells over 40 lines in each room, and why they are whole.
LONG_CELLS = {
    'bundled': (13, 'scripts of the training read from top to bottom'),
    'motion': (1, 'the class that guides a run'),
    'points': (3, 'verbs with their options'),
    'seam': (10, 'the trace, which verbs share'),
    'words': (5, 'classes that gather maps while a model runs'),
}

# Nine code cells of ten have at most so many lines; the aim is 20.
CELL_LINES = 32

# Arguments, returns and fields without a comment in each room.
UNDOCUMENTED = {
}

# Words that the glossary replaces, in each room.
OLD_WORDS = {
}
