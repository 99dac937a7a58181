"""The stages of softmax and temperatures side by side: as JSON for programs, as plain text for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tui_llm.common.display import visible_token
from tui_llm.common.numbers import percent
from tui_llm.facts.prediction import Candidate, Distribution
from tui_llm.facts.report import finite, settings_text, table, token_json
from tui_llm.instruments.temperatures.question import Temperatures


def stages_rows_text(distribution: Distribution, rows: Sequence[Candidate]) -> str:
    """logit → after the penalty → ÷ T → e^x → ÷ sum → cut → renormalized, for some rows."""
    return _stages(distribution, rows, sums=False)


def stages_text(distribution: Distribution) -> str:
    """The stages of all rows, with each column's sum over the whole vocabulary."""
    settings = distribution.sampler
    lines = [settings_text(settings), _stages(distribution, distribution.candidates, sums=True)]
    if not settings.greedy:
        lines.append(
            f"in e^x, x = {distribution.score_name} ÷ T minus the largest, {distribution.peak:.4f}, so that nothing overflows; the sum of e^x is {distribution.total:.6g}; "
            f"without subtracting it, ln Σ e^x = {distribution.log_total_name} = {distribution.log_total:.4f}"
        )
    lines.append(
        f"entropy {distribution.entropy:.4f} nats = {distribution.choices:.4g} effective choices (of the logits alone); "
        f"kept {distribution.kept:,} of {distribution.vocabulary:,} tokens"
    )
    return "\n".join(lines)


def _stages(distribution: Distribution, candidates: Sequence[Candidate], sums: bool) -> str:
    penalty = distribution.sampler.repetition_penalty != 1
    header = (
        "token",
        "id",
        "logit",
        *(("penalised",) if penalty else ()),
        "÷ T",
        "e^x",
        "÷ sum",
        "cut",
        "renormalized",
    )

    def line(name: str, id: str, *numbers: str) -> tuple[str, ...]:
        return (name, id, *(numbers if penalty else (numbers[0], *numbers[2:])))

    rows = [
        line(
            visible_token(row.text),
            str(row.id),
            f"{row.logit:.3f}",
            f"{row.score:.3f}",
            "—" if distribution.sampler.greedy else f"{row.scaled:.3f}",
            f"{row.numerator:.4g}",
            percent(row.tempered),
            percent(row.tempered) if row.kept else "cut",
            percent(row.probability) if row.kept else "—",
        )
        for row in candidates
    ]
    rest = distribution.rest
    if sums:
        if rest.count:
            kept = percent(rest.probability * distribution.kept_mass) if rest.kept else "cut"
            others = f"{rest.count:,} others"
            rows.append(
                line(others, "", "", "", "", f"{rest.tempered * distribution.total:.4g}", percent(rest.tempered), kept,
                     percent(rest.probability) if rest.kept else "—")
            )  # fmt: skip
        rows.append(
            line(
                "sum",
                "",
                "",
                "",
                "",
                f"{distribution.total:.4g}",
                percent(1.0),
                percent(distribution.kept_mass),
                percent(1.0),
            )
        )
    return table(header, rows, left=(0,))


def temperatures_json(found: Temperatures) -> dict[str, Any]:
    return {
        "tokens": [token_json(token) for token in found.tokens],
        "others": found.others,
        "columns": [
            {
                "temperature": finite(column.temperature),
                "probabilities": list(column.probabilities),
                "rest": column.rest,
                "entropy": column.entropy,
                "effective_choices": column.choices,
            }
            for column in found.columns
        ],
    }


def temperatures_text(found: Temperatures) -> str:
    """A column of probabilities for each temperature."""
    columns = found.columns
    rows = [
        (visible_token(token.text), *(percent(column.probabilities[at]) for column in columns))
        for at, token in enumerate(found.tokens)
    ]
    if found.others:
        rows.append((f"{found.others:,} others", *(percent(column.rest) for column in columns)))
    rows.append(("entropy, nats", *(f"{column.entropy:.3f}" for column in columns)))
    rows.append(("effective choices", *(f"{column.choices:.4g}" for column in columns)))
    header = ("token", *("greedy" if column.temperature == 0 else f"T = {column.temperature:g}" for column in columns))
    return table(header, rows, left=(0,))
