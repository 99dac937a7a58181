"""The training process: `python -m tui_llm.training.worker RUN`.

process.py        the process: signals, the run's lock, exit status
worker.py         the state of the process: run, ranks, lock, status, log
job.py            one worker's part of a run, from first to last step
inputs.py         device, vocabulary, corpus and model
requests.py       serves the requests in control.json between two steps
loop.py           the training loop, a generator of steps
clock.py          the clock of a run with a time budget
gpu_step.py       batches copied ahead, and updates launched before the loss is known, on a GPU
optimizers.py     the optimizers of a run, and the average of its weights
answers.py        what the trainers of preferences and of a reward share
preference.py     direct preference optimization of pairs of answers
reward.py         policy gradient on drawn answers that a rule scores
objectives.py     the trainer of each objective
distributed.py    several processes: gradients, shards, collective decisions
torch_compile.py  torch.compile for the training step
checkpoints.py    save and load weights and optimizer state
evaluations.py    what runs at each evaluation
pin_readings.py   predictions for the pins
head_readings.py  scores of all attention heads
matrix_recorder.py  gradient norms, updates and activation scales of the matrices
batch_loss.py     losses on the next batch
row_places.py     the files of a step's rows, for the alarm on outlier rows
contention.py     says when other processes use the cores that the run's threads need
measurements.py   peak FLOP/s, memory, a shipped model's loss
machine_sampler.py  reads the machine's gauges on a thread
tensorboard.py    TensorBoard event files
export.py         export the newest checkpoint as a model folder
replay_state.py   a run's weights and optimizer state after any of its steps, recomputed
replay.py         the subprocess of plan/replay.py: a step with its rows and their parts in the gradient
foreign.py        the subprocess of plan/foreign.py: another program's checkpoints, step by step
branch.py         the state that a branch begins with
find_lr.py        the subprocess of plan/find_lr.py: short runs that try learning rates
step_time.py      the subprocess of plan/step_time.py
problem_line.py   why such a subprocess could not answer, in one line
run_time.py       the subprocess of plan/run_time.py: the beginning of a run, timed
budget.py         the subprocess of plan/budget_measurement.py
versus.py         compare the training step with nanoGPT's
"""
