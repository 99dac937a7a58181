"""The keys of the Training pane: the watched run, its chart, its pins, and the model that follows it."""

from __future__ import annotations

from tui_llm.tui.kit.command import Command, CommandFactory

_key = CommandFactory("training", "Training")
KEYS = (
    _key("how_it_learned", "h", "how it learned", "Show how the watched run learned the pinned prompts; list and remove pins", "how_it_learned"),
    Command("pin", "P", "pin", "Pin the current prompt and target, or unpin them: runs read pinned prompts at every evaluation", "Training", "lab", "pin", ("loss", "training")),
    _key("new_run", "n", "new run", "Train a model on your own text", "new_run", importance=3),
    _key("pause_run", "p", "pause", "Pause the watched run (it saves first), or continue it", "pause_run", importance=3),
    _key("stop_run", "S", "stop", "Stop the watched run: it saves a checkpoint, then ends", "stop_run", importance=3),
    _key("resume_run", "e", "resume", "Resume a run that has stopped or died, from its last checkpoint", "resume_run", importance=1),
    _key("open_run", "O", "open", "Open the watched run's newest checkpoint as the model of all panes", "open_run", importance=1),
    _key("log_axis", "l", "log", "Make the loss axis logarithmic, or linear again", "log_axis"),
    _key("next_curve", "k", "curve", "Show the next curve of a run that learns preferences or a reward: margin, agreement, KL …", "next_curve", footer=()),
    Command("follow", "f", "follow", "Follow the watched run: open each new checkpoint and update all panes; or stop following", "Training", "lab", "follow", ("training",), importance=2),
    _key("smooth", "a", "average", "Draw the training loss as its moving average over 1 % of the steps, over 5 %, or not", "smooth"),
    _key("fewer_steps", "plus,equals_sign", "fewer steps", "Zoom the chart into the last half of the steps, then the last tenth", "zoom_steps(1)", together="steps"),
    _key("more_steps", "minus", "more steps", "Zoom the chart out again, up to all steps", "zoom_steps(-1)", together="steps"),
    _key("cursor_before", "left", "cursor", "Move the chart's reading cursor to the step before; it shows the value of every curve there", "move_cursor(-1)", together="cursor"),
    _key("cursor_after", "right", "cursor", "Move the chart's reading cursor to the next step; past the newest one it is gone", "move_cursor(1)", together="cursor"),
    _key("next_spike", "up", "spike", "Move the reading cursor to the largest spike of the loss in sight, then to the next ones", "next_spike(1)", together="spike"),
    _key("previous_spike", "down", "spike", "Move the reading cursor back to the spike before", "next_spike(-1)", together="spike"),
    _key("open_step", "enter", "open step", "Recompute the step under the reading cursor, or the newest: its rows with their places in the corpus, and what made its loss", "open_step", importance=2),
    _key("earlier_steps", "shift+left", "earlier steps", "Move a zoomed chart to earlier steps", "pan_steps(-1)", footer=()),
    _key("later_steps", "shift+right", "later steps", "Move a zoomed chart to later steps", "pan_steps(1)", footer=()),
)  # fmt: skip
