"""The training pairs of a text, with their losses.

question.py  the question and its answer as plain data
answer.py    how it is computed
"""
