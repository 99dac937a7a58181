"""Sorted logits and the sampler's settings in, the table's plain facts out."""

from __future__ import annotations

from collections.abc import Callable

from tui_llm.llm import distribution
from tui_llm.llm.sampler import SamplerSettings
from tui_llm.llm.token_bytes import token_text
from tui_llm.reading import Candidate, Distribution, Rest


def distribution_reading(
    logits: distribution.Sorted, settings: SamplerSettings, top: int, bytes_of_id: Callable[[int], bytes]
) -> Distribution:
    """The table's facts for sorted logits: `top` rows and one for the rest."""
    processed = logits.process(settings)
    rest = processed.rest(top)
    return Distribution(
        settings,
        len(logits.order),
        logits.logsumexp,
        logits.entropy,
        processed.kept_count,
        processed.kept_mass,
        candidates(processed, top, bytes_of_id),
        Rest(rest.count, rest.raw_probability, rest.tempered, rest.probability, rest.kept),
    )


def candidates(
    processed: distribution.Processed, top: int, bytes_of_id: Callable[[int], bytes]
) -> tuple[Candidate, ...]:
    """The table's first rows as plain facts."""
    rows = []
    for row in processed.rows(top):
        data = bytes_of_id(row.id)
        rows.append(
            Candidate(
                row.rank,
                row.id,
                data,
                token_text(data),
                row.logit,
                row.exp_logit,
                row.raw_probability,
                row.tempered,
                row.cumulative,
                row.probability,
                row.kept,
            )
        )
    return tuple(rows)
