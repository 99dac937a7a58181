"""The Steer screen: the difference of two prompts as a direction, added with a coefficient; before and after."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from typing import ClassVar

from rich.text import Text

from tui_llm.common.display import fit, visible, visible_token
from tui_llm.common.errors import UserError
from tui_llm.common.numbers import percent
from tui_llm.facts.interventions import STEER
from tui_llm.facts.model import Weights
from tui_llm.instruments.steer import words
from tui_llm.instruments.steer.question import (
    Direction,
    Steering,
    SteerQuestion,
    SteerSaveQuestion,
    SteerSide,
    steps_of,
)
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.kit.command import WAY_OUT, Command, CommandFactory, bindings
from tui_llm.tui.kit.full import FullScreen
from tui_llm.tui.kit.over import Row
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.state.context import LabContext
from tui_llm.tui.state.openers import opens

NUMBER = 9  # cells of a column of numbers
START = 1.0  # coefficient of a new direction
STEM = "steering"  # of the name that is proposed for a file

OPEN = Command(
    "steer",
    "colon",
    "steer",
    "Steer: add the difference of two prompts to the residual stream, with a coefficient that + and - change while text streams",
    "Steer",
    "lab",
    "app.open('steer')",
)
_key = CommandFactory("steer", "Steer")
KEYS = (
    _key("steer_toward", "t", "toward", "Type the prompt to steer toward", "toward"),
    _key("steer_away", "a", "away from", "Type the prompt to steer away from", "away"),
    _key("steer_layer_down", "left_square_bracket,left", "layer", "Add it one block earlier", "layer(-1)", together="layer"),
    _key("steer_layer_up", "right_square_bracket,right", "layer", "Add it one block later", "layer(1)", together="layer"),
    _key("steer_less", "minus", "coefficient", "Lower the coefficient by a half; below 0 it steers the other way", "coefficient(-1)", together="coefficient"),
    _key("steer_more", "plus,equals_sign", "coefficient", "Raise the coefficient by a half", "coefficient(1)", together="coefficient"),
    _key("steer_do", "enter", "use it", "Steer the model of every pane; + and - change the coefficient there, while text streams too", "use"),
    _key("steer_seed", "r", "seed", "Draw both continuations with the next seed", "next_seed"),
    _key("steer_save", "w", "save", "Save the direction as a safetensors file", "save"),
    _key("steer_load", "o", "load", "Load a direction from a safetensors file", "load"),
    _key("steer_copy", "y", "copy", "Copy both next-token tables (tab-separated)", "copy"),
    _key("close_steer", "escape,q,colon", "back", "Back to the five panes", "close", importance=WAY_OUT),
)  # fmt: skip


@opens("steer", LabContext.has_reading, LabContext.has_text)
class SteerScreen(FullScreen):
    tour_name = "steer"
    TITLE_WORDS: ClassVar[str] = "Steer"
    own_keys = KEYS
    BINDINGS = bindings(KEYS)

    def __init__(self, context: LabContext) -> None:
        super().__init__()
        self.context = context
        self._take_text()
        self.coefficient = self.steered[0].coefficient if self.steered else START
        self.seed = context.lab.seed
        self.found: Steering | None = None
        self._waiting = False  # for the answer to what the head says: `found` is of an earlier question
        self.problem = ""

    def on_mount(self) -> None:
        super().on_mount()
        self._ask()

    def on_unmount(self) -> None:
        self.context.questions.forget(SteerQuestion)

    @property
    def direction(self) -> Direction:
        """The lab's direction, with a layer: the middle one unless another was chosen or the file says one."""
        known, weights = self.context.lab.direction, self.context.weights
        if known.layer is None and not known.file and weights is not None:
            return dataclasses.replace(known, layer=weights.layers // 2)
        return known

    @property
    def ready(self) -> bool:
        known = self.direction
        return bool(known.file or (known.toward and known.against))

    def _take_text(self) -> None:
        """The lab's text, in the model that is open now."""
        lab = self.context.lab
        self.steered = [one for one in lab.interventions if one.how == STEER][-1:]  # what this screen edits
        others = tuple(one for one in lab.interventions if one not in self.steered)
        self.request = dataclasses.replace(lab.current_request(), interventions=others)
        self._model = self.context.model

    def reopened(self, weights: Weights) -> None:
        self.found = None
        if weights.name != self._model:
            self._take_text()
        self._ask()

    # ── questions ────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def shown(self) -> Steering | None:
        """The answer, if it is of what the head says."""
        return None if self._waiting else self.found

    def _ask(self) -> None:
        self._waiting = self.ready
        if self.ready:
            question = SteerQuestion(self.request, self.direction, self.coefficient, seed=self.seed)
            self.context.questions.ask(self, question, self._take, self._fail)
        self.problem = ""
        self.refill()

    def _take(self, found: Steering) -> None:
        self.found, self._waiting = found, False
        self.refill()

    def _fail(self, problem: str) -> None:
        self.found, self.problem, self._waiting = None, problem, False
        self.refill()

    # ── what is shown ────────────────────────────────────────────────────────────────────────────────────────────

    def subject(self) -> str:
        return self.context.model

    def content(self, width: int) -> tuple[list[Text], Sequence[Text]]:
        known, weights, muted = self.direction, self.context.weights, self.style("muted")
        head: list[Text] = []

        def line(name: str, value: str, more: str = "") -> None:
            made = Text(name.ljust(12), style=muted).append(value, self.style("accent")).append(f"  {more}", muted)
            head.extend(wrapped(made, width))

        if known.file:
            line("direction", visible(known.file), "from a file; t and a make another one")
        else:
            line("toward", f"“{visible(known.toward)}”" if known.toward else "–", "" if known.toward else "t types it")
            line("away from", f"“{visible(known.against)}”" if known.against else "–", "" if known.against else "a types it")  # fmt: skip
        layer = self.found.direction.layer if self.found is not None and known.layer is None else known.layer
        if layer is not None and weights is not None:
            line("added", words.place(layer, weights.layers), f"of {weights.layers}, [ and ]")
        line("coefficient", words.coefficient(self.coefficient), "- and +")
        if self.problem:
            return head, wrapped(Text(visible(self.problem), style=self.style("bad")), width)
        if (found := self.shown) is None:
            note = "computing …" if self.ready else "o loads a direction from a file"
            return head, [Text(), Text(note, style=muted)]
        return head, [*self._tables(found, width), *self._texts(found, width)]

    def _tables(self, found: Steering, width: int) -> list[Text]:
        lines = [
            row for said in words.lines(found)[1:] for row in wrapped(Text(said, style=self.style("muted")), width)
        ]
        half = max(12, (width - 2) // 2)
        room = max(3, half - NUMBER)
        lines.append(Text())
        titles = [
            Text(fit(f"{name}: next token", room) + "raw p".rjust(NUMBER), self.style("muted"))
            for name in ("as it is", "steered")
        ]
        lines.append(self._pair(titles[0], titles[1], half))
        for pair in zip_longest(found.before.candidates, found.after.candidates):
            cells = []
            for row in pair:
                cell = Text(fit(visible_token(row.text) or "∅", room) if row else "", self.style("strong"))
                cells.append(cell.append(percent(row.raw_probability).rjust(NUMBER) if row else "", "not bold"))
            lines.append(self._pair(cells[0], cells[1], half))
        return lines

    def _pair(self, left: Text, right: Text, half: int) -> Text:
        line = Text(no_wrap=True).append_text(left)
        line.append(" " * max(2, half + 2 - left.cell_len))
        return line.append_text(right)

    def _texts(self, found: Steering, width: int) -> list[Text]:
        title = f"a continuation of each, drawn with the same uniform numbers (seed {self.seed}, {fmt.sampler(self.request.sampler)})"
        lines = [Text(), *wrapped(Text(title, style=self.style("muted")), width)]
        for name, side in (("as it is  ", found.before), ("steered   ", found.after)):
            lines += wrapped(Text(name, self.style("accent")).append(visible(side.text), "default"), width)
        return lines

    def table(self) -> Iterable[Row]:
        yield "side", "rank", "id", "text", "logit", "raw_probability"
        if (found := self.shown) is None:
            return
        sides: tuple[tuple[str, SteerSide], ...] = (("before", found.before), ("after", found.after))
        for name, side in sides:
            for row in side.candidates:
                yield name, str(row.rank), str(row.id), visible(row.text), repr(row.logit), repr(row.raw_probability)

    # ── actions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _type(self, title: str, text: str, take: Callable[[str], object], hint: str = "") -> None:
        def answered(line: str | None) -> None:
            if line is not None and line.strip():
                take(line)

        self.app.push_screen(AskScreen(title, hint or "Enter computes the direction", text), answered)

    def _changed(self, **fields: object) -> None:
        self.context.lab.direction = dataclasses.replace(self.direction, **fields)  # type: ignore[arg-type]
        self._ask()

    def action_toward(self) -> None:
        self._type("Steer toward", self.direction.toward, lambda text: self._changed(toward=text, file=""))

    def action_away(self) -> None:
        self._type("Steer away from", self.direction.against, lambda text: self._changed(against=text, file=""))

    def action_layer(self, by: int) -> None:
        weights, found = self.context.weights, self.found
        layer = self.direction.layer
        if layer is None and found is not None:
            layer = found.direction.layer
        if weights is not None and layer is not None:
            self._changed(layer=max(0, min(weights.layers, layer + by)))

    def action_coefficient(self, by: int) -> None:
        self.coefficient = steps_of(self.coefficient, by)
        self._ask()

    def action_next_seed(self) -> None:
        self.seed += 1
        self._ask()

    def action_use(self) -> None:
        """Puts the intervention into the lab's state, in place of the one that was steered before, and closes."""
        found, lab = self.shown, self.context.lab
        if found is None:
            return
        self.dismiss(None)
        lab.intervene((*self.request.interventions, found.intervention))
        self.context.request_reading()
        self.context.notify(f"{found.intervention.name}: + and - change the coefficient, also while text streams")

    def action_load(self) -> None:
        hint = "Enter loads it · a file that w or `tui-llm steer --save` wrote · Esc cancels"

        def take(line: str) -> None:
            self._changed(file=" ".join(line.split()), layer=None)

        self._type("Load a direction", self.direction.file, take, hint)

    def action_save(self) -> None:
        from tui_llm.tui.kit.save import free_path

        if self.found is None:
            self.notify("there is no direction to save yet", markup=False, timeout=3)
            return
        try:
            path = free_path(STEM, "safetensors", "directions")
        except UserError as error:
            self._fail(str(error))
            return
        self._type("Save the direction as", str(path), self._save, "Enter saves · Esc cancels")

    def _save(self, line: str) -> None:
        question = SteerSaveQuestion(self.request, self.direction, line.strip())
        # It is written even if this screen has closed.
        self.context.questions.ask(None, question, lambda path: self.context.notify(f"saved {path}"))
