"""The panes that show a reading. The Training pane is in `runs`.

base.py      ReadingPane: the base class of the panes
tokens.py    Tokens
logits.py    Logits & softmax
loss.py      Loss
generate.py  Generate
"""
