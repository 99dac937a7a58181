"""Undo and redo for every change of the text: typed, pasted and generated, token ids included.

A change stores only the difference, so a small change to a long text needs little memory. Code that changes the text
need not report each change: `record` compares the text with the one it saw last. Imports no Textual.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

from tui_llm.facts.interventions import Intervention
from tui_llm.facts.prediction import GeneratedToken

Steps = tuple[GeneratedToken, ...]
Parts = tuple[Intervention, ...]
MOST_CHANGES = 500
MOST_SIZE = 4_000_000  # characters, summed over all changes; a generated token counts as `STEP_SIZE`
STEP_SIZE = 500
BURST_SECONDS = 2.0  # letters typed in a row are one change until such a pause
BURST_LENGTH = 80


@dataclass(frozen=True, slots=True)
class TextChange:
    """One change of the text.

    In the prompt, `inserted` replaced `removed` at character `at`. The first `kept` generated tokens are unchanged;
    after them, the tokens `gained` replaced the tokens `lost`. Or the model's parts changed: `parts` are the
    interventions before and after, and the text stayed as it was.
    """

    at: int
    removed: str
    inserted: str
    kept: int
    lost: Steps
    gained: Steps
    burst: object = None  # changes of the same burst are merged into one
    parts: tuple[Parts, Parts] | None = None

    @property
    def size(self) -> int:
        return len(self.removed) + len(self.inserted) + STEP_SIZE * (len(self.lost) + len(self.gained)) + 100

    @property
    def added(self) -> str:
        """The text that undo removes."""
        return self.inserted + "".join(step.text for step in self.gained)

    @property
    def taken(self) -> str:
        """The text that undo restores."""
        return self.removed + "".join(step.text for step in self.lost)

    def inverse(self) -> TextChange:
        parts = None if self.parts is None else (self.parts[1], self.parts[0])
        return TextChange(self.at, self.inserted, self.removed, self.kept, self.gained, self.lost, parts=parts)

    def apply(self, prompt: str, steps: Steps) -> tuple[str, Steps]:
        return (
            prompt[: self.at] + self.inserted + prompt[self.at + len(self.removed) :],
            (*steps[: self.kept], *self.gained),
        )


def common_start(a: str, b: str) -> int:
    """The number of leading characters that two texts share. Compares slices: a megabyte takes a millisecond."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def common_end(a: str, b: str, most: int) -> int:
    """The number of trailing characters that two texts share, at most `most`."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if a[len(a) - middle : len(a) - low] == b[len(b) - middle : len(b) - low]:
            low = middle
        else:
            high = middle - 1
    return low


def difference(prompt: str, steps: Steps, new_prompt: str, new_steps: Steps, burst: object = None) -> TextChange:
    at = common_start(prompt, new_prompt)
    end = common_end(prompt, new_prompt, min(len(prompt), len(new_prompt)) - at)
    removed, inserted = prompt[at : len(prompt) - end], new_prompt[at : len(new_prompt) - end]
    if end and not (removed and inserted):
        back = _shift_to_space(prompt[:at], inserted or removed)
        at -= back
        removed, inserted = prompt[at : len(prompt) - end - back], new_prompt[at : len(new_prompt) - end - back]
    shared = zip(steps, new_steps, strict=False)
    kept = next((i for i, (old, new) in enumerate(shared) if old != new), min(len(steps), len(new_steps)))
    return TextChange(at, removed, inserted, kept, steps[kept:], new_steps[kept:], burst)


def _shift_to_space(before: str, text: str) -> int:
    """How far back the insertion of `text` after `before` can be moved so that it starts with a space: inserting "wo t"
    into "one t|hree" is the same as inserting " two" before the space."""
    for back in range(min(len(before), len(text), BURST_LENGTH)):
        if (text[len(text) - back :] + text)[:1].isspace():
            return back
        if before[len(before) - 1 - back] != text[len(text) - 1 - back]:
            break
    return 0


class History:
    """The current text, and the changes that can be undone and redone."""

    def __init__(self, prompt: str = "", steps: Steps = ()) -> None:
        self.prompt = prompt
        self.steps = steps
        self.interventions: Parts = ()
        self._undo: list[TextChange] = []
        self._redo: list[TextChange] = []
        self._size = 0
        self._recorded_at = 0.0
        self._before: tuple[str, Steps] | None = None  # the text before the last change; None: start a new change

    # ── recording changes ────────────────────────────────────────────────────────────────────────────────────────

    def record(self, prompt: str, steps: Steps, burst: object = None, now: float | None = None) -> bool:
        """Records the current text. Returns False if it has not changed.

        Changes with the same `burst` (such as the number of a stream) are merged into one change, and so are letters
        typed, or deleted, without a pause.
        """
        if prompt == self.prompt and (steps is self.steps or steps == self.steps):
            return False
        now = time.monotonic() if now is None else now
        change = difference(self.prompt, self.steps, prompt, steps, burst)
        self._drop_redo()
        before = self._undo[-1] if self._undo else None
        start, self._before = self._before, (self.prompt, self.steps)
        if before is not None and start is not None:
            whole = difference(*start, prompt, steps)
            merged = _merged(before, change, whole, now - self._recorded_at < BURST_SECONDS)
            if merged is not None:
                self._size -= self._undo.pop().size
                change, self._before = merged, start
        self.prompt, self.steps, self._recorded_at = prompt, steps, now
        self._push(change)
        return True

    def record_parts(self, interventions: Parts) -> None:
        """Records a change of the model's parts; record the text first."""
        if interventions == self.interventions:
            return
        self._drop_redo()
        change = TextChange(0, "", "", len(self.steps), (), (), parts=(self.interventions, interventions))
        self.interventions, self._before = interventions, None
        self._push(change)

    def _drop_redo(self) -> None:
        self._size -= sum(gone.size for gone in self._redo)
        self._redo.clear()

    def _push(self, change: TextChange) -> None:
        self._undo.append(change)
        self._size += change.size
        while len(self._undo) > 1 and (len(self._undo) > MOST_CHANGES or self._size > MOST_SIZE):
            self._size -= self._undo.pop(0).size

    def forget_steps(self, *, keep_parts: bool = False) -> None:
        """Drops the generated tokens: when another model is opened, as their ids belong to the old vocabulary, and when
        the prompt becomes tokens in another way (then with `keep_parts`), as they were drawn after other tokens. Typed
        text can still be undone; so can, with `keep_parts`, changes of the model's parts."""
        self.steps, self._before = (), None
        for kept in (self._undo, self._redo):
            kept[:] = [
                TextChange(change.at, change.removed, change.inserted, 0, (), (), parts=change.parts)
                for change in kept
                if change.removed or change.inserted or (keep_parts and change.parts is not None)
            ]
        self._size = sum(change.size for change in (*self._undo, *self._redo))

    # ── undo and redo ────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def next_undo(self) -> TextChange | None:
        """The change that `undo` reverts."""
        return self._undo[-1] if self._undo else None

    @property
    def next_redo(self) -> TextChange | None:
        """The change that `redo` repeats."""
        return self._redo[-1] if self._redo else None

    def undo(self) -> TextChange | None:
        """Reverts the last change and returns it; None if there is none."""
        if not self._undo:
            return None
        change = self._undo.pop()
        self._redo.append(change)
        self._apply(change.inverse())
        self._before = None  # typing after an undo starts a new change
        return change

    def redo(self) -> TextChange | None:
        """Repeats the change that was undone last and returns it; None if there is none."""
        if not self._redo:
            return None
        change = self._redo.pop()
        self._undo.append(change)
        self._apply(change)
        self._before = None
        return change

    def _apply(self, change: TextChange) -> None:
        if change.parts is not None:
            self.interventions = change.parts[1]
        else:
            self.prompt, self.steps = change.apply(self.prompt, self.steps)


def _merged(before: TextChange, change: TextChange, whole: TextChange, no_pause: bool) -> TextChange | None:
    """`before` and `change` merged into one, or None if they stay separate. `whole` is the difference that both make."""
    if before.burst is not None or change.burst is not None:
        only_generated = not (change.removed or change.inserted or change.lost or before.lost)
        same = before.burst == change.burst
        return dataclasses.replace(whole, burst=before.burst) if only_generated and same else None
    if not no_pause or change.lost or change.gained or before.gained:
        return None
    grown, shrunk = len(whole.inserted) - len(before.inserted), len(whole.removed) - len(before.removed)
    if len(change.inserted) == 1 and not change.removed:
        # Merge a letter typed next to the last one, up to the next space: undo then removes a word with its space.
        new_word = change.inserted.isspace() and not before.inserted[-1:].isspace()
        adjacent = (grown, shrunk) == (1, 0) and 0 < len(before.inserted) < BURST_LENGTH
        return whole if adjacent and not new_word else None
    if len(change.removed) == 1 and not change.inserted and not before.inserted:
        return whole if shrunk == 1 and not whole.inserted and 0 < len(before.removed) < BURST_LENGTH else None
    return None
