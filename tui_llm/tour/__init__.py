"""The tour: pre-training in ten steps. Pure: state in, what is missing out.

step.py           Step, Part and Missing
facts.py          what the checks look at
steps_text.py     steps 1 to 3: labels, tokens, vectors
steps_numbers.py  steps 4 to 6: probabilities, loss, one optimizer step
steps_model.py    steps 7 to 10: training, generation, inside, instructions
steps.py          all steps in order
numbers.py        formulas and number formats of the texts
tour.py           progress through the steps, kept on disk
"""
