"""Inverse-CDF sampling made visible: one draw under several settings, or a histogram of many draws.

question.py  the question and its answer as plain data
answer.py    how it is computed
"""
