"""Draws: a uniform number on the cumulative distribution, once or many times.

question.py  the question and its answer as plain data
answer.py    how it is computed
"""
