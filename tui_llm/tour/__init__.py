"""The tour: pre-training done, not read about. Steps, their checks and their words; no screen and no tensors here."""
