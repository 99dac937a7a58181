"""All texts that a run's model generated during training, one per evaluation, the newest last."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.text import Text

from tui_llm.common.display import visible
from tui_llm.training.run.run import Run, Sample
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.text import running, wrapped
from tui_llm.tui.kit.widgets.lines import Lines
from tui_llm.tui.runs.run_view import RunView

LONGEST = 20_000  # most characters of a sample that are shown


class SampleLines(Lines):
    """Each sample below a line with its step. Stays scrolled to the end while the end is in sight."""

    def __init__(self, run: str) -> None:
        super().__init__(id="samples")
        self.run = run
        self.samples: tuple[Sample, ...] = ()
        self.problem = ""
        self.loaded = False
        self._laid: list[list[Text]] = []  # the wrapped lines of each sample, for the current width and colours
        self._width = 0
        self._lines: list[Text] = []

    def on_mount(self) -> None:
        self.border_title = Text.assemble("Samples of ", visible(self.run))

    def show(self, found: Iterable[Sample] | None, problem: str) -> None:
        at_end = self.scroll_offset.y >= self.max_scroll_y
        self.problem, self.loaded = problem, True
        if found is not None:
            samples = tuple(found)
            # Samples that were there before are wrapped already, unless a resumed run has truncated its file.
            same = next((i for i, (a, b) in enumerate(zip(samples, self.samples, strict=False)) if a != b), None)
            keep = min(len(samples), len(self.samples)) if same is None else same
            self.samples, self._laid = samples, self._laid[:keep]
        self.rebuild()
        if at_end:
            self.scroll_end(animate=False, force=True, immediate=True)

    def notify_style_update(self) -> None:
        self._laid.clear()
        super().notify_style_update()

    def head(self, width: int) -> list[Text]:
        if width != self._width:
            self._width = width
            self._laid.clear()
        for sample in self.samples[len(self._laid) :]:
            self._laid.append(self._lay(sample, width))
        self._lines = [line for lines in self._laid for line in lines][:-1]
        if self.problem:
            return wrapped(Text(visible(self.problem), style=self.style("bad")), width)
        if not self.samples and self.loaded:
            note = "no samples yet: a run writes one at each evaluation"
            return wrapped(Text(note, style=self.style("muted")), width)
        return []

    def _lay(self, sample: Sample, width: int) -> list[Text]:
        title = Text(f"step {fmt.count(sample.step)}", style=self.style("accent"), no_wrap=True)
        title.truncate(width)
        text = Text(visible(sample.prompt[:LONGEST], newlines=True), style=self.style("strong"))
        text.append(visible(sample.text[:LONGEST], newlines=True), "not bold")
        return [title, *running(text, width), Text()]

    def row_count(self, width: int) -> int:
        return len(self._lines)

    def row(self, index: int, width: int, selected: bool) -> Text:
        return self._lines[index].copy()


_key = CommandFactory("samples", "Samples")
KEYS = (
    _key("copy_samples", "y", "copy", "Copy all samples (tab-separated)", "copy"),
    _key("close_samples", "escape,q", "back", "Back to the five panes", "close", importance=WAY_OUT),
)  # fmt: skip


class SamplesScreen(RunView):
    tour_name = "samples"
    own_keys = KEYS
    BINDINGS = bindings(KEYS)

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._list = SampleLines(run.name)

    def lines(self) -> Lines:
        return self._list

    def path(self) -> Path:
        return self.run_shown.samples_path

    def read(self) -> list[Sample]:
        return self.run_shown.samples()

    def show(self, found: list[Sample] | None, problem: str) -> None:
        self._list.show(found, problem)

    def table(self) -> Iterable[tuple[str, ...]]:
        yield "step", "prompt", "text"
        for sample in self._list.samples:
            yield str(sample.step), visible(sample.prompt), visible(sample.text)
