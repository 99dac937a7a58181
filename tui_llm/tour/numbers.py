"""Formulas and number formats for the tour's texts."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence

from tui_llm.common.display import truncate, visible
from tui_llm.common.numbers import loss_places

LOGITS = {"mat": 3.2, "rug": 1.3, "moon": -2.1}
TABLE = {"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.1}
"""The tutorial's probabilities at temperature 1."""
COLD, HOT = 0.5, 2.0


def softmax(logits: Sequence[float], temperature: float = 1.0) -> list[float]:
    """e^(x ÷ T) ÷ Σ e^(x ÷ T), after subtracting the largest x for numerical stability."""
    top = max(logits)
    powers = [math.exp((logit - top) / temperature) for logit in logits]
    total = math.fsum(powers)
    return [power / total for power in powers]


def tempered(probabilities: Sequence[float], temperature: float) -> list[float]:
    """Converts probabilities at temperature 1 to temperature T: softmax of ln p ÷ T."""
    return softmax([math.log(p) for p in probabilities], temperature)


def loss(probability: float) -> float:
    """−ln p, in nats."""
    return -math.log(probability) if probability > 0 else math.inf


def shares(probabilities: Iterable[float]) -> str:
    """Formats probabilities: `86.6/13.0/0.4 %`."""
    return "/".join(f"{p * 100:.1f}" for p in probabilities) + " %"


def nats(value: float) -> str:
    """Formats a loss with the decimals that the Loss pane gives it."""
    return f"{value:.{loss_places([value])}f}"


_KEY = re.compile(r"\{([a-z_]+)\}")
_OPEN, _CLOSE = "\ue000", "\ue001"  # placeholders for braces in foreign text; `visible` never returns these characters


def foreign(text: str, room: int = 200) -> str:
    """Makes foreign text safe for the terminal, and protects its braces from `keyed`."""
    return truncate(visible(text), room).replace("{", _OPEN).replace("}", _CLOSE)


def words(text: str, room: int = 24) -> str:
    """Returns foreign text, made safe, in quotation marks."""
    return f"“{foreign(text, room)}”"


def keyed(text: str, key: Callable[[str], str | None]) -> str:
    """Replaces {command} by the command's key. A name that `key` does not know is kept."""
    filled = _KEY.sub(lambda match: key(match[1]) or match[0], text)
    return filled.replace(_OPEN, "{").replace(_CLOSE, "}")


def many(count: int, one: str) -> str:
    """Formats a count: `1 pair`, `2 pairs`."""
    return f"{count:,} {one}{'' if count == 1 else 's'}"


def typed_logits(values: dict[str, float]) -> str:
    """Formats logits in the syntax of the scratch table: `TOKEN=LOGIT …`."""
    return " ".join(f"{name}={value:g}" for name, value in values.items())


def table_logits() -> str:
    """The tutorial's probability table as logits, ln p."""
    return " ".join(f"{name}={math.log(p):.3f}" for name, p in TABLE.items())


def whole_number(text: str | None) -> int | None:
    """Parses a whole number, with commas or spaces as thousands separators; None if it is not one."""
    cleaned = (text or "").replace(",", "").replace(" ", "").replace("\u202f", "")
    return int(cleaned) if cleaned.isascii() and cleaned.isdigit() and len(cleaned) <= 15 else None


def number(text: str) -> float | None:
    """Parses a finite number, with commas or spaces as thousands separators; None if it is not one."""
    cleaned = text.strip().replace(",", "").replace(" ", "").replace("\u202f", "").replace("−", "-")
    try:
        value = float(cleaned) if len(cleaned) <= 40 else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
