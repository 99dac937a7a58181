"""A token of the text replaced by another.

question.py  the question and its answer as plain data
answer.py    how it is computed
"""
