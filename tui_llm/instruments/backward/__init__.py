"""The backward pass, seen: gradient norms of every matrix and of every token of the text.

question.py  the question and its answer as plain data
kinds.py     the kind of each parameter of a model
answer.py    how it is computed
"""
