"""Numbers as text, in the same format in every pane. Infinities and NaN are formatted too, never an exception."""

from __future__ import annotations

import math

from tui_llm.facts.sampler import SamplerSettings

EIGHTHS = " ▏▎▍▌▋▊▉"


def number(value: float, digits: int = 2) -> str:
    """3.24, −1.50, ∞, NaN: plain decimals, or powers of ten from a million on."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.1e}" if abs(value) >= 1e6 else f"{value:,.{digits}f}"
    return text.replace("-", "−")


def signed(value: float, digits: int = 2) -> str:
    """A change: +1.50, −0.30; 0.00 without a sign."""
    text = number(value, digits)
    if not text.strip("−0."):
        return text.lstrip("−")
    return text if text.startswith("−") or text == "NaN" else f"+{text}"


def compact(value: float) -> str:
    """A number in at most seven characters, and a minus: 24.5, 1,234, 5.6e+12, −3.20e-05."""
    return f"−{_compact(-value)}" if value < 0 else _compact(value)


def _compact(value: float) -> str:
    if not math.isfinite(value):
        return number(value)
    if value == 0:
        return "0"
    if 0.001 <= value < 100:
        return f"{value:.3g}"
    if 100 <= value < 999_999.5:
        return f"{value:,.0f}"
    return f"{value:.1e}"


def figures(value: float) -> str:
    """As `compact`, but always with three significant digits: 1.00, 0.0980, for columns that are added up."""
    if math.isfinite(value) and 0.001 <= abs(value) < 100:
        return f"{value:#.3g}".removesuffix(".").replace("-", "−")
    return compact(value)


def count(value: int) -> str:
    return f"{value:,}"


def parameters(value: int) -> str:
    """A number of parameters: 2.6 M, 124 M, 1.56 B."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return str(value)


def setting(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") or "0"


def sampler(settings: SamplerSettings) -> str:
    """`T=0.8, top-p 0.9`: only the settings that have an effect; `greedy` at temperature 0."""
    parts = ["greedy" if settings.greedy else f"T={setting(settings.temperature)}"]
    if settings.top_k:
        parts.append(f"top-k {settings.top_k}")
    if settings.top_p < 1:
        parts.append(f"top-p {setting(settings.top_p)}")
    if settings.min_p:
        parts.append(f"min-p {setting(settings.min_p)}")
    if settings.sequential_cuts:
        parts.append("in sequence")
    if settings.repetition_penalty != 1:
        parts.append(f"rep {setting(settings.repetition_penalty)}")
    return ", ".join(parts)


def bar(fraction: float, width: int) -> str:
    """A bar of `width` cells, full at 1, in steps of an eighth of a cell; blank for NaN."""
    if width <= 0:
        return ""
    if math.isnan(fraction):
        return " " * width
    eighths = round(min(1.0, max(0.0, fraction)) * width * 8)
    full, part = divmod(eighths, 8)
    return ("█" * full + (EIGHTHS[part] if part else "")).ljust(width)
