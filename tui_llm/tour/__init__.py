"""The tour: pre-training in ten steps. Pure functions of the app's state; no widgets, no torch.

step.py           Step, Part and Ask
facts.py          the state that the checks read, and their outcome
steps_text.py     steps 1 to 3: labels, tokens, vectors
steps_numbers.py  steps 4 to 6: probabilities, loss, one optimizer step
steps_model.py    steps 7 to 10: training, generation, inside, instructions
steps.py          all steps in order
numbers.py        formulas and number formats for the texts
tour.py           progress through the steps, saved on disk
"""
