"""A run's state, its newest sample and a pin as text, the same on every screen."""

from __future__ import annotations

from textual.content import Content

from tui_llm.common.display import truncate, visible, visible_token
from tui_llm.facts.pin import Pin
from tui_llm.training.run import pins
from tui_llm.training.run.snapshot import RunSnapshot
from tui_llm.tui.kit import format as fmt

SAMPLE = 2000  # most characters of a sample that are shown

STATES = {
    "new": ("○", "not started"),
    "starting": ("◌", "starting"),
    "running": ("●", "running"),
    "paused": ("‖", "paused"),
    "finished": ("✓", "finished"),
    "stopped": ("■", "stopped"),
    "failed": ("✗", "failed"),
    "died": ("✗", "died"),
    "newer": ("?", "newer"),
    "foreign": ("◇", "other program"),
}

COLOURS = {
    "running": "$text-success",
    "finished": "$text-success",
    "foreign": "$text-muted",
    "failed": "$text-error",
    "died": "$text-error",
}


def state_words(state: str) -> tuple[str, str]:
    """A run's state as a sign with a word, and its style."""
    sign, word = STATES.get(state, ("?", visible(state)))
    return f"{sign} {word}", COLOURS.get(state, "$text-warning")


def pinned_words(pin: Pin, pinned: bool, run: str) -> str:
    """The notification after a pin was added or removed: foreign text."""
    if not pinned:
        return f"unpinned: {truncate(visible(pins.text_of(pin)), 60)}"
    name = truncate(visible(pin.prompt), 40)
    target = truncate(visible_token(pin.target or ""), 24)
    what = f"raw p, loss and rank of {target} after it" if pin.target else "the likeliest next tokens, without a target"
    return f"pinned: {name}; {run or 'the next run'} measures {what}, at each evaluation"


def sample_text(snapshot: RunSnapshot) -> Content:
    """The newest text that the model generated during training."""
    sample = snapshot.sample
    if sample is None:
        return Content.styled("the model's samples appear here after its first evaluation", "$text-muted")
    return Content.assemble(
        (f"at step {fmt.count(sample.step)}: ", "$text-muted"),
        (visible(sample.prompt[:SAMPLE], newlines=True), "bold"),
        visible(sample.text[:SAMPLE], newlines=True),
    )
