"""The tour, which is shown beside every screen.

keys.py   commands of the tour
pane.py   the pane
pairs.py  the form for instruction–answer pairs
"""
