"""Prefer: two answers to a prompt are ranked, and a copy of the weights learns each choice by DPO.

question.py  the questions and their answers as plain data
answer.py    how they are computed
draws.py     the two answers: drawn from the copy, or typed
saved.py     the pairs as a file, the copy as a model folder with its card
"""
