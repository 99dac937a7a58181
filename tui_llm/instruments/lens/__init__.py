"""The logit lens and the tuned lens: the final LayerNorm and output head applied to each layer's output, for the tuned lens
after a translator that was fitted to the model.

question.py  the question and its answer as plain data
answer.py    how it is computed
tuned.py     the file of a tuned lens beside the model: read, or fitted and written
"""
