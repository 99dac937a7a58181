"""Prefer: rank two answers with a key, and see the copy of the weights move.

prefer.py  the screen
keys.py    its keys
lines.py   the answers, what a choice changed, and the curves, as lines
"""
