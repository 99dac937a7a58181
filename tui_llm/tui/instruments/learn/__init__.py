"""Learn this: optimizer steps on a copy of the weights.

learn.py  the screen
lines.py  the copy before and after, side by side
"""
