"""The keys of Reward."""

from __future__ import annotations

from tui_llm.facts.policy import CLIP
from tui_llm.tui.kit.command import WAY_OUT, Command, CommandFactory

OPEN = Command(
    "reward",
    "dollar_sign",
    "reward",
    "Reward answers by a rule, such as contains:happy: a copy of the weights learns to get more (GRPO)",
    "Reward",
    "lab",
    "app.open('reward')",
)
_key = CommandFactory("reward", "Reward")
KEYS = (
    _key("reward_step", "space,enter", "step", "A step: draw answers, score them, learn from the scores; by hand: draw, then learn", "step(1)", priority=True, importance=8),
    _key("reward_ten", "x", "ten", "Ten steps", "step(10)", importance=7),
    _key("reward_undo", "u,backspace", "undo", "Undo the last step: restores exactly the weights before it", "undo", importance=6),
    _key("reward_rule", "s", "rule", "Type the rule that gives the reward", "rule", importance=6),
    _key("reward_preset", "v", "preset", "The next preset: a rule that works, then one that is hacked", "preset", importance=5),
    _key("reward_draw", "d", "draw", "Draw and score the next answers without learning from them", "draw", importance=4),
    _key("reward_hand", ",".join("0123456789"), "to 9 by hand", "Score the marked answer by hand: 0 to 9", "score", importance=5),
    # Before the list sees them, which would scroll.
    _key("reward_up", "up", "answer", "Mark the answer above", "mark(-1)", priority=True, together="answer"),
    _key("reward_down", "down", "answer", "Mark the answer below", "mark(1)", priority=True, together="answer"),
    _key("reward_prompt", "p", "prompt", "Type another prompt; the copy starts anew", "prompt", importance=3),
    _key("reward_numbers", "n", "numbers", "Show each token's number beside it, or only its colour", "numbers", importance=2),
    _key("reward_advantage", "a", "advantage", "Advantage: reward − mean (Dr. GRPO), or that ÷ standard deviation (GRPO)", "advantage", importance=2),
    _key("reward_average", "l", "average", "Average over tokens: constant (Dr. GRPO), sequence (GRPO) or token (DAPO)", "average", importance=1),
    _key("reward_rate", "e", "learning rate", "Type the learning rate", "setting('learning_rate')", importance=2),
    _key("reward_beta", "B", "β", "Type β, the weight of the KL term: the pull to the opened model", "setting('beta')", importance=1),
    _key("reward_clip", "c", "clip", f"Type ε: {CLIP}", "setting('clip')"),
    _key("reward_samples", "g", "answers", "Type how many answers a group has", "setting('samples')"),
    _key("reward_tokens", "L", "tokens", "Type the most tokens of an answer", "setting('tokens')"),
    _key("reward_updates", "N", "updates", "Type how many updates each group is used for", "setting('updates')"),
    _key("reward_temperature", "t", "temperature", "Type the temperature of the draws", "setting('temperature')"),
    _key("reward_seed", "r", "seed", "Another seed for the next draws", "seed", importance=1),
    _key("reward_reset", "z", "undo all", "Go back to the open model's weights", "reset"),
    _key("reward_keep", "k", "keep", "Save the copy as a new model folder; asks for its name", "keep", importance=4),
    _key("reward_open", "o", "open", "Open the saved copy in all panes", "open_saved"),
    _key("copy_reward", "y", "copy", "Copy everything shown (tab-separated)", "copy"),
    _key("close_reward", "escape,q,dollar_sign", "back", "Stop the steps; otherwise back to the five panes, where the copy stays until another model opens", "leave", importance=WAY_OUT),
)  # fmt: skip
