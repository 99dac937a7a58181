"""Models and their maths, in pipeline order: `tokens`, `data`, `model`, `predict`, `learn`; then `adapters` for other
architectures, and `hub` to find, pull and open models. Imports nothing of the screen or of training runs."""
