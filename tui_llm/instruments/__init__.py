"""Instruments, a folder each. An instrument answers one kind of question about the open model.

`NAME/question.py` has the question and its answer as plain data, without torch, so that the screen can import it;
`NAME/answer.py` has `answer(open_model, question, overtaken)`, which computes it; for several kinds of questions, a
function for each.

answers.py  which function answers which question
inside_methods.py  the instruments that look inside a model, as Python methods
trace.py    the cached forward pass that attention, lens and block share
"""
