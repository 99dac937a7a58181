"""Softmax of typed tokens and logits.

question.py  the question and its answer as plain data
answer.py    how it is computed
"""
