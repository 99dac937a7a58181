"""Supervised fine-tuning on question–answer pairs.

sft.py    the screen
pairs.py  the form for instruction–answer pairs, which the tour opens too
"""
