"""The keys that open the screens of this folder which a pane's footer names; the lab imports them without the screens."""

from __future__ import annotations

from tui_llm.tui.kit.command import Command

# Least important: a footer without room for all keys drops these first.
GUESS = Command(
    "guess",
    "Q",
    "guess",
    "Play: guess the next token, scored in bits beside unigram, nano and the open model",
    "Guess",
    "lab",
    "app.open('guess')",
    ("tokens", "generate"),
    importance=-1,
)
COMPARE_MODELS = Command(
    "compare_models",
    "V,ampersand",
    "compare models",
    "Compare with one or two other models on this text: predictions, KL, losses in bits, a continuation of each (& in Training)",
    "Compare models",
    "lab",
    "app.open('compare_models')",
    ("logits", "loss"),
    importance=-1,
)
SFT = Command(
    "sft",
    "I",
    "fine-tune",
    "Fine-tune a copy on question–answer pairs that you type (SFT): loss of the answers' tokens, answers before and after",
    "Fine-tune (SFT)",
    "lab",
    "app.open('sft')",
    ("loss", "generate"),
    importance=-1,
)
CHAT = Command(
    "chat_open",
    "at",
    "chat",
    "Chat with an instruct copy or a chat model, in its own template",
    "Chat",
    "lab",
    "app.open('chat')",
    ("generate",),
    importance=-1,
)
HEADS = Command(
    "heads",
    "asterisk",
    "heads",
    "Head detectors: which heads attend to the previous token, or to what followed an earlier occurrence (in Training: of the run, step by step)",
    "Heads",
    "lab",
    "app.open('heads')",
    ("tokens",),
    importance=-1,
)
