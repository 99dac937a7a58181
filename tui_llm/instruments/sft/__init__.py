"""Supervised fine-tuning of a copy of the model on instruction–answer pairs.

question.py  the question and its answer as plain data
answer.py    how it is computed
"""
