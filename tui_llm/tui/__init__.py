"""The screen. Never imports torch, the engine or the session; asks them through `state`.

Reading order: `app.py`, `lab/`, `state/`, `kit/`, then a screen of `instruments/`.

app.py       the app: opens the lab
keymap.py    the keys of every screen, collected for help, docs and the clash test
help.py      the help screen
terminal.py  run the app with the terminal to itself
input.py     make terminal input safe to parse
"""
