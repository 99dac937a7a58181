"""Softmax of the same logits at several temperatures.

question.py  the question and its answer as plain data
answer.py    how it is computed
"""
