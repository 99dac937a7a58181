"""The gradient of the loss with respect to the logits: p − y.

question.py  the question and its answer as plain data
answer.py    how it is computed
"""
