"""Why this token: the target's logit as a sum over the parts of the model.

keys.py     the keys
lines.py    a line of the sum, with a bar around zero
why.py      the screen
neurons.py  the neurons of one MLP
"""
