"""The draw of a token, once and many times.

draw.py        u on the cumulative distribution
draw_lines.py  the bar of segments and its table
draw_many.py   a histogram of many draws
"""
