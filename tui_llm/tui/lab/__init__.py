"""The lab screen: one prompt, five panes. `lab.py` is the screen; the other files are its mixins and its keys.

lab.py          the screen
keys.py         its keys, and which of them the footer shows
drawing.py      generate tokens, one or a stream
undoing.py      undo and redo
sampling.py     temperature and cuts
tabling.py      rows, search and what-if of the candidate table
token_tools.py  the token cursor and the screens about tokens
measuring.py    gradient and Learn this of the Loss pane
ghosting.py     ghost text
branching.py    open the tree, accept one of its paths
opening.py      open the Inside screen
choosing.py     choose another model
switching.py    keep prompt and settings when another model is opened
following.py    follow a run's checkpoints
pinning.py      pin the prompt that is shown
keep.py         copy and save
touring.py      the tour, beside every screen
"""
