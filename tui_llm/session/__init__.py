"""The open model: from text and weights to plain data.

open_model.py     the open model, its KV cache and cached predictions, as instruments use it
opened.py         an open model and everything cached for it
interventions.py  changes of the open model's parts, with a cache of their own
caches.py         bounded caches
messages.py       what a person is told if something is impossible
tokenization.py   ids to Tokenization
continuation.py   tokens drawn after a text
reading.py        a Request to its Reading, for the five panes
"""
