"""The screen of a run's curves: a grid of small charts with one cursor.

screen.py   the screen: its keys, what it reads, export
grid.py     the widget that lays the charts out and draws them
plot.py     a chart as rows of cells
styles.py   colours of words, runs and layers
"""
