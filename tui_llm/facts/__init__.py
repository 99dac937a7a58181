"""What the instruments are asked, and what they answer: frozen dataclasses with plain numbers, one file an instrument.

`facts/NAME.py` holds a `Question` and its answer; `instruments/NAME.py` works it out. No torch here: the screen reads these.
"""
