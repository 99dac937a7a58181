"""The events of a soak: a sequence that depends on the seed alone, not on what the app shows."""

from __future__ import annotations

import random
from collections.abc import Iterator

from soak_routes import ESCAPE, KEYS, ROUTES, WAIT, Event, burst, route, sequence, typed

from tui_llm.tui.keymap import BY_ID, COMMANDS
from tui_llm.tui.kit.command import Command

# Sequences that neither Textual nor the app writes: if one is in the output, it was copied from foreign text.
HOSTILE = (
    "\x1b[31;1337m", "\x9b6n", "\x1b]0;title\x07", "\x1b]8;;http://example.invalid\x1b\\link", "\x1bPq\x1b\\", "\x1bc",
    "\x07", "\x08\x08", "\x0e", "\x7f", "\x85", "\x90", "\x9d52;c;aGk=\x9c", "\u202e", "\u2066", "\u200d", "\u2028",
    "\ufeff", "\U000e0041", "\ue000", "\U000f0000", "\x00", "[red]", "[/]", "[link='x", "[@click=app.bell]", "$text",
)  # fmt: skip
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|endoftext|", "<s>", "[INST]", "<0xE2>", "<unk>")
SIZES = ((1, 1), (2, 2), (1, 80), (250, 1), (250, 80), (80, 24), (120, 40), (120, 40), (100, 30), (180, 50))
LETTERS = "etaoinshrdlucmfwypvbgkjqxz      ETAOIN.,;:!?'\"-_()[]{}<>/\\|@#$%^&*+=~`0123456789é日🙂"


SPECIALS = tuple(
    KEYS[name]
    for name in [
        "up",
        "down",
        "left",
        "right",
        "home",
        "end",
        "pageup",
        "pagedown",
        "tab",
        "shift+tab",
        "enter",
        "space",
        "backspace",
        "delete",
        "f1",
        "f2",
        "f3",
        "f4",
        "f5",
        "f7",
        "ctrl+p",
        "ctrl+o",
        "ctrl+l",
        "ctrl+y",
        "ctrl+e",
        "ctrl+u",
        "ctrl+w",
        "ctrl+k",
        "ctrl+a",
        "ctrl+z",
        "ctrl+x",
        "ctrl+c",
        "ctrl+v",
        "ctrl+s",
        "ctrl+q",
        "ctrl+left",
        "ctrl+right",
        "shift+left",
        "shift+right",
        "shift+up",
        "shift+down",
        "ctrl+home",
        "ctrl+end",
        "alt+right",
        "alt+enter",
    ]
    if name in KEYS
)


class Events:
    """An infinite iterator; the first k events of a seed are always the same."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._size = (120, 40)
        missing = {command.scope for command in COMMANDS} - set(ROUTES)
        if missing:
            raise ValueError(f"say in ROUTES how to reach {', '.join(sorted(missing))}")
        self._by_scope = {scope: [c for c in COMMANDS if c.scope == scope] for scope in ROUTES}

    def __iter__(self) -> Iterator[Event]:
        while True:
            yield from self._journey() if self._draw.random() < 0.12 else self._one()

    def _key(self, command: Command) -> str:
        return sequence(self._draw.choice(command.keys.split(",")))

    def _journey(self) -> Iterator[Event]:
        """Returns to the lab, opens a screen, and presses some of its keys."""
        draw = self._draw
        scope = draw.choice(list(ROUTES))
        for _ in range(4):
            yield typed(ESCAPE)
        if draw.random() < 0.3:
            yield from self._new_text()
        if draw.random() < 0.2:
            self._size = (120, 40)
            yield Event("resize", x=120, y=40)
        yield from route(scope, lambda command: draw.choice(command.keys.split(",")))
        for _ in range(draw.randint(2, 16)):
            if draw.random() < 0.75:
                yield self._press(draw.choice(self._by_scope[scope]))
            else:
                yield from self._one()

    def _new_text(self) -> Iterator[Event]:
        """Replaces the prompt by a short one, so that pastes do not accumulate."""
        yield typed("i")
        yield typed(KEYS["ctrl+l"], KEYS["f7"], KEYS["backspace"])
        yield typed(self._draw.choice(("The cat sat on the", "Once upon a time", "a", "", "日本", "1 + 1 = ")))
        yield typed(ESCAPE)

    def _press(self, command: Command) -> Event:
        """Presses a key once, twice at once, or holds it."""
        return burst(*[typed(self._key(command))] * self._draw.choice((1, 1, 1, 1, 1, 2, 2, 12)))

    def _one(self) -> tuple[Event, ...]:
        draw = self._draw
        kinds = (self._command, self._letter, self._special, self._burst, self._mouse, self._paste, self._resize, self._focus,
                 self._model, self._model_burst, self._wait, self._hold, self._run)  # fmt: skip
        found = draw.choices(kinds, (30, 14, 16, 9, 11, 3, 4, 2, 1, 1, 4, 3, 3))[0]()
        return found if isinstance(found, tuple) else (found,)

    def _command(self) -> Event:
        return self._press(self._draw.choice(COMMANDS))

    def _letter(self) -> Event:
        return typed(self._draw.choice(LETTERS))

    def _special(self) -> Event:
        return typed(self._draw.choice(SPECIALS))

    def _burst(self) -> Event:
        """Several events in a single read: two closing keys, type-ahead, a click among keys."""
        draw = self._draw
        if draw.random() < 0.3:
            return burst(*[typed(draw.choice((ESCAPE, KEYS["enter"])))] * draw.choice((2, 2, 3, 8)))
        parts = (self._command, self._letter, self._special, self._mouse)
        return burst(*(draw.choice(parts)() for _ in range(draw.randint(2, 10))))

    def _mouse(self) -> Event:
        draw = self._draw
        x, y = draw.randint(1, self._size[0]), draw.randint(1, self._size[1])
        if draw.random() < 0.3:  # the top and bottom lines, where keys can be clicked
            y = draw.choice((1, self._size[1], max(1, self._size[1] - 1)))
        button = draw.choice((0, 0, 0, 0, 2, 64, 65, 35))
        if button == 35:
            return typed(f"\x1b[<35;{x};{y}M")
        if button >= 64:
            return burst(*[typed(f"\x1b[<{button};{x};{y}M")] * draw.choice((1, 3, 10)))
        if draw.random() < 0.1:  # dragged
            to = f"{draw.randint(1, self._size[0])};{draw.randint(1, self._size[1])}"
            return typed(f"\x1b[<{button};{x};{y}M", f"\x1b[<{button + 32};{to}M", f"\x1b[<{button};{to}m")
        return burst(*[typed(f"\x1b[<{button};{x};{y}M\x1b[<{button};{x};{y}m")] * draw.choice((1, 1, 1, 2, 3)))

    def _paste(self) -> Event:
        draw = self._draw
        count = draw.choice((1, 5, 50, 50, 500, 5000))
        kind = draw.randrange(5)
        if kind == 0:
            text = "".join(draw.choice((*HOSTILE, *LETTERS)) for _ in range(min(count, 500)))
        elif kind == 1:
            text = "the cat sat on the mat. " * (count // 24 + 1)
        elif kind == 2:
            text = draw.choice(SPECIAL_TOKENS) * (min(count, 500) // 10 + 1)
        elif kind == 3:
            text = "".join(chr(draw.choice((draw.randrange(32, 127), draw.randrange(0xA0, 0x3000), draw.randrange(0x4E00, 0xA000),
                           draw.randrange(0x1F300, 0x1FB00), draw.randrange(0x300, 0x370), 9, 10))) for _ in range(count))  # fmt: skip
        else:
            codes = (draw.randrange(1, 0x110000) for _ in range(min(count, 500)))
            text = "".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000)
        return typed("\x1b[200~", text.replace("\x1b[201~", ""), "\x1b[201~")

    def _resize(self) -> Event:
        draw = self._draw
        near = (draw.randint(1, 250), draw.randint(1, 80)), (draw.randint(1, 30), draw.randint(1, 12))
        self._size = draw.choice((*SIZES, *near))
        return Event("resize", x=self._size[0], y=self._size[1])

    def _focus(self) -> Event:
        return typed(self._draw.choice(("\x1b[O", "\x1b[I", "\x1b[O\x1b[I", "\x1b[I\x1b[O")))

    def _model(self) -> tuple[Event, ...]:
        """Opens a model some lines down the list of models."""
        chosen = (*[KEYS["down"]] * self._draw.randrange(5), KEYS["enter"])
        return *[typed(ESCAPE)] * 3, typed(BY_ID["models"].keys), WAIT, burst(*map(typed, chosen)), WAIT

    def _model_burst(self) -> Event:
        """The same in a single read: before the list is there."""
        keys = (*[ESCAPE] * 3, BY_ID["models"].keys, *[KEYS["down"]] * self._draw.randrange(4), KEYS["enter"])
        return burst(*map(typed, keys))

    def _wait(self) -> Event:
        return Event("wait", x=self._draw.choice((0.3, 0.3, 1.0, 3.0, 12.0)))

    def _hold(self) -> Event:
        return Event("hold", x=self._draw.randint(1, 6))

    def _run(self) -> Event:
        kind = self._draw.choices(("grow", "save", "end", "start"), (70, 15, 7, 8))[0]
        return Event(kind, x=self._draw.choice((1, 1, 5, 50)))
