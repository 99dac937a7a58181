"""The run directory: its files and how to read them. Does not import torch.

Terms: a *pin* (`Pin`) is a prompt with an optional target. A *pin reading* (`PinReading`) is what a checkpoint predicts
for one pin: the most likely next tokens, and the target's loss. A *pin evaluation* (`PinEvaluation`) has the readings of
all pins at one step. Two older names are kept for compatibility: the file `probes.jsonl`, the command `tui-llm probes`.

run.py           the directory: its files, lock, checkpoints, samples; find runs by name
config.py        config.json: corpus, device, settings
status.py        status.json: state, message
run_lock.py      at most one worker per run
settings.py      training settings and presets
promises.py      what text to expect of each preset
jsonl.py         append-only JSON Lines files
metrics.py       metrics.jsonl: loss, gradient norm, tokens per second of each step
row_losses.py    what metrics.jsonl keeps of the losses of a step's rows
pins.py          pins.json: the pinned prompts
pin_readings.py  probes.jsonl: what the model predicted for the pins
head_readings.py heads.jsonl: the scores of all attention heads
matrix_statistics.py  matrices.jsonl: gradient norms, updates, activation scales by kind of matrix
batch.py         batch.json: the next batch with its losses
step_rows.py     a recomputed step: its rows, their parts in the gradient, the pins before and after
branch.py        runs that begin with a step of another one
time_plan.py     time_plan.json: the steps that a run with a time budget plans to take
changes.py       settings changed during training
alarm_kinds.py   an alarm, its kinds, and what people do about them
alarm_detectors.py  spikes, divergence, plateaus, overfitting, low losses, dead gradients
outlier_rows.py  rows whose loss is far above that of the others, by file
alarms.py        the alarms of a run's metrics, line by line
loss_band.py     the band in which the loss will lie at the end
earlier_runs.py  ended runs of the same shape, which the band learns from
health.py        alarms.jsonl, and a run's alarms and band read as it grows
gauges.py        MFU from the run's files, the machine's gauges as words
curve.py         loss curves in bounded memory
run_curves.py    all curves of a run
curve_charts.py  charts of runs over steps, tokens, time or FLOPs; their export
metric_at.py     the metrics of one step of a long run
quantities.py    what the chart of a run that learns from answers can show
snapshot.py      an incremental reader of a run that returns snapshots
pins_snapshot.py the same for its pin readings
compare.py       settings and results of several runs
live.py          what a terminal says of live runs after the app's end
worker_log.py    worker.log in bounded memory, forward and backward
rename.py        rename a run
"""
