"""Two or three models on one text, side by side.

question.py  the question and its answer as plain data
words.py     its sentences, for screen and command line
answer.py    how it is computed
"""
