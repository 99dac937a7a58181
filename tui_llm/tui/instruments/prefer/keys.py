"""The keys of Prefer."""

from __future__ import annotations

from tui_llm.tui.kit.command import WAY_OUT, Command, CommandFactory

OPEN = Command(
    "prefer",
    "j",
    "prefer",
    "Judge two answers: a copy of the weights learns which one you prefer (DPO)",
    "Prefer",
    "lab",
    "app.open('prefer')",
)
_key = CommandFactory("prefer", "Prefer")
KEYS = (
    # Before the list sees them, which would scroll sideways.
    _key("prefer_left", "left", "A or B", "Choose the left answer, A: optimizer steps on the copy", "choose(0)", priority=True, together="A or B", importance=8),
    _key("prefer_right", "right", "A or B", "Choose the right answer, B: optimizer steps on the copy", "choose(1)", priority=True, together="A or B", importance=8),
    _key("prefer_neither", "equals_sign", "neither", "Neither is better: draw two other answers, learn nothing", "neither", importance=7),
    _key("prefer_next", "enter,space", "next pair", "After a choice: draw the next two answers", "next", importance=7),
    _key("prefer_undo", "u,backspace", "undo", "Undo the last choice: restores exactly the weights before it", "undo", importance=6),
    _key("prefer_redraw_right", "r", "redraw B", "Draw the right answer again, with another seed", "redraw(1)", importance=5),
    _key("prefer_redraw_left", "R", "redraw A", "Draw the left answer again, with another seed", "redraw(0)", importance=3),
    _key("prefer_type_left", "a", "type A", "Type the left answer", "type_answer(0)", together="type", importance=3),
    _key("prefer_type_right", "b", "type B", "Type the right answer", "type_answer(1)", together="type", importance=3),
    _key("prefer_prompt", "p", "prompt", "Type another prompt", "prompt", importance=4),
    _key("prefer_temperature", "t", "temperature", "Type the temperature of the answers", "temperature"),
    _key("prefer_numbers", "n", "numbers", "Show each token's number beside it, or only its colour", "numbers", importance=2),
    _key("prefer_beta", "B", "β", "Type β, the pull to the reference", "setting('beta')", importance=1),
    _key("prefer_rate", "e", "learning rate", "Type the learning rate", "setting('learning_rate')", importance=1),
    _key("prefer_steps", "N", "steps", "Type how many optimizer steps a choice takes", "setting('steps')"),
    _key("prefer_length", "l", "per token", "Length-normalized rewards (LN-DPO), or sums over the tokens", "length"),
    _key("prefer_sft", "f", "SFT term", "Type the weight of the SFT term (RPO), which holds the chosen answer up; 0: none", "setting('sft_weight')"),
    _key("prefer_keep", "k", "keep", "Save the copy as a new model folder; asks for its name. The pairs are saved as they are ranked", "keep", importance=4),
    _key("prefer_open", "o", "open", "Open the saved copy in all panes", "open_saved"),
    _key("copy_prefer", "y", "copy", "Copy everything shown (tab-separated)", "copy"),
    _key("close_prefer", "escape,q,j", "back", "Back to the five panes; the copy and its pairs stay until another model opens", "close", importance=WAY_OUT),
)  # fmt: skip
