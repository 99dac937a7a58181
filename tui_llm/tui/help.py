"""The help screen: all keys, from `keymap.COMMANDS`, and a glossary of the numbers on screen."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from textual.app import ComposeResult
from textual.screen import ModalScreen

from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.command import Command, CommandFactory, bindings, key_text
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.kit.widgets.lines import Lines

WORDS = (
    ("token", "a piece of text with a number (its id); the model reads and predicts ids"),
    ("logit", "the model's unnormalized score for a token: any number; larger is likelier"),
    ("e^logit", "the score made positive; divided by the sum over the vocabulary it is raw p (softmax)"),
    ("raw p", "probability from the logits alone: softmax, before temperature and cuts"),
    ("p(T=…), p uncut", "probability after repetition penalty and temperature, before the cuts: top-p adds these up"),
    ("p, p(T=…, top-p …)", "probability after temperature and cuts: the distribution that tokens are sampled from"),
    ("logsumexp", "ln of the sum of all e^logit: the softmax's denominator, as a logarithm"),
    ("entropy", "the uncertainty of the prediction, in nats: 0 = certain, ln V = all tokens equally likely"),
    (
        "choices",
        "e^entropy, the effective number of choices: this many equally likely tokens have the same entropy",
    ),
    (
        "x, e^x",
        "in the stages, x is logit ÷ T minus the largest of them: no e^x overflows, and the probabilities are the same",
    ),
    (
        "penalised",
        "the logit after the repetition penalty: logits of tokens in the text are divided by it, or multiplied if negative",
    ),
    (
        "renorm.",
        "the probabilities that the cuts keep, divided by their sum: the distribution that tokens are sampled from",
    ),
    ("◆  *", "in the table: the target of the loss; a logit that you changed (what if)"),
    ("loss", "−ln p of the target, in nats: 0 at p = 1; lower is better"),
    ("bits", "the loss divided by ln 2"),
    ("perplexity", "e^loss: as uncertain as a choice among that many equally likely tokens"),
    ("one in N", "the loss as odds: as surprising as one outcome of N equally likely ones"),
    (
        "p − y",
        "the gradient of the loss with respect to the logits (y: 1 for the target, 0 elsewhere); a step moves against it",
    ),
    ("ln V", "the loss of a uniform guess over the V tokens of the vocabulary: the first baseline to beat"),
    (
        "unigrams, bigrams",
        "baselines: the training text's entropy by token counts alone, and by counts given the token before",
    ),
    ("floor", "the entropy of the text's source, where it is known: no model has a lower loss on new text"),
    ("epoch", "passes over the training text: tokens trained on ÷ tokens of the text"),
    ("mean of 60 steps", "the mean training loss of the last 60 steps"),
    ("u", "the random number from 0 to 1 that selected the token on the cumulative distribution"),
    (
        "forward pass on 1 token",
        "how many tokens ran through the model for this reading, and the time it took; the others are in the KV cache",
    ),
    ("attention", "how a head distributes a weight of 1 from one token over the tokens up to it: softmax(q · k ÷ √D)"),
    (
        "effective tokens",
        "e^entropy of a head's weights: the number of tokens over which even attention has the same entropy",
    ),
    (
        "logit lens",
        "the prediction if the model ended after a layer: the final LayerNorm and output head applied to that layer's output",
    ),
    (
        "KL",
        "the Kullback–Leibler divergence of a prediction q from another one, p, in nats: the sum of p ln(p ÷ q); 0 = identical",
    ),
    ("cosine", "of the angle between two embeddings: 1 = same direction, 0 = orthogonal"),
    ("rank", "1 + the number of tokens with a larger logit"),
)

NAMES = 22  # width of the first column, in cells


class HelpLines(Lines):
    def __init__(self, commands: Sequence[Command]) -> None:
        super().__init__(id="help")
        self._commands = commands
        self._lines: list[Text] = []

    def on_mount(self) -> None:
        self.border_title = "Keys and glossary"
        self.border_subtitle = "Esc closes"

    def head(self, width: int) -> list[Text]:
        muted, accent = self.style("muted"), self.style("accent")
        lines = wrapped(
            Text("Esc ends typing: single letters are then commands. i starts typing again.", style=muted), width
        )
        for group in dict.fromkeys(command.group for command in self._commands):
            lines += [Text(), Text(group, style=accent)]
            for command in self._commands:
                if command.group == group:
                    keys = ", ".join(key_text(key) for key in command.keys.split(","))
                    lines += self._entry(keys, command.tooltip, width)
        lines += [Text(), Text("Glossary", style=accent)]
        for word, meaning in WORDS:
            lines += self._entry(word, meaning, width)
        self._lines = lines
        return []

    def _entry(self, name: str, meaning: str, width: int) -> list[Text]:
        """A name with its meaning beside it, or below it if the width is too small."""
        room = width - NAMES
        if room < 20:
            return [*wrapped(Text(name, style=self.style("strong")), width), *wrapped(Text(meaning), width)]
        first, *rest = wrapped(Text(meaning), room)
        return [
            Text(f"  {name}".ljust(NAMES), style=self.style("strong"), no_wrap=True).append(first.plain, "not bold"),
            *(Text(" " * NAMES + line.plain, no_wrap=True) for line in rest),
        ]

    def row_count(self, width: int) -> int:
        return len(self._lines)

    def row(self, index: int, width: int, selected: bool) -> Text:
        return self._lines[index].copy()


_key = CommandFactory("help", "App")
KEYS = (
    _key("close_help", "escape,q,question_mark,f1", "back", "Close the help", "close", footer=()),
)  # fmt: skip


class HelpScreen(BaseScreen, ModalScreen[None]):
    BINDINGS = bindings(KEYS, modal=True)

    def __init__(self, commands: Sequence[Command]) -> None:
        super().__init__()
        self._commands = commands

    def compose(self) -> ComposeResult:
        yield HelpLines(self._commands)

    def action_close(self) -> None:
        self.dismiss(None)
