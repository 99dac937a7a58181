"""Training runs: `run` reads run directories, `plan` configures and launches runs, `worker` trains.

Reading and launching a run do not import torch.
"""
