"""Inside the model: attention, logit lens, embedding neighbours.

keys.py        the keys
inside.py      the screen, which has three views
text.py        the text with one token selected, above every view
heads.py       the attention view: a grid of heads
lens.py        the logit lens view: the prediction after each layer
neighbours.py  the neighbours view: nearest embeddings
"""
