"""Learn this: optimizer steps on one prompt and target, on a copy of the weights.

question.py      the question and its answer as plain data
answer.py        how it is computed
model_folder.py  write the trained copy as a new model folder
"""
