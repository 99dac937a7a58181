"""The guessing game: guess the next token of a text, scored in bits beside models.

question.py   the questions and their answers as plain data
bets.py       a typed line, such as `mat 50 floor 20`, as tokens with percents
game.py       the score, and a game: whose turn it is, what was bet, the totals
passages.py   the paragraphs that ship for it, in held_out.txt, which nano never saw
on_text.py    a model's probability of a text, in tokens other than those of the open model
answer.py     how the models' numbers are computed
"""
