"""The panes that show a reading. The Training pane is in `runs`.

base.py      ReadingPane: what they share
tokens.py    Tokens
logits.py    Logits & softmax
loss.py      Loss
generate.py  Generate
"""
