"""Why this token: the target's logit as a sum over the parts of the model (direct logit attribution).

question.py  the question and its answer as plain data
sums.py      the answer as a table whose printed numbers add up
answer.py    how it is computed
"""
