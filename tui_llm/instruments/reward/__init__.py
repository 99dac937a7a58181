"""Reward: a group of answers is drawn and scored by a typed rule, and a copy of the weights learns by policy gradient.

question.py  the questions and their answers as plain data, and the presets
answer.py    how they are computed
session.py   the copy, its groups of answers, undo
saved.py     the copy as a model folder with its card
"""
