"""The tour, pre-training in twelve steps, and other lessons. Lessons are data (`lessons/NAME.toml`); their checks are pure
functions of the app's state; no widgets, no torch.

step.py              Lesson, Step, Part and Ask
facts.py             the state that the checks read, and their outcome
lesson_file.py       reads and checks a lesson file
checks.py            the table of named checks, with the values that they take
checks_text.py       checks on labels, tokens, vectors
checks_numbers.py    checks on probabilities, loss, one optimizer step
checks_model.py      checks on training, generation, inside, instructions
checks_assistant.py  checks on preferences and rewards
checks_general.py    checks with values of the lesson's own
spaces.py            doubled and forgotten spaces of a target
numbers.py           formulas and number formats for the texts
learner_name.py      the name of a learner in a class
tour.py              progress through a lesson, saved on disk
"""
