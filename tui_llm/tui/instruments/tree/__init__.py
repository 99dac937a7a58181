"""The tree of continuations.

keys.py   its keys
tree.py   the screen
lines.py  the tree as lines
files.py  forms for names and files
"""
