"""Find, pull and open models.

lookup.py      find a model by name: shipped, run, the user's own, folder
hub.py         load the vocabulary of a model folder, or of a training run
pull.py        pull a model from the Hugging Face Hub
model_list.py  the models that can be opened, with their sizes
choices.py     what a model's numbers depend on, from its files
open_model.py  open a model folder or GGUF file as a Predictor
"""
