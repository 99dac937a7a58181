"""The tour, which is shown beside every screen.

pane.py   the pane
pairs.py  the form for instruction–answer pairs
"""
