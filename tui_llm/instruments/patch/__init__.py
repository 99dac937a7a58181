"""Activation patching: the values of one prompt put into another, part by part.

question.py  the question, its answer as plain data, and the grid that pieces of the answer fill
answer.py    how it is computed
"""
