"""The tour beside the screen.

pane.py   the pane
pairs.py  the form for instruction–answer pairs
"""
