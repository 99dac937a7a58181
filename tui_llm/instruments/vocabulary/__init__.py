"""The whole vocabulary as one table: sort orders and search.

question.py  the question and its answer as plain data
answer.py    how it is computed
"""
