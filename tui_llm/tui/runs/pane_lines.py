"""What the Training pane says of a run, as lines, and the curves of its chart."""

from __future__ import annotations

from collections.abc import Iterable

from textual.content import Content

from tui_llm.common import numbers
from tui_llm.common.display import truncate, visible
from tui_llm.common.numbers import duration, memory_size
from tui_llm.facts.tokens import BYTES_AND_END
from tui_llm.training.run.settings import PRESETS
from tui_llm.training.run.snapshot import RunSnapshot
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.runs import alarm_words, answer_lines
from tui_llm.tui.runs.loss_chart import Curves, Other
from tui_llm.tui.runs.words import state_words

LEAST_BAR = 4  # cells of the bar of progress

RESUMABLE = ("new", "stopped", "died", "failed")


def state_line(snapshot: RunSnapshot) -> Content:
    words, style = state_words(snapshot.status.state)
    parts: list[str | tuple[str, str]] = [(words, f"bold {style}"), "  ", (visible(snapshot.name), "bold")]
    if snapshot.status.state == "running" and snapshot.pause_requested:
        parts.append(("  pausing: it saves first", "$text-muted"))
    if snapshot.reading:
        parts.append(("  reading its metrics …", "$text-muted"))
    return Content.assemble(*parts)


def facts_line(snapshot: RunSnapshot) -> Content:
    """The line with corpus, preset, device, precision and size."""
    config, status = snapshot.config, snapshot.status
    parts = []
    if config is not None:
        names = [visible(place.rstrip("/").rsplit("/", 1)[-1]) for place in config.corpus]
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        parts += [truncate(", ".join(names[:2]), 40) + more] if names else []
        parts.append(answer_lines.objective(config.settings) or f"preset {visible(config.preset)}")
        arch = config.settings.arch
        if arch and not (config.preset in PRESETS and PRESETS[config.preset].arch == arch):
            parts.append(truncate(visible(arch), 40))
    if config is not None and config.parent:
        parts.append(f"branch of {truncate(visible(config.parent), 24)} after step {fmt.count(config.parent_step)}")
    device = status.device or (config.device if config else None)
    if device:
        parts.append(visible(device))
    if status.precision:
        parts.append(visible(status.precision))
    if status.parameters:
        parts.append(f"{fmt.parameters(status.parameters)} parameters")
    if status.vocabulary:
        byte = f" ({BYTES_AND_END})" if config and config.settings.tokenizer == "byte" else ""
        parts.append(f"V = {fmt.count(status.vocabulary)}{byte}")
    return Content.styled(" · ".join(parts), "$text-muted")


def progress_line(snapshot: RunSnapshot, width: int) -> Content:
    """The run's state, name and progress; two lines if one is too narrow."""
    status, state = snapshot.status, state_line(snapshot)
    head = f"step {fmt.count(status.step)} of {fmt.count(status.steps)} "
    left = "" if snapshot.seconds_left is None else f"  {duration(snapshot.seconds_left)} left"
    tail = f" {100 * snapshot.progress:.0f} %{left}"
    beside = state.cell_length + 2 + len(head) + len(tail) <= width
    room = min(60, width - (state.cell_length + 2 if beside else 0) - len(head) - len(tail) - 2)
    bar = ("▕", (fmt.bar(snapshot.progress, room), "$primary"), "▏") if room >= LEAST_BAR else ()
    if not bar:
        tail = tail.lstrip()
    return Content.assemble(state, "  " if beside else "\n", head, *bar, tail)


def numbers_line(snapshot: RunSnapshot, width: int, most: int, *, gauges: bool = False) -> Content:
    """The newest numbers, the important ones first, in at most `most` lines; with `gauges`, the machine's have a line of their own."""
    last = snapshot.last
    if last is None:
        return Content()
    parts = answer_lines.measured(snapshot) or [("loss", fmt.number(last.loss, 3))]
    if snapshot.last_validation is not None and not snapshot.series:
        parts.append((_validation(snapshot), fmt.number(snapshot.last_validation[1], 3)))
    if snapshot.perplexity is not None and width >= 100:
        parts.append(("perplexity", fmt.compact(snapshot.perplexity)))
    parts += [("lr", f"{last.lr:.2e}"), ("gradient", fmt.compact(last.grad_norm))]
    if snapshot.tokens_per_second is not None:
        parts.append(("tokens/s", f"{snapshot.tokens_per_second:,.0f}"))
    if snapshot.mfu is not None:
        parts.append(("MFU", numbers.percent(snapshot.mfu)))
    if snapshot.epoch is not None and width >= 90:
        parts.append(("epoch", fmt.number(snapshot.epoch, 2)))
    if snapshot.memory_bytes is not None and not gauges:
        parts.append(("memory", memory_size(snapshot.memory_bytes)))
    if snapshot.gpu_use is not None and not gauges:
        parts.append(("GPU", f"{100 * snapshot.gpu_use:.0f} %"))
    return flowed(parts, width, most)


def _validation(snapshot: RunSnapshot) -> str:
    """The name of the validation loss: of a run with an average of the weights it is the average's."""
    averaged = snapshot.config is not None and snapshot.config.settings.ema_decay > 0
    return "validation (EMA)" if averaged else "validation"


def flowed(parts: Iterable[tuple[str, str]], width: int, most: int) -> Content:
    """Names with their values, as many per line as fit; a name is never separated from its value."""
    lines: list[list[Content]] = [[]]
    room = 0
    for name, value in parts:
        part = Content.assemble((f"{name} " if name else "", "$text-muted"), (value, "bold"))
        if lines[-1] and part.cell_length + 2 > room:
            lines.append([])
        room = (room if lines[-1] else width + 2) - part.cell_length - 2
        lines[-1].append(part)
    return Content("\n").join([Content("  ").join(line) for line in lines[:most]])


def message_line(snapshot: RunSnapshot, width: int) -> Content:
    """The worker's message, and how to resume the run or to open what it trained; empty while all goes well."""
    status = snapshot.status
    if not (status.summary or status.state in RESUMABLE):
        return Content()
    hint = "O opens what was trained  " if status.state == "finished" and snapshot.checkpoint is not None else ""
    hint = "e resumes it  " if status.state in RESUMABLE and snapshot.config else hint
    if status.state in RESUMABLE and hint and status.fits:
        hint = f"e resumes it at batch {status.fits[0]} × {status.fits[1]}  "
    if status.state == "finished" and hint and len(hint) + len(status.summary) > width:
        return Content.styled(hint, "bold $text-accent")  # that it is finished is said above
    style = "$text-error" if status.state in ("failed", "died") or status.problem else "$text-muted"
    return Content.assemble((hint, "bold $text-accent"), (visible(status.summary), style))


def curves(snapshot: RunSnapshot, others: Iterable[RunSnapshot] = (), number: int = 0) -> Curves:
    """The chart's curves: those of a run, and of the runs that are compared with it. `number` chooses one of the quantities of a
    run that learns from answers."""
    if snapshot.series:
        return answer_lines.curves(snapshot, others, number)
    levels = [
        ("ln V", snapshot.uniform_loss),
        ("unigrams", snapshot.unigram_loss),
        ("bigrams", snapshot.bigram_loss),
        ("floor", snapshot.floor_loss),
        *([] if snapshot.shipped is None else [(truncate(visible(snapshot.shipped[0]), 24), snapshot.shipped[1])]),
    ]
    return Curves(
        snapshot.train,
        snapshot.validation,
        tuple((name, value) for name, value in levels if value is not None),
        snapshot.averages,
        tuple(Other(other.name, other.train, other.averages) for other in others if not other.series),
        names=("training", _validation(snapshot)),
        end=alarm_words.end_of(snapshot),
        parent=snapshot.parent,
    )


NOTHING = Content.assemble(
    "No training run yet.\n",
    ("n", "bold $text-accent"),
    "  starts one: it trains a small GPT-2 on your own text, in a separate process that"
    " continues when this window closes.",
)
