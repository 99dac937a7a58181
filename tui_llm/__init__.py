"""See how a language model is pre-trained, live, in the terminal. Importing this package imports no torch."""

__version__ = "0.1.0"
