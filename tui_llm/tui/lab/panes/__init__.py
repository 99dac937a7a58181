"""The panes that show a reading: four of the five. The Training pane is in `tui_llm/tui/runs/pane.py`.

base.py      ReadingPane: the base class of the panes that show a reading
tokens.py    Tokens
logits.py    Logits & softmax
loss.py      Loss
generate.py  Generate
panes.py     all five panes, and which of them is current
"""
