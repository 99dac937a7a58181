"""Inside the model: attention, logit lens, embedding neighbours.

keys.py        its keys
inside.py      the screen with its three views
text.py        the text with one token selected
heads.py       the grid of attention heads
lens.py        the prediction after each layer
neighbours.py  nearest embeddings
"""
