"""The commands of the Loss pane, and of the screen on which a copy learns."""

from __future__ import annotations

from tui_llm.tui.kit.command import Command

GROUP = "Learn this"


def _loss(id: str, keys: str, label: str, tooltip: str, action: str) -> Command:
    importance = 1 if id in ("gradient", "learn") else 0  # these are what the pane is for
    return Command(id, keys, label, tooltip, "Loss", "loss", action, ("loss",), importance=importance)


def _learn(id: str, keys: str, label: str, tooltip: str, action: str, together: str = "") -> Command:
    return Command(id, keys, label, tooltip, GROUP, "learn", action, ("learn",), together=together)


LOSS_COMMANDS: tuple[Command, ...] = (
    _loss("own_target", "n", "own next", "Make the text's own next token the target (at the token cursor), or go back to the target before", "own_target"),
    _loss("gradient", "p", "gradient", "Show the gradient p − y as bars: what a step pushes up and down; for a longer target token by token, then hide it", "gradient"),
    _loss("learn", "L", "learn this", "Take optimiser steps on this prompt and target, on a copy of the weights", "learn"),
    _learn("learn_step", "space,enter", "step", "Take the next step (or so many as n says) on the copy", "step"),
    _learn("learn_undo", "u,backspace", "undo", "Undo the last step: the weights are exactly those before it", "undo"),
    _learn("learn_reset", "r", "undo all", "Go back to the open model's weights", "reset"),
    _learn("learn_optimiser", "o", "optimiser", "Take the next steps with the other optimiser: SGD or AdamW", "optimiser"),
    _learn("learn_smaller", "left_square_bracket", "smaller steps", "Make the step size smaller", "size(-1)", "step size"),
    _learn("learn_larger", "right_square_bracket", "larger steps", "Make the step size larger", "size(1)", "step size"),
    _learn("learn_size", "e", "type it", "Type the step size", "type_size"),
    _learn("learn_many", "n", "at once", "Take 1, 5 or 20 steps at once", "many"),
    _learn("learn_keep", "k", "keep", "Keep the copy as a new model folder, under a name that you give", "keep"),
    _learn("copy_learn", "y", "copy", "Copy all that is shown (tab-separated)", "copy"),
    _learn("leave_learn", "escape,q,L", "back", "Back to the five panes; the copy stays as it is", "leave"),
)  # fmt: skip
