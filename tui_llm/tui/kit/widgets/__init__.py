"""Widgets that any screen may use.

lines.py              a scrolling list that draws only visible lines
answer_lines.py       lines that wait for an instrument's answer
bars.py               top line, pane bar, key bar
prompt.py             the text editor
field.py              a one-line input
grid.py               a table as wide as its rows
vocab_columns.py      columns of the candidate table
vocab_table.py        the candidate table
chart.py              base of the charts over steps
ticks.py              axis ticks
histogram.py          bars with an expected value
probability_chart.py  probabilities over steps
"""
