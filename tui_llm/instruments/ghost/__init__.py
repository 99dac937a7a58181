"""Ghost text: the greedy continuation of the prompt.

question.py  the question and its answer as plain data
answer.py    how it is computed
"""
