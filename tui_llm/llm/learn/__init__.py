"""Optimizer steps on a model outside a training run, and how good and how fast a model is.

learner.py    steps on one prompt and target, on a copy of the weights
instruct.py   supervised fine-tuning on instruction–answer pairs
train_bpe.py  train a BPE vocabulary
evaluate.py   loss and bits per byte on unseen text
speed.py      tokens a second beside the machine's limit and transformers
"""
