"""Instruments: each answers one kind of question about the open model. A folder each.

`NAME/question.py` has the question and its answer as plain data, without torch, for the screen to read;
`NAME/answer.py` has `answer(desk, question, overtaken)`, which computes it.

trace.py  the forward pass of a text, kept for attention and lens
"""
