"""One token's way through one block: LayerNorms, heads with their top keys, neurons, and the residual stream.

question.py  the question and its answer as plain data
answer.py    how it is computed
"""
