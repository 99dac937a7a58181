"""Checks of a model folder or file: `tui-llm check`. Each check is a function from a `CheckedModel` to a `Finding`.

checked_model.py  the model under check: what each of its parts gives when it is opened, or why it can't be opened
weights.py        tensors, non-finite weights, dtype, tying
vocabulary.py     round trip, ids, rows of the embedding, special tokens
prediction.py     logits, chat template, context
checks.py         the list of all checks; runs them
"""
