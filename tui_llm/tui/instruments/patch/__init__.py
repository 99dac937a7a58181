"""The Patch screen: layers × tokens, which part of a clean prompt brings its prediction back.

patch.py  the screen and its keys
grid.py   the grid, with one cell selected
"""
