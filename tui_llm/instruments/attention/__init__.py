"""Attention: softmax(q · k ÷ √D) of every head, for one query token.

question.py  the question and its answer as plain data
answer.py    how it is computed
"""
