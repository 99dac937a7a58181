"""A conversation with a model that has a chat template.

question.py  the question and its answer as plain data
answer.py    how it is computed
"""
