"""The number of tokens in a text file.

question.py  the question and its answer as plain data
answer.py    how it is computed
"""
