"""Switch off: what the loss and the logit of the target become when parts of the model are changed.

question.py  the questions and their answers as plain data
changes.py   from named parts to interventions
answer.py    how they are computed
"""
