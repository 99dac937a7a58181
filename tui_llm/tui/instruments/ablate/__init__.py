"""Switch off: parts of the model, and the effect of each alone on the target.

keys.py    the keys
lines.py   the map of parts and the ranking, as lines
ablate.py  the screen
"""
