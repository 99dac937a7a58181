"""The parts of a reading as JSON for programs and as plain text for people; the command line prints these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tui_llm.common.display import fit, visible, visible_token
from tui_llm.common.numbers import counted, differences, percent, plain
from tui_llm.facts.model import ModelChoice, Weights
from tui_llm.facts.prediction import LOGSUMEXP, Candidate, Distribution, GeneratedToken, LossReading, Rest
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.facts.tokens import Token, Tokenization

# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def token_json(token: Token) -> dict[str, Any]:
    known = {"id": token.id, "bytes": token.bytes.hex(), "text": token.text}
    return known if token.piece is None else known | {"piece": token.piece}


def tokens_json(tokens: Tokenization) -> dict[str, Any]:
    return {
        "tokenizer": tokens.tokenizer,
        "count": tokens.count,
        "tokens": [token_json(t) for t in tokens.tokens],
    }


def candidate_json(row: Candidate) -> dict[str, Any]:
    return {
        "rank": row.rank,
        "id": row.id,
        "bytes": row.bytes.hex(),
        "text": row.text,
        "logit": finite(row.logit),
        "raw_probability": row.raw_probability,
        "tempered_probability": row.tempered,
        "probability": row.probability,
        "cumulative": row.cumulative,
        "kept": row.kept,
        "score": finite(row.score),
        "scaled": finite(row.scaled),
        "numerator": finite(row.numerator),
    }


def rest_json(rest: Rest) -> dict[str, Any]:
    return {
        "count": rest.count,
        "raw_probability": rest.raw_probability,
        "probability": rest.probability,
        "kept": rest.kept,
    }


def distribution_json(distribution: Distribution) -> dict[str, Any]:
    return {
        "vocabulary": distribution.vocabulary,
        "logsumexp": distribution.logsumexp,
        "entropy": distribution.entropy,
        "effective_choices": distribution.choices,
        "largest_scaled": finite(distribution.peak),
        "sum_of_numerators": distribution.total,
        "logsumexp_scaled": finite(distribution.log_total),
        "kept_mass": distribution.kept_mass,
        "kept": distribution.kept,
        "candidates": [candidate_json(row) for row in distribution.candidates],
        "rest": rest_json(distribution.rest),
    }


def source_json(weights: Weights, prompt_ids: Sequence[int], choices: Sequence[ModelChoice]) -> dict[str, Any]:
    """The model, the ids that a prediction was computed from, and the choices that it depends on."""
    return {
        "model": weights.name,
        "weights": weights.dtype,
        "reader": weights.reader,
        "kernel": weights.kernel,
        "choices": [choice.text for choice in choices],
        "step": weights.step,
        "prompt_ids": list(prompt_ids),
    }


def loss_json(loss: LossReading) -> dict[str, Any]:
    return {
        "target_ids": [t.token.id for t in loss.tokens],
        "tokens": [
            {
                **token_json(t.token),
                "rank": t.loss.rank,
                "logit": finite(t.loss.logit),
                "logsumexp": t.loss.logsumexp,
                "probability": t.loss.probability,
                "loss": finite(t.loss.nats),
                "gradient": t.loss.gradient,
            }
            for t in loss.tokens
        ],
        "sum": finite(loss.sum),
        "mean": finite(loss.mean),
        "bits": finite(loss.bits),
        "perplexity": finite(loss.perplexity),
        "uniform_loss": loss.uniform_loss,
    }


def step_json(step: GeneratedToken) -> dict[str, Any]:
    return {
        "id": step.id,
        "u": step.u,
        "probability": step.probability,
        "raw_probability": step.raw_probability,
        "rank": step.rank,
        "bytes": step.bytes.hex(),
        "text": step.text,
    }


def finite(value: float) -> float | str:
    """JSON has no infinities and no NaN: write them as strings."""
    return value if abs(value) != float("inf") and value == value else str(value)


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────────


GAP, INDENT = "  ", "    "
LEAST_WRAPPED = 30  # cells of a column of sentences; where it has fewer, a sentence stands below its row


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[int] = (), wrap_at: int | None = None
) -> str:
    """Columns as wide as their widest cell, measured in terminal cells. Cells are right-aligned, those of the columns
    `left` left-aligned. With `wrap_at`, the last column, of sentences, is wrapped so that a line has at most so many cells."""
    from rich.cells import cell_len

    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(cell_len(line[i]) for line in lines) for i in range(len(header))]
    room = None if wrap_at is None else wrap_at - sum(widths[:-1]) - len(GAP) * (len(widths) - 1)
    out = []
    for line in lines:
        below: list[str] = []
        if wrap_at is not None and room is not None and cell_len(line[-1]) > max(0, room):
            hangs = room >= LEAST_WRAPPED
            indent = " " * (wrap_at - room) if hangs else INDENT
            parts = _wrapped(line[-1], room if hangs else max(1, wrap_at - len(INDENT)))
            first, below = (parts[0], parts[1:]) if hangs else ("", parts)
            line, below = [*line[:-1], first], [indent + part for part in below]
        cells = [
            fit(cell, width) if i in left else " " * (width - cell_len(cell)) + cell
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        out += [GAP.join(cells).rstrip(), *below]
    return "\n".join(out)


def _wrapped(text: str, width: int) -> list[str]:
    from rich.console import Console
    from rich.text import Text

    return [line.plain.rstrip() for line in Text(text).wrap(Console(width=width), width)]


def settings_text(settings: SamplerSettings) -> str:
    parts = ["greedy (T = 0)" if settings.greedy else f"T = {settings.temperature:g}"]
    parts += [f"top-k {settings.top_k}"] if settings.top_k else []
    parts += [f"top-p {settings.top_p:g}"] if settings.top_p < 1 else []
    parts += [f"min-p {settings.min_p:g}"] if settings.min_p else []
    parts += ["cut in sequence"] if settings.sequential_cuts else []
    parts += [f"repetition penalty {settings.repetition_penalty:g}"] if settings.repetition_penalty != 1 else []
    return ", ".join(parts)


def tokens_text(tokens: Tokenization) -> str:
    head = f"{counted(tokens.count, 'token')} in {visible(tokens.tokenizer)} (a vocabulary of {tokens.vocabulary:,}{tokens.contents and f': {tokens.contents}'})"
    rows = [
        (str(tokens.first + i), visible_token(t.piece or t.text), str(t.id), t.bytes.hex(" "))
        for i, t in enumerate(tokens.tokens)
    ]
    return head + "\n" + table(("#", "token", "id", "bytes"), rows, left=(1, 3))


def rows_text(distribution: Distribution, candidates: Sequence[Candidate]) -> str:
    """The table of `candidates`, without the rest of the vocabulary."""
    return table(_header(distribution), _cells(candidates), left=(1, 8))


def _header(distribution: Distribution) -> tuple[str, ...]:
    processed = f"p ({settings_text(distribution.sampler)})"
    return ("rank", "token", "id", "logit", "e^logit", "raw p", processed, "cumulative", "")


def _cells(candidates: Sequence[Candidate]) -> list[tuple[str, ...]]:
    return [
        (str(row.rank), visible_token(row.text), str(row.id), f"{row.logit:.3f}", f"{row.exp_logit:.4g}",
         percent(row.raw_probability), percent(row.probability), percent(row.cumulative), "" if row.kept else "cut")
        for row in candidates
    ]  # fmt: skip


def distribution_text(distribution: Distribution) -> str:
    """The candidate table with a row for the rest of the vocabulary, and a line with logsumexp, entropy and kept
    tokens."""
    rows = _cells(distribution.candidates)
    if distribution.rest.count:
        rest = distribution.rest
        mark = "cut" if not rest.kept else "" if rest.kept == rest.count else f"{rest.count - rest.kept:,} cut"
        rows.append(
            (
                "",
                f"{rest.count:,} others",
                "",
                "",
                "",
                percent(rest.raw_probability),
                percent(rest.probability),
                "",
                mark,
            )
        )
    lines = [
        table(_header(distribution), rows, left=(1, 8)),
        f"{LOGSUMEXP} {distribution.logsumexp:.4f}   entropy {distribution.entropy:.4f} nats = {distribution.choices:.4g} effective choices   "
        f"kept {distribution.kept:,} of {distribution.vocabulary:,} tokens, which hold {percent(distribution.kept_mass)} after temperature",
    ]
    return "\n".join(lines)


def heading(weights: Weights, choices: Sequence[ModelChoice]) -> str:
    """A line about the model, and one with the choices that the numbers depend on."""
    w = weights
    step = f", step {w.step:,}" if w.step is not None else ""
    lines = [
        f"model {visible(w.name)}{step}: {w.parameters:,} parameters, {w.vocabulary:,} tokens in the vocabulary",
        choices_text(choices)
        + ("" if w.reader == "torch" else f" · computed by {w.reader}")
        + (f" · {w.kernel} kernel" if w.kernel else ""),
    ]
    return "\n".join(lines)


def choices_text(choices: Sequence[ModelChoice]) -> str:
    return " · ".join(visible(choice.text) for choice in choices)


def loss_text(loss: LossReading) -> str:
    """The table of the target's tokens, the loss as a formula (one token) or as sum and mean, and a line with other
    units."""
    terms, total_loss = differences([(t.loss.logsumexp, t.loss.logit, t.loss.nats) for t in loss.tokens], loss.sum)
    rows = [
        (
            visible_token(t.token.text),
            str(t.token.id),
            str(t.loss.rank),
            logit.strip("()"),
            total,
            percent(t.loss.probability),
            nats,
        )
        for t, (total, logit, nats) in zip(loss.tokens, terms, strict=True)
    ]
    lines = [table(("target", "id", "rank", "logit", LOGSUMEXP, "raw p", "loss"), rows, left=(0,))]
    if len(loss.tokens) == 1:
        total, logit, cost = terms[0]
        # Six figures: with four, −ln p would differ from the loss before its fourth decimal place.
        p = plain(loss.tokens[0].loss.probability, 6)
        lines.append(f"loss = logsumexp − logit = {total} − {logit} = {cost} nats = −ln {p}")
    else:
        lines.append(
            f"sum {total_loss} nats over {counted(len(loss.tokens), 'token')}, mean {loss.mean:.4f} nats a token"
        )
    lines.append(
        f"per token: {loss.bits:.4f} bits, perplexity {loss.perplexity:.4g}, one in {loss.perplexity:.4g}; a uniform guess costs ln V = {loss.uniform_loss:.4f} nats"
    )
    return "\n".join(lines)
