"""The moment that all panes show: prompt, continuation, sampler, target. One place holds it; no Textual here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from tui_llm.llm.sampler import SamplerSettings
from tui_llm.reading import Candidate, GeneratedToken, Request, Target

VOCABULARIES: tuple[str | None, ...] = (None, "gpt2", "cl100k_base", "o200k_base", "word", "char", "byte")
TEMPERATURES = (
    0.0,
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
    1.0,
    1.1,
    1.2,
    1.3,
    1.4,
    1.5,
    1.6,
    1.7,
    1.8,
    1.9,
    2.0,
)
TOP_PS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 1.0)
LARGEST_SEED = 9999
END_OF_TEXT = "<|endoftext|>"


def step(values: tuple[float, ...], now: float, direction: int) -> float:
    """The next value up (+1) or down (−1) from `now`, which need not be one of them; stays at the ends."""
    if direction > 0:
        return next((value for value in values if value > now + 1e-9), now)
    return next((value for value in reversed(values) if value < now - 1e-9), now)


@dataclass(slots=True)
class Lab:
    prompt: str
    sampler: SamplerSettings = field(default_factory=lambda: SamplerSettings(temperature=0.8, top_p=0.9))
    target: Target | None = None
    tokenizer: str | None = None
    allow_special: bool = False
    start_token: bool = False
    chat: bool = False
    seed: int = 1
    steps: tuple[GeneratedToken, ...] = ()
    streaming: bool = False
    note: str = ""  # why the last generation stopped, or what became of its tokens
    number: int = 0  # of the newest request

    @property
    def continuation(self) -> tuple[int, ...]:
        return tuple(step.id for step in self.steps)

    @property
    def generated_text(self) -> str:
        return "".join(step.text for step in self.steps)

    def request(self, top: int = 200) -> Request:
        """The question that this moment asks, under a new number."""
        self.number += 1
        return Request(
            number=self.number,
            prompt=self.prompt,
            continuation=self.continuation,
            allow_special=self.allow_special,
            start_token=self.start_token,
            sampler=self.sampler,
            target=self.target,
            tokenizer=self.tokenizer,
            top=top,
            chat=self.chat,
        )

    def warm(self, direction: int) -> None:
        temperature = step(TEMPERATURES, self.sampler.temperature, direction)
        self.sampler = dataclasses.replace(self.sampler, temperature=temperature)

    def widen(self, direction: int) -> None:
        self.sampler = dataclasses.replace(self.sampler, top_p=step(TOP_PS, self.sampler.top_p, direction))

    def next_vocabulary(self) -> None:
        at = VOCABULARIES.index(self.tokenizer) if self.tokenizer in VOCABULARIES else -1
        self.tokenizer = VOCABULARIES[(at + 1) % len(VOCABULARIES)]

    def propose_target(self, candidates: Sequence[Candidate]) -> bool:
        """Where no target was ever chosen: the likeliest token, so that there is a loss to look at."""
        if self.target is not None or not candidates:
            return False
        first = candidates[0]
        try:
            self.target = Target(text=first.bytes.decode())
        except UnicodeDecodeError:
            self.target = Target(id=first.id)
        return True

    def toggle_leading_space(self) -> bool:
        """Adds or removes the space before a typed target. False where the target is a table's row (its bytes are
        what they are) or there is none."""
        if self.target is None or self.target.text is None:
            return False
        text = self.target.text
        self.target = Target(text=text[1:] if text.startswith(" ") else " " + text)
        return True

    def undo(self) -> bool:
        if not self.steps:
            return False
        self.steps = self.steps[:-1]
        return True

    def clear(self, note: str = "") -> bool:
        had, self.steps, self.note = bool(self.steps), (), note
        return had
