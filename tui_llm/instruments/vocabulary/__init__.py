"""The whole vocabulary as one table: rows under an order, search.

question.py  the question and its answer as plain data
answer.py    how it is computed
"""
