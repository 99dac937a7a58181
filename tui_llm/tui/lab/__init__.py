"""The lab: one prompt, five panes. `lab.py` is the screen; each other file is a part of it or its keys.

lab.py            the screen
drawing.py        generate tokens, one or a stream
undoing.py        undo and redo
sampling.py       temperature and cuts
tabling.py        rows, search and what-if of the candidate table
token_tools.py    the token cursor and the screens on tokens
measuring.py      gradient and Learn this of the Loss pane
ghosting.py       ghost text
branching.py      open the tree, take a branch
opening.py        open the screen Inside
choosing.py       choose another model
switching.py      open another model under the same prompt
following.py      follow a run's checkpoints
pinning.py        pin the prompt that is shown
keep.py           copy and save
touring.py        the lab's part in the tour
keys_lab.py       commands of the lab
keys_tokens.py    commands of the Tokens pane and its screens
keys_logits.py    commands of the Logits pane and its screens
keys_loss.py      commands of the Loss pane
keys_generate.py  commands of the Generate pane
keys_screens.py   commands of the screens that the lab opens
"""
