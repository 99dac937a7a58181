"""The open model: from text and weights to plain data.

desk.py          the interface to the open model that instruments use
open_model.py    the open model, its KV cache and cached predictions
tokenization.py  ids to Tokenization
prediction.py    tensors to Distribution and LossReading
"""
