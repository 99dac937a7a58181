"""One text in several vocabularies.

question.py  the question and its answer as plain data
answer.py    how it is computed
"""
