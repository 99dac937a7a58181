"""The lab screen: one prompt, five panes. `lab.py` is the screen; the other files are its mixins and its commands.

lab.py            the screen
drawing.py        generate tokens, one or a stream
undoing.py        undo and redo
sampling.py       temperature and cuts
tabling.py        rows, search and what-if of the candidate table
token_tools.py    the token cursor and the screens about tokens
measuring.py      gradient and Learn this of the Loss pane
ghosting.py       ghost text
branching.py      open the tree, accept one of its paths
opening.py        open the Inside screen
choosing.py       choose another model
switching.py      keep prompt and settings when another model is opened
following.py      follow a run's checkpoints
pinning.py        pin the prompt that is shown
keep.py           copy and save
touring.py        the tour, beside every screen
keys_lab.py       commands of the lab
keys_tokens.py    commands of the Tokens pane and its screens
keys_logits.py    commands of the Logits pane and its screens
keys_loss.py      commands of the Loss pane
keys_generate.py  commands of the Generate pane
keys_screens.py   commands of the screens that the lab opens
"""
