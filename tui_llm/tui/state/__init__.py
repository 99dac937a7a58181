"""What the app knows: the lab's state and history, and the thread that asks the engine.

lab.py       prompt, continuation, sampler, target
history.py   undo and redo
messages.py  messages between thread, panes and lab
asker.py     the thread that asks the engine
base.py      what every part of the lab uses
inquire.py   questions to instruments, and who takes the answers
"""
