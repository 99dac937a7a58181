"""The BPE merges of a text's words.

question.py  the question and its answer as plain data
answer.py    how it is computed
"""
