"""Reward: score drawn answers by a rule or by hand, and see a copy of the weights learn to please it.

reward.py    the screen
settings.py  the settings that are typed
keys.py      its keys
lines.py     the answers with their rewards, and the curves, as lines
"""
