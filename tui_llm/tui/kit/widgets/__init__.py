"""Widgets that any screen may use.

lines.py              a scrolling list that draws only visible lines
answer_lines.py       lines that show an instrument's answer
bars.py               top bar, tab bar, key bar
prompt.py             the text editor
field.py              a one-line input
grid.py               a table drawn as wide as its columns
vocab_columns.py      columns of the candidate table
vocab_table.py        the candidate table
chart.py              base class of the charts over steps
head_map.py           a map of attention heads for each detector
histogram.py          bars with an expected value
probability_chart.py  probabilities over steps
"""
