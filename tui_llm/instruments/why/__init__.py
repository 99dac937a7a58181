"""Why this token: the target's logit as a sum over the parts of the model (direct logit attribution).

question.py  the question and its answer as plain data
answer.py    how it is computed
"""
