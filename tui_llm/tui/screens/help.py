"""All keys, and what the numbers mean. Made from the one list of commands."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.screen import ModalScreen

from tui_llm.tui.commands import COMMANDS, bindings, key_text
from tui_llm.tui.panes.base import wrapped
from tui_llm.tui.widgets.lines import Lines

WORDS = (
    ("token", "a piece of text with a number (its id); the model reads and predicts ids"),
    ("logit", "the model's score for a token; any number, larger is likelier"),
    ("e^logit", "the score made positive; divided by the sum over the vocabulary it is raw p (softmax)"),
    ("raw p", "probability by the logits alone"),
    ("p(T=…, top-p …)", "probability after temperature and cuts: what is drawn from"),
    ("logsumexp", "ln of the sum of all e^logit: the softmax's denominator, as a logarithm"),
    ("entropy", "how undecided the prediction is, in nats: 0 is certain, ln V is no idea at all"),
    ("loss", "−ln p of the target, in nats: 0 would be a sure hit; lower is better"),
    ("bits", "the loss divided by ln 2"),
    ("perplexity", "e^loss: as unsure as a guess among that many equally likely tokens"),
    ("ln V", "the loss of a model that knows nothing of its V tokens: the line to beat"),
    ("u", "the random number from 0 to 1 that picked the token on the cumulative probabilities"),
    ("rank", "1 + how many tokens have a larger logit"),
)


class HelpLines(Lines):
    def __init__(self) -> None:
        super().__init__(id="help")
        self._lines: list[Text] = []

    def on_mount(self) -> None:
        self.border_title = "Keys and words"
        self.border_subtitle = "Esc closes"

    def head(self, width: int) -> list[Text]:
        strong, muted, accent = self.style("strong"), self.style("muted"), self.style("accent")
        lines = [Text("Esc leaves typing: then single letters are commands. i goes back.", style=muted), Text()]
        for group in dict.fromkeys(command.group for command in COMMANDS):
            lines.append(Text(group, style=accent))
            for command in (command for command in COMMANDS if command.group == group):
                keys = ", ".join(key_text(key) for key in command.keys.split(","))
                lines.append(Text("  ").append(keys.ljust(16), strong).append(command.tooltip))
            lines.append(Text())
        lines.append(Text("Words", style=accent))
        for word, meaning in WORDS:
            lines.append(Text("  ").append(word.ljust(16), strong).append(meaning))
        self._lines = [part for line in lines for part in wrapped(line, width)]
        return []

    def row_count(self, width: int) -> int:
        return len(self._lines)

    def row(self, index: int, width: int, selected: bool) -> Text:
        return self._lines[index].copy()


class HelpScreen(ModalScreen[None]):
    BINDINGS = bindings("help")

    def compose(self) -> ComposeResult:
        yield HelpLines()

    def action_close(self) -> None:
        self.dismiss(None)
