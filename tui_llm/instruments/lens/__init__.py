"""The logit lens: the final LayerNorm and output head applied to each layer's output.

question.py  the question and its answer as plain data
answer.py    how it is computed
"""
