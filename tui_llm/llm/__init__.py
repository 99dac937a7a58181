"""Models and their maths, in pipeline order: `tokens`, `data`, `model`, `predict`, `learn`; then `adapters` for other
architectures, `hub` to find, pull and open models, and `check` to examine one. Imports nothing of the screen or of training runs."""
