"""The way to each screen of a soak, from the lab with a model and a text, and the events that keys are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from textual._ansi_sequences import ANSI_SEQUENCES_KEYS
from textual.keys import key_to_character

from tui_llm.tui.keymap import BY_ID
from tui_llm.tui.kit.command import NAMES, PANES, Command

ESCAPE = "\x1b[27u"  # the kitty protocol's form, which is not ambiguous with the start of a sequence


def key_bytes() -> dict[str, str]:
    """Returns the bytes that a terminal sends for Textual's key names."""
    found: dict[str, str] = {"alt+enter": "\x1b\r", "alt+f": "\x1bf", "alt+right": "\x1b[1;3C", "escape": ESCAPE}
    for sequence, keys in ANSI_SEQUENCES_KEYS.items():
        if isinstance(keys, tuple) and len(keys) == 1:
            found.setdefault(str(getattr(keys[0], "value", keys[0])), sequence)
    return found


KEYS = key_bytes()


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


WAIT = Event("wait", x=1.0)
ENTER, DOWN = typed(KEYS["enter"]), typed(KEYS["down"])
FOREIGN = "./foreign"  # checkpoints of another program, in the working folder
CORPUS = "./corpus.txt"

# A command's scope → the ids of commands, and other events, that lead there from the lab.
ROUTES: dict[str, tuple[str | Event, ...]] = {
    "app": (),
    "lab": (),
    "prompt": ("type",),
    **{pane: (f"pane_{pane}",) for pane in PANES},
    **{name: ("pane_tokens", name) for name in ("swap", "merges", "vocabularies", "letters", "pairs")},
    "temperatures": ("pane_logits", "temperatures"),
    "learn": ("pane_loss", "learn"),
    **{name: ("pane_training", name) for name in ("batch", "samples", "new_run", "alarms")},
    "find_lr": ("pane_training", "new_run", typed(CORPUS), WAIT, WAIT, "find_rate", WAIT),
    "log": ("pane_training", "worker_log"),
    "machine": ("pane_training", "machine"),
    "step": ("pane_training", WAIT, "open_step", WAIT),
    "step_row": ("pane_training", WAIT, "open_step", *[WAIT] * 8, "step_tokens"),
    "branch": ("pane_training", WAIT, "open_step", *[WAIT] * 8, "step_branch"),
    "learned": ("pane_training", "how_it_learned"),
    "draw": ("pane_generate", "show_draw"),
    "draw_many": ("pane_generate", "draw_many"),
    "tree": ("pane_generate", "tree"),
    "models": ("models",),
    "model_info": ("models", "model_info"),
    "runs": ("runs",),
    "foreign": ("runs", WAIT, "foreign_run", WAIT, typed(FOREIGN), ENTER, WAIT),
    "comparison": ("runs", WAIT, "mark_run", DOWN, "mark_run", "compare_runs"),
    "compare_models": ("compare_models", WAIT, typed("copied"), ENTER, WAIT),
    "chat": ("models", WAIT, DOWN, DOWN, DOWN, ENTER, WAIT, "chat_open", WAIT, typed("hi"), ENTER),
    "sft": ("sft", WAIT, "close_pairs_form"),
    "guess": ("guess",),
    "ablate": ("ablate_open",),
    **{name: (name,) for name in ("prefer", "reward", "steer", "why", "heads")},
    "patch": ("patch", WAIT, typed("The dog sat on the"), ENTER, WAIT),
    "neurons": ("why", WAIT, DOWN, "why_open", WAIT),
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
    "pairs_form": ("sft", WAIT),
}

# A command's scope → the class of the screen that its route leads to, and the focused pane.
ARRIVES = {
    **dict.fromkeys(("app", "lab"), "LabScreen"), "prompt": "LabScreen prompt", **{pane: f"LabScreen {pane}" for pane in PANES},
    "swap": "SwapScreen", "merges": "MergesScreen", "vocabularies": "VocabulariesScreen", "letters": "LettersScreen", "pairs": "PairsScreen",
    "temperatures": "TemperaturesScreen", "learn": "LearnScreen", "batch": "BatchScreen", "samples": "SamplesScreen", "new_run": "NewRunScreen",
    "alarms": "AlarmsScreen", "find_lr": "FindRateScreen", "log": "LogScreen", "machine": "MachineScreen", "step": "ReplayScreen",
    "step_row": "StepRowScreen", "branch": "BranchScreen", "learned": "LearnedScreen", "draw": "DrawScreen", "draw_many": "DrawManyScreen",
    "tree": "TreeScreen", "models": "ModelsScreen", "model_info": "ModelInfoScreen", "runs": "RunsScreen", "foreign": "ForeignScreen",
    "comparison": "CompareScreen", "compare_models": "CompareModelsScreen", "chat": "ChatScreen", "sft": "SftScreen", "guess": "GuessScreen",
    "ablate": "AblateScreen", "patch": "PatchScreen", "prefer": "PreferScreen", "reward": "RewardScreen", "steer": "SteerScreen",
    "why": "WhyScreen", "heads": "HeadsScreen", "neurons": "NeuronsScreen", "run_heads": "RunHeadsScreen", "curves": "CurvesScreen",
    "ladder": "LadderScreen", "new_ladder": "NewLadderScreen", "block": "BlockScreen", "backward": "BackwardScreen", "lens_grid": "LensGridScreen",
    "inside": "InsideScreen", "scratch": "ScratchScreen", "sampler": "SamplerScreen", "help": "HelpScreen", "pairs_form": "InstructionPairsScreen",
}  # fmt: skip


def route(scope: str, choose: Callable[[Command], str] = lambda command: command.keys.split(",")[0]) -> Iterator[Event]:
    """Yields the events that lead from the lab to a screen; `choose` chooses one of a command's keys."""
    for part in ROUTES[scope]:
        yield part if isinstance(part, Event) else typed(sequence(choose(BY_ID[part])))
