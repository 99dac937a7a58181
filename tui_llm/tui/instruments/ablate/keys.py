"""The keys of the Switch off screen."""

from __future__ import annotations

from tui_llm.tui.kit.command import WAY_OUT, Command, CommandFactory

_key = CommandFactory("ablate", "Switch off")
OPEN = Command(
    "ablate_open",
    "exclamation_mark",
    "switch off",
    "Switch heads, attention, MLPs or layers off, and see the effect of each part on the target's loss",
    "Switch off",
    "lab",
    "app.open('ablate')",
    ("loss",),
    importance=-1,
)
KEYS = (
    _key("ablate_switch", "enter,space", "off/on", "Switch the part under the cursor off, or on again; arrows choose a part", "switch", importance=3),
    _key("ablate_how", "m", "zero/mean/prompt", "Replace by zero, by the mean over the text, or by the value after another prompt", "how"),
    _key("ablate_prompt", "p", "other prompt", "Type the prompt whose values replace those of the text, aligned from the end", "prompt"),
    _key("ablate_next", "n", "next", "Go to the part with the next smaller effect", "ranked(1)", together="by effect"),
    _key("ablate_previous", "N", "previous", "Go to the part with the next larger effect", "ranked(-1)", together="by effect"),
    _key("ablate_token_back", "comma", "token", "Choose the token before", "token(-1)", together="token"),
    _key("ablate_token_on", "full_stop", "token", "Choose the next token", "token(1)", together="token"),
    _key("ablate_attention", "t", "attention to it", "Switch the attention of later tokens to the chosen token off, or on again", "attention"),
    _key("ablate_all_on", "0", "all on", "Switch on every part of the model", "all_on", importance=2),
    _key("ablate_rank", "r", "stop/rank", "Stop computing the effects, or go on", "rank", footer=()),
    _key("ablate_copy", "y", "copy", "Copy what is shown as a table (tab-separated)", "copy"),
    _key("close_ablate", "escape,q,exclamation_mark", "back", "Back to the five panes", "close", importance=WAY_OUT),
)  # fmt: skip
