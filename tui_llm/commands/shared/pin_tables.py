"""Pin readings as JSON and as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tui_llm.common.display import truncate, visible, visible_token
from tui_llm.common.numbers import at_most, percent, precise_percent, printed_change
from tui_llm.facts import report
from tui_llm.training.run.pin_readings import difference

if TYPE_CHECKING:
    from tui_llm.facts.pin import Pin
    from tui_llm.training.run.pin_readings import PinReading, ProbabilityChange

Saved = list[tuple[int, "PinReading"]]  # (step, reading), by step
NAMED = 60  # widest prompt in a heading, in cells


def heading(pin: Pin) -> str:
    target = f" → {truncate(visible_token(pin.target), NAMED)}" if pin.target else ""
    return truncate(visible(pin.prompt), NAMED) + target


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def at_json(evaluation: tuple[int, PinReading] | None) -> dict[str, Any] | None:
    if evaluation is None:
        return None
    step, reading = evaluation
    return {
        "step": step,
        "entropy": reading.entropy,
        "candidates": [
            {"id": g.id, "bytes": g.bytes.hex(), "text": g.text, "raw_probability": g.probability}
            for g in reading.candidates
        ],
        "target_tokens": [
            {"id": t.id, "bytes": t.bytes.hex(), "text": t.text, "loss": report.finite(t.loss),
             "probability": t.probability, "rank": t.rank}
            for t in reading.tokens
        ],
        "loss": None if reading.loss is None else report.finite(reading.loss),
        "probability": reading.probability,
        "problem": reading.problem or None,
    }  # fmt: skip


def between_json(before: tuple[int, PinReading] | None, after: tuple[int, PinReading] | None) -> dict[str, Any] | None:
    if before is None or after is None:
        return None
    change = None
    if before[1].loss is not None and after[1].loss is not None:
        change = after[1].loss - before[1].loss
    return {
        "before": before[0],
        "after": after[0],
        "loss_change": None if change is None else report.finite(change),
        "candidates": [
            {"id": c.id, "bytes": c.bytes.hex(), "text": c.text, "before": c.before, "after": c.after,
             "before_at_most": c.before_most, "after_at_most": c.after_most,
             "change": c.change if c.exact else None}
            for c in difference(before[1], after[1])
        ],
    }  # fmt: skip


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def over_text(saved: Saved) -> str:
    """One line per evaluation."""
    target = any(reading.tokens for _, reading in saved)
    header = ["step", *(["p(target)", "loss", "ranks"] if target else []), "likeliest", "raw p", "entropy"]
    rows, problems = [], {}
    for step, reading in saved:
        if reading.problem:
            problems[visible(reading.problem)] = step
        if reading.entropy is None or not reading.candidates:
            continue
        cells = ["–"] * 3
        if reading.loss is not None and reading.probability is not None:
            ranks = ", ".join(f"{t.rank:,}" for t in reading.tokens[:4]) + (" …" if len(reading.tokens) > 4 else "")
            cells = [percent(reading.probability), f"{reading.loss:.4f}", ranks]
        first = reading.candidates[0]
        rows.append(
            [f"{step:,}", *(cells if target else []), visible_token(first.text), percent(first.probability),
             f"{reading.entropy:.4f}"]
        )  # fmt: skip
    lines = [report.table(header, rows, left=(header.index("likeliest"),))] if rows else []
    return "\n".join([*lines, *(f"! {problem} (last at step {step:,})" for problem, step in problems.items())])


def at_text(step: int, reading: PinReading) -> str:
    lines = [f"at step {step:,}" + ("" if reading.entropy is None else f": entropy {reading.entropy:.4f} nats")]
    rows = [
        (str(place), visible_token(g.text), str(g.id), percent(g.probability))
        for place, g in enumerate(reading.candidates, 1)
    ]
    if rows:
        lines.append(report.table(("#", "token", "id", "raw p"), rows, left=(1,)))
    if reading.loss is not None and reading.probability is not None:
        tokens = [
            (visible_token(t.text), str(t.id), f"{t.rank:,}", percent(t.probability), f"{t.loss:.4f}")
            for t in reading.tokens
        ]
        lines.append(report.table(("target", "id", "rank", "raw p", "loss"), tokens, left=(0,)))
        if len(tokens) > 1:
            lines.append(f"the whole target: {precise_percent(reading.probability)}, {reading.loss:.4f} nats")
    return "\n".join(lines + ([f"! {visible(reading.problem)}"] if reading.problem else []))


def between_text(before: tuple[int, PinReading] | None, after: tuple[int, PinReading] | None) -> str:
    if before is None or after is None:
        return ""
    rows = [
        (visible_token(c.text), str(c.id), _most(c.before, c.before_most), _most(c.after, c.after_most), _points(c))
        for c in difference(before[1], after[1])
    ]
    lines = [
        report.table(("token", "id", f"step {before[0]:,}", f"step {after[0]:,}", "change (points)"), rows, left=(0,))
    ]
    losses = before[1].loss, after[1].loss
    if losses[0] is not None and losses[1] is not None:
        lines.append(
            f"the target's loss: {losses[0]:.4f} → {losses[1]:.4f} nats ({printed_change(losses[0], losses[1])})"
        )
    return "\n".join(lines)


def _most(known: float | None, most: float) -> str:
    return at_most(most) if known is None else percent(known)


def _points(change: ProbabilityChange) -> str:
    """In percentage points."""
    if not change.exact and change.change == 0:
        return "?"
    sign = "" if change.exact else "≥ " if change.change > 0 else "≤ "
    return f"{sign}{100 * change.change:+.2f}".replace("-", "−")
