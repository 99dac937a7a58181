"""Configure, estimate, launch and follow training runs. Does not import torch.

fields.py        training settings as typed text, validated
corpus_check.py  a quick check whether a path can be trained on
sample_prompt.py the prompt of the samples
answer_files.py  the file of pairs or prompts of a run that learns from answers
answers.py       its rows as tokens
start.py         start from another model's weights
processes.py     number of processes and their share of a batch
extras.py        optional packages that a setting needs
cost.py          parameters, memory, tokens, FLOPs
subprocesses.py  start a subprocess that answers a question, and ask it
scratch_run.py   a run that is only tried
lr_search.py     the search for a learning rate
find_lr.py       the search in a subprocess
step_time.py     speed of a shape, measured in a subprocess
run_time.py      expected time of a run and its band, from beginning it in a subprocess
loss_law.py      the loss that a model of some size reaches on some text
budget_measurement.py  the machine and the text, measured in a subprocess for a time budget
budget.py        a run with a time budget: which model, which schedule
launch.py        create, start, stop, pause and resume a run
first_start.py   start a run that was just created, or delete it
replay.py        recompute a step in a subprocess
foreign.py       read another program's checkpoints in a subprocess
branch.py        make a run that begins with a step of another one
ladder_rungs.py  the rungs of a ladder: the ideas since GPT-2, each with its source
ladder.py        a ladder: its file, its budget, and the run of each rung
ladder_text.py   its settings and rungs as they are typed
climb.py         take the rungs one after another
ladder_results.py  loss, tokens and time of the rungs, as a table and a chart
follow.py        progress lines on the command line
"""
