"""The tokens with the nearest embeddings, by cosine similarity.

question.py  the question and its answer as plain data
answer.py    how it is computed
"""
