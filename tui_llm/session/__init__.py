"""The open model: from text and weights to plain facts.

desk.py          what an instrument may use of the open model
open_model.py    the open model, its KV cache and remembered predictions
tokenization.py  ids to Tokenization
prediction.py    tensors to Distribution and LossReading
"""
