"""Before and around training: settings, cost, launching. No torch in this process.

fields.py        settings as typed text, checked
corpus_check.py  whether a path can be trained on
start.py         start from another model's weights
processes.py     worker processes and their share of the batch
extras.py        optional packages that a setting needs
cost.py          parameters, memory, tokens, FLOPs
timing.py        expected time, measured in a subprocess
launch.py        create, start, stop, pause and resume a run
follow.py        progress lines on the command line
"""
