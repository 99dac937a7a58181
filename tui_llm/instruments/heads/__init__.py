"""Head detectors: previous-token, duplicate-token and induction scores of every head.

question.py  the question and its answer as plain data
answer.py    how they are computed
"""
