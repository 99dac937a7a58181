"""The maths, in the order of the pipeline: `tokens`, `data`, `model`, `predict`, `learn`; then `adapters` for other
architectures and `hub` to find, pull and open models. Knows nothing of the screen or of training runs."""
