"""The Textual app and its screens. Never imports torch, the engine or the session; uses the engine through `state`.

Reading order: `app.py`, `lab/`, `state/`, `kit/`, then a screen of `instruments/`.

app.py       the app: opens the lab screen
keymap.py    the KEYS of every screen, collected for help, docs and the clash test
help.py      the help screen
glossary.py  what each number on screen is
notices.py   the terminal's bell and desktop notifications
terminal.py  runs the app with its own file descriptor for the terminal
input.py     makes terminal input safe to parse
"""
