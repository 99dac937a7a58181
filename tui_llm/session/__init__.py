"""The open model: from text and weights to plain data.

open_model.py    the open model, its KV cache and cached predictions, as instruments use it
tokenization.py  ids to Tokenization
reading.py       a Request to its Reading, for the five panes
"""
