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
    ("logit", "the model's score for a token; any number, larger is likelier"),
    ("e^logit", "the score made positive; divided by the sum over the vocabulary it is raw p (softmax)"),
    ("raw p", "probability by the logits alone"),
    ("p(T=…, top-p …)", "probability after temperature and cuts: what is drawn from"),
    ("logsumexp", "ln of the sum of all e^logit: the softmax's denominator, as a logarithm"),
    ("entropy", "how undecided the prediction is, in nats: 0 is certain, ln V is no idea at all"),
    (
        "choices",
        "e^entropy, the effective number of choices: as undecided as a guess among so many equally likely tokens",
    ),
    (
        "x, e^x",
        "in the stages, x is logit ÷ T less the largest of them: no e^x overflows, and the probabilities are the same",
    ),
    (
        "penalised",
        "the logit after the repetition penalty: tokens of the text are divided by it, or multiplied below 0",
    ),
    ("renorm.", "what the cuts leave, divided by its sum: what is drawn from"),
    ("◆  *", "in the table: the loss's target; a logit that was changed by hand (what if)"),
    ("loss", "−ln p of the target, in nats: 0 would be a sure hit; lower is better"),
    ("bits", "the loss divided by ln 2"),
    ("perplexity", "e^loss: as unsure as a guess among that many equally likely tokens"),
    ("one in N", "the loss said as a chance: as surprising as one outcome of N equally likely ones"),
    ("p − y", "the loss's gradient on the logits (y: 1 for the target, 0 elsewhere); a step goes the other way"),
    ("ln V", "the loss of a model that knows nothing of its V tokens: the line to beat"),
    (
        "unigrams, bigrams",
        "the training text's entropy by token counts alone, and by counts after each token: lines to beat",
    ),
    ("floor", "the entropy of a text whose source is known: no model gets below it on new text"),
    ("epoch", "how often the training text was seen: tokens trained on, divided by its tokens"),
    ("mean of 60 steps", "the plain mean of the training losses of the last so many steps"),
    ("u", "the random number from 0 to 1 that picked the token on the cumulative probabilities"),
    ("fed 1 in 6 ms", "tokens run through the model for this reading (0: all was cached), and the time it took"),
    ("attention", "how one token's head distributes a weight of 1 over the tokens up to itself: softmax(q · k ÷ √D)"),
    (
        "effective tokens",
        "e^entropy of a head's weights: the number of tokens over which even attention has the same entropy",
    ),
    (
        "logit lens",
        "the prediction if the model ended after a layer: the final LayerNorm and output head applied to that layer's output",
    ),
    ("KL", "how far a prediction q is off another one, p, in nats: the sum of p ln(p ÷ q); 0 = identical"),
    ("cosine", "of the angle between two embeddings: 1 is the same direction, 0 a right angle"),
    ("rank", "1 + how many tokens have a larger logit"),
)

NAMES = 22  # width of the first column, in cells


class HelpLines(Lines):
    def __init__(self, commands: Sequence[Command]) -> None:
        super().__init__(id="help")
        self._commands = commands
        self._lines: list[Text] = []

    def on_mount(self) -> None:
        self.border_title = "Keys and words"
        self.border_subtitle = "Esc closes"

    def head(self, width: int) -> list[Text]:
        muted, accent = self.style("muted"), self.style("accent")
        lines = wrapped(Text("Esc leaves typing: then single letters are commands. i goes back.", style=muted), width)
        for group in dict.fromkeys(command.group for command in self._commands):
            lines += [Text(), Text(group, style=accent)]
            for command in self._commands:
                if command.group == group:
                    keys = ", ".join(key_text(key) for key in command.keys.split(","))
                    lines += self._entry(keys, command.tooltip, width)
        lines += [Text(), Text("Words", style=accent)]
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
    _key("leave_help", "escape,q,question_mark,f1", "back", "Back from this help", "close", footer=()),
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
