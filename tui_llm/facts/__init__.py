"""Frozen dataclasses shared by every layer of the package: numbers, bytes and text, no tensors. Imports only `common`.

request.py     Request, Target and Question: what is asked of the engine
interventions.py  parts of a model, and changes of what they compute
head_scores.py  induction, previous-token and duplicate-token scores of attention heads
sampler.py     the sampler's settings
tokens.py      Token, Piece, Tokenization
model.py       Weights, ModelInfo, ModelChoices: the open model, those that can be opened, what numbers depend on
prediction.py  Candidate, Distribution, TokenLoss, LossReading, TokenScore, GeneratedToken
reading.py     Reading: everything that the panes show for one request
engine.py      the engine's interface
place.py       a token position in a text
token_place.py the file and byte that a training token comes from
pin.py         a pinned prompt
recipe.py      optimizer, learning rate and steps of Learn this, and their limits
machine_reading.py  GpuReading, CpuReading, MachineReading: the gauges of a machine
setting.py     Setting and Range: a setting's values, unit and help
preference.py  settings of learning from preferences, and what it measures
policy.py      settings of learning from rewards by policy gradient
chat.py        a message of a conversation
check.py       Finding and CheckReport: what `tui-llm check` finds out
chart.py       ChartData: a chart as plain data
chart_files.py  a chart as CSV and SVG
report.py      the parts of a reading as JSON and as plain text
"""
