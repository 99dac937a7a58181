"""The events of a soak: a sequence that depends on the seed alone, not on what the app shows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from textual._ansi_sequences import ANSI_SEQUENCES_KEYS
from textual.keys import key_to_character

from tui_llm.tui.keymap import BY_ID, COMMANDS
from tui_llm.tui.kit.command import NAMES, PANES, Command

ESCAPE = "\x1b[27u"  # the kitty protocol's form, which is not ambiguous with the start of a sequence
ROUTES = {  # a command's scope → the commands that lead there from the lab
    "app": (),
    "lab": (),
    "prompt": ("type",),
    **{pane: (f"pane_{pane}",) for pane in PANES},
    **{name: ("pane_tokens", name) for name in ("swap", "merges", "vocabularies", "letters", "pairs")},
    "temperatures": ("pane_logits", "temperatures"),
    "learn": ("pane_loss", "learn"),
    **{name: ("pane_training", name) for name in ("batch", "samples", "new_run", "alarms")},
    "find_lr": ("pane_training", "new_run", "find_rate"),
    "log": ("pane_training", "worker_log"),
    "machine": ("pane_training", "machine"),
    "step": ("pane_training", "open_step"),
    "step_row": ("pane_training", "open_step", "step_tokens"),
    "branch": ("pane_training", "open_step", "step_branch"),
    "learned": ("pane_training", "how_it_learned"),
    "draw": ("pane_generate", "show_draw"),
    "draw_many": ("pane_generate", "draw_many"),
    "tree": ("pane_generate", "tree"),
    "models": ("models",),
    "model_info": ("models", "model_info"),
    "runs": ("runs",),
    "foreign": ("runs", "foreign_run"),
    "comparison": ("runs", "mark_run", "tree_line_below", "mark_run", "compare_runs"),
    "compare_models": ("compare_models",),
    "chat": ("chat_open",),
    "sft": ("sft", "close_pairs_form"),
    "guess": ("guess",),
    "ablate": ("ablate_open",),
    **{name: (name,) for name in ("patch", "prefer", "reward", "steer", "why", "heads")},
    "neurons": ("why", "why_table", "tree_line_below", "why_open"),
    "run_heads": ("pane_training", "run_heads"),
    "curves": ("pane_training", "run_curves"),
    "ladder": ("ladder",),
    "new_ladder": ("ladder", "ladder_new"),
    **{
        name: ("inside", "inside_lens", key)
        for name, key in (("block", "inside_block"), ("backward", "inside_backward"), ("lens_grid", "inside_grid"))
    },
    "inside": ("inside",),
    "scratch": ("scratch",),
    "sampler": ("sampler_form",),
    "help": ("help",),
    "pairs_form": ("tour", "tour_next", "tour_answer"),
}
# Sequences that neither Textual nor the app writes: if one is in the output, it was copied from foreign text.
HOSTILE = (
    "\x1b[31;1337m", "\x9b6n", "\x1b]0;title\x07", "\x1b]8;;http://example.invalid\x1b\\link", "\x1bPq\x1b\\", "\x1bc",
    "\x07", "\x08\x08", "\x0e", "\x7f", "\x85", "\x90", "\x9d52;c;aGk=\x9c", "\u202e", "\u2066", "\u200d", "\u2028",
    "\ufeff", "\U000e0041", "\ue000", "\U000f0000", "\x00", "[red]", "[/]", "[link='x", "[@click=app.bell]", "$text",
)  # fmt: skip
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|endoftext|", "<s>", "[INST]", "<0xE2>", "<unk>")
SIZES = ((1, 1), (2, 2), (1, 80), (250, 1), (250, 80), (80, 24), (120, 40), (120, 40), (100, 30), (180, 50))
LETTERS = "etaoinshrdlucmfwypvbgkjqxz      ETAOIN.,;:!?'\"-_()[]{}<>/\\|@#$%^&*+=~`0123456789é日🙂"


def key_bytes() -> dict[str, str]:
    """Returns the bytes that a terminal sends for Textual's key names."""
    found: dict[str, str] = {"alt+enter": "\x1b\r", "alt+f": "\x1bf", "alt+right": "\x1b[1;3C", "escape": ESCAPE}
    for sequence, keys in ANSI_SEQUENCES_KEYS.items():
        if isinstance(keys, tuple) and len(keys) == 1:
            found.setdefault(str(getattr(keys[0], "value", keys[0])), sequence)
    return found


KEYS = key_bytes()
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


def sequence(key: str) -> str:
    """Returns what a terminal sends for the key that Textual names `key`."""
    found = KEYS.get(key) or (key if len(key) == 1 else key_to_character(key)) or NAMES[key]
    assert len(found) == 1 or found.startswith("\x1b"), key
    return found


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the soak.

    `type`: characters that arrive in one read; `resize`: to x × y; `wait`: x seconds pass; `hold`: the engine's answers
    are held back for x events; `grow`: the run makes x steps; `save`: the run writes a checkpoint; `end`, `start`: its
    worker ends or starts.
    """

    kind: str
    text: str = ""
    x: float = 0
    y: float = 0
    count: int = 1  # number of keys in a burst or of repeats of a held key

    def __str__(self) -> str:
        if self.kind == "type":
            shown = ascii(self.text)
            return f"type {shown}" if len(shown) < 120 else f"type {shown[:100]}… ({len(self.text)} characters)"
        return f"{self.kind} {self.x:g}" + (f"×{self.y:g}" if self.kind == "resize" else "")


def typed(*parts: str) -> Event:
    return Event("type", "".join(parts))


def burst(*parts: Event) -> Event:
    """Joins events into one, so that they arrive in a single read."""
    return Event("type", "".join(part.text for part in parts), count=sum(part.count for part in parts))


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
            yield from self._journey() if self._draw.random() < 0.12 else (self._one(),)

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
        if scope == "chat":  # the model with a chat template is in the list's first lines
            yield self._model()
            yield Event("wait", x=1.0)
        for name in ROUTES[scope]:
            yield typed(self._key(BY_ID[name]))
        if scope == "chat":  # it opens with a dialog for the first message
            yield typed("hi", KEYS["enter"])
        for _ in range(draw.randint(2, 16)):
            if draw.random() < 0.75:
                yield self._press(draw.choice(self._by_scope[scope]))
            else:
                yield self._one()

    def _new_text(self) -> Iterator[Event]:
        """Replaces the prompt by a short one, so that pastes do not accumulate."""
        yield typed("i")
        yield typed(KEYS["ctrl+l"], KEYS["f7"], KEYS["backspace"])
        yield typed(self._draw.choice(("The cat sat on the", "Once upon a time", "a", "", "日本", "1 + 1 = ")))
        yield typed(ESCAPE)

    def _press(self, command: Command) -> Event:
        """Presses a key once, twice at once, or holds it."""
        return burst(*[typed(self._key(command))] * self._draw.choice((1, 1, 1, 1, 1, 2, 2, 12)))

    def _one(self) -> Event:
        draw = self._draw
        kinds = (self._command, self._letter, self._special, self._burst, self._mouse, self._paste, self._resize, self._focus,
                 self._model, self._wait, self._hold, self._run)  # fmt: skip
        return draw.choices(kinds, (30, 14, 16, 9, 11, 3, 4, 2, 1, 4, 3, 3))[0]()

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

    def _model(self) -> Event:
        """Opens a model some lines down the list of models, in a single read."""
        keys = (*[ESCAPE] * 3, BY_ID["models"].keys, *[KEYS["down"]] * self._draw.randrange(4), KEYS["enter"])
        return burst(*map(typed, keys))

    def _wait(self) -> Event:
        return Event("wait", x=self._draw.choice((0.3, 0.3, 1.0, 3.0, 12.0)))

    def _hold(self) -> Event:
        return Event("hold", x=self._draw.randint(1, 6))

    def _run(self) -> Event:
        kind = self._draw.choices(("grow", "save", "end", "start"), (70, 15, 7, 8))[0]
        return Event(kind, x=self._draw.choice((1, 1, 5, 50)))
