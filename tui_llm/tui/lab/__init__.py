"""The lab: one prompt, five panes. `lab.py` is the screen; each other file is a part of it.

lab.py          the screen
keys.py         its keys, and what the footer shows
drawing.py      generate tokens, one or a stream
undoing.py      undo and redo
sampling.py     temperature and cuts
tabling.py      rows, search and what-if of the candidate table
token_tools.py  the token cursor and the screens on tokens
measuring.py    gradient and Learn this of the Loss pane
ghosting.py     ghost text
branching.py    open the tree, take a branch
opening.py      open the screen Inside
choosing.py     choose another model
switching.py    open another model under the same prompt
following.py    follow a run's checkpoints
pinning.py      pin the prompt that is shown
keep.py         copy and save
touring.py      the lab's part in the tour
"""
