"""The screens about the models on this machine.

models.py  the table of models
info.py    one model and its card
pull.py    pull a model, with progress
"""
