"""Training runs: the Training pane, the table of runs, the form for a new run, and screens on a run's files.

words.py           state and pins as text
run_news.py        what happened to the watched run: done, died, an alarm
run_watcher.py     posts snapshots of a run
pane.py            the Training pane
pane_lines.py      its lines, and the curves of its chart
keys.py            its keys
watched_run.py     the actions of its keys on the watched run
loss_chart.py      the chart of losses
alarms.py          all alarms of the watched run, with evidence and advice
alarm_words.py     alarms and band as a line of the pane
gauges.py          the gauges of the run's GPUs and CPU, and of this machine now
gauges_line.py     the same as lines of the pane
log.py             the worker's log
answer_lines.py    numbers and curves of a run that learns preferences or a reward
runs.py            the table of runs
run_rows.py        its rows
run_actions.py     its actions
foreign.py         checkpoints of another program, step by step
foreign_lines.py   its lines
run_form.py        base class of the forms that create a run
new_run.py         the form for a new run
new_run_fields.py  its fields
estimate.py        its estimate of cost and time
find_lr.py         a learning rate for it, found by short runs
find_lr_chart.py   the chart of their losses
run_view.py        base class of the screens on a run's file
batch.py           the next batch
open_step.py       opens it, and the form for a branch
step.py            a recomputed step
step_lines.py      its lines
step_row.py        the tokens of one of its rows
branch.py          the form for a branch
samples.py         the samples
head_history.py    scores of attention heads over the evaluations
chart_export.py    charts as plain data, and as files
curves/            the screen of a run's curves
compare.py         runs side by side
ladder.py          the rungs of a ladder: table and chart
ladder_chart.py    its chart
new_ladder.py      the form for a ladder
pins_watcher.py    posts snapshots of a run's pin readings
pin_history.py     pin readings over the evaluations
pin_list.py        the list of pins
pin_table.py       candidates of a pin reading
"""
