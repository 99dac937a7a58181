"""Runs of other programs: their checkpoints side by side, and their logs as curves. Does not import torch.

Nothing is written into their folders: what is computed from the checkpoints is kept in the cache, in a folder with the layout
of a run directory (`ForeignRun.path`).

foreign_run.py       a foreign folder or log as a `Run`; find it by path; those opened before
step_folders.py      the checkpoints in a folder, by step
digests.py           which of them have the same weights
readings.py          what was read from each checkpoint, and which of it still holds
foreign_table.py     the checkpoints with what was read of each
lens_readings.py     lens.jsonl: the logit lens of the pins at each step
log_curves.py        curves of a log in bounded memory, and the names that other programs give them
log_files.py         which files of a folder are logs, and one reader for all of them
foreign_curves.py    the curves as the screens and `tui-llm runs curves` take them
text_logs.py         what nanoGPT and nanochat print
trainer_state.py     trainer_state.json of transformers' Trainer
event_files.py       TensorBoard's event files
wandb_files.py       wandb's binary log, wandb-history.jsonl and wandb-summary.json
wire.py              protocol buffers' wire format, and the CRC-32C of event files
"""
