"""Steering: the difference of two prompts in the residual stream, added with a coefficient.

question.py  the questions and their answers as plain data
words.py     what is said of a direction
answer.py    how they are computed; the file of a direction
"""
