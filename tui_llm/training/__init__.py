"""Training runs: `run` is what a run directory holds, `plan` decides and starts, `worker` trains.

Reading a run and starting one need no torch."""
