"""The panes. The Training pane's own file is in `runs`.

base.py      ReadingPane: the base class of the panes that show a reading
tokens.py    Tokens
logits.py    Logits & softmax
loss.py      Loss
generate.py  Generate
panes.py     the five together
"""
