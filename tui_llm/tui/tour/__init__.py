"""The tour, which is shown beside every screen.

pane.py  the pane
"""
