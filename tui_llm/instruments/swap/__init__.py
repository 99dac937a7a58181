"""Replace one token of the text by another.

question.py  the question and its answer as plain data
answer.py    how it is computed
"""
