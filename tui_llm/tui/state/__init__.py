"""The app's state: the lab's state and history, and the thread that calls the engine.

lab.py            prompt, continuation, sampler, target
history.py        undo and redo
messages.py       Textual messages between engine thread, panes and lab
engine_client.py  the thread that calls the engine
generation.py     a running generation, and its speed
garbage.py        when Python collects garbage
warm_up.py        imports torch while the engine answers in numpy
questions.py      questions to instruments, and the callbacks for their answers
context.py        what the lab's controllers share
openers.py        screens that open over the lab by their id
saved_state.py    what comes back at the next start
state_file.py     the file that keeps it, and the thread that writes it
"""
