"""What the numbers of a model that is not open depend on, as its files tell.

question.py  the question as plain data
answer.py    how it is computed
"""
