"""The gradient of the loss on the logits: p − y.

question.py  the question and its answer as plain data
answer.py    how it is computed
"""
