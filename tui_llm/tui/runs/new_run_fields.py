"""The fields of the new-run form: their groups, labels, hints and choices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from textual import events
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.suggester import Suggester
from textual.widget import Widget
from textual.widgets import Button, Select, Static

from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.llm.hub import lookup
from tui_llm.llm.model import switches
from tui_llm.llm.model.device_names import DEVICES
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.training.plan import launch
from tui_llm.training.plan.budget import Plan, start_preset
from tui_llm.training.plan.corpus_check import complete, complete_last, quoted, several
from tui_llm.training.plan.fields import NAMES, adapted, needs_download, resolve_settings, starting_model, text_of
from tui_llm.training.plan.find_lr import RateFinder, tried_settings
from tui_llm.training.plan.first_start import start_or_delete
from tui_llm.training.run import pins, run
from tui_llm.training.run.run import Run, check_name
from tui_llm.training.run.settings import BUDGET, OFF_ON, PRESETS, PRETRAINING, SETTINGS, TrainingSettings, from_fields
from tui_llm.tui.kit.spaces import SpacesHighlighter
from tui_llm.tui.kit.widgets.field import Field

CHOICES = {name: setting.choices for name, setting in SETTINGS.items() if setting.choices} | {
    "preset": tuple(PRESETS),
    "device": DEVICES,
    "shard": OFF_ON,
    "tensorboard": OFF_ON,
}
SEVERAL = "several: separate them by commas; a name with a comma goes in double quotes"
BESIDE = ("nproc", "shard", "tensorboard")  # how a run is executed, besides its settings: no effect on its numbers
MODELS_OWN = ("layers", "heads", "width", "tokenizer", "arch")  # the settings that a model to start from determines
_GROUPS = {
    "Text and vocabulary": ("preset", "minutes", "name", "from_model", "tokenizer", "format", "field",
        "validation_fraction", "shuffle_documents"),
    "Objective": ("objective", "beta", "sft_weight", "length_normalized", "reward", "samples", "answer_tokens", "temperature",
        "advantage", "average", "updates", "clip_ratio", "kl_weight"),
    "Shape": ("layers", "heads", "width", "block_size", "arch", "dropout"),
    "Optimizer and schedule": ("steps", "batch_size", "grad_accumulation_steps", "optimizer", "momentum_warmup_steps",
        "learning_rate", "schedule", "min_learning_rate", "warmup_steps", "decay_fraction", "weight_decay", "cautious_decay", "beta1",
        "beta2", "clip", "ema_decay"),
    "Running": ("device", "nproc", "shard", "threads", "compile", "precision", "tensorboard", "seed",
         "eval_every", "eval_batches", "checkpoint_every", "sample_prompt", "sample_tokens"),
}  # fmt: skip
_PLACED = {name for names in _GROUPS.values() for name in names}
# A setting without a group goes to the end, so that every setting can be changed.
GROUPS = {**_GROUPS, "Running": (*_GROUPS["Running"], *(name for name in NAMES if name not in _PLACED))}

LABELS = {name: name.replace("_", " ") for names in GROUPS.values() for name in names} | {
    "corpus": "corpus",
    "from_model": "start from",
    "arch": "architecture",
    "format": "text format",
    "field": "text field",
    "validation_fraction": "held-out share",
    "min_learning_rate": "lowest rate",
    "sft_weight": "SFT weight",
    "length_normalized": "per token",
    "answer_tokens": "answer tokens",
    "kl_weight": "KL weight",
    "warmup_steps": "warm-up steps",
    "momentum_warmup_steps": "momentum warm-up",
    "ema_decay": "EMA decay",
    "tokenizer": "vocabulary",
    "grad_accumulation_steps": "grad accumulation",  # one line of the form
    "nproc": "processes",
    "tensorboard": "TensorBoard",
}
HINTS = {name: setting.help for name, setting in SETTINGS.items()} | {
    "nproc": "one GPU each; CPU cores are divided",
    "shard": "on: each process holds a shard",
    "tensorboard": "on: also write its event files",
}


def names_for(objective: str) -> list[str]:
    """The settings that have an effect in a run with that objective."""
    return [name for name in NAMES if not SETTINGS[name].objectives or objective in SETTINGS[name].objectives]


def texts_of(text: Callable[[str], str]) -> dict[str, str]:
    """The form's settings as typed, without those that have no effect; `text` returns a field's."""
    return {name: text(name).strip() for name in names_for(text("objective"))}


def show_rows(form: Widget, objective: str) -> None:
    """Hides the settings without an effect."""
    shown = names_for(objective)
    for name in NAMES:
        form.query_one(f"#{name}-row").display = name in shown


def corpus_note(fact: str, objective: str) -> str:
    """What stands under the corpus: what was found there, and how to give several."""
    if objective != PRETRAINING:
        return fact
    return f"{fact} ({SEVERAL})" if fact else SEVERAL


def free_name(corpus: str, preset: str) -> str:
    """A name that no run has yet, such as `tales-toy` or `tales-toy-2`."""
    try:
        first = next(iter(several(corpus)), "")
    except UserError:
        first = corpus
    return run.free_name(first, preset)


def default_texts(preset: str, given: dict[str, str], model: GPTConfig | None, model_name: str) -> dict[str, str]:
    """The text of each field if the user has not changed it: the preset's, or that of the `model` to start from."""
    base = start_preset(preset, given)
    with suppress(UserError):  # the steps are not a number, which the field itself reports
        base = adapted(base, given)
    texts = {name: text_of(base, name) for name in NAMES}
    if model is not None:
        texts |= {"layers": str(model.layers), "heads": str(model.heads), "width": str(model.width),
                  "block_size": str(model.context), "tokenizer": model_name, "arch": ""}  # fmt: skip
    return texts


def shape(preset: str) -> str:
    """What model a preset has, in words."""
    settings = PRESETS[preset]
    if preset == BUDGET:
        return "minutes and machine pick the model"
    more = f", {settings.arch}" if settings.arch else ""
    return f"{settings.layers} layers, {settings.heads} heads, width {settings.width}, {settings.tokenizer}{more}"


Settled = tuple[TrainingSettings, GPTConfig]


def examine(
    given: dict[str, str], preset: str, corpora: list[str]
) -> tuple[GPTConfig | None, Settled | None, dict[str, str]]:
    """The shape of the model to start from, the settings and shape of the run, and the field that is wrong, with why. Slow."""
    model, settled, field = None, None, "from_model"
    try:
        if name := given.get("from_model", PRESETS[preset].from_model):
            model, field = starting_model(name)[1], "block_size"
        else:
            field = "tokenizer" if given.get("objective", PRETRAINING) == PRETRAINING else "from_model"
        if not needs_download(from_fields(given, PRESETS[preset]), corpora):
            settled = resolve_settings(given, start_preset(preset, given), corpora)[:2]
    except UserError as error:
        return model, settled, {field: str(error)}
    return model, settled, {}


def arch_hint(text: str) -> str:
    """What stands beside the architecture switches: what the last one does, and the layout that holds all."""
    try:
        found = switches.parse(text)
    except UserError:
        return ""  # the problem is shown instead
    if not found:
        return HINTS["arch"]
    saved = f"saved as {switches.layout_of(found).title}"
    if text.strip() in switches.SETS:
        return f"{saved}: {', '.join(found)}"
    last = next(one for one in switches.SWITCHES if one.name == list(found)[-1])
    return f"{saved}. {last.name}: {last.sentence}"


class CorpusField(Field):
    """Several corpora, separated by commas. A list with one per line can be pasted."""

    def __init__(self, text: str) -> None:
        hint = "a text file, a folder, stories … (→ completes)"
        super().__init__(text, placeholder=hint, id="corpus", compact=True, suggester=CorpusSuggester())

    def _on_paste(self, event: events.Paste) -> None:  # runs before `Input`'s own handler, which takes one line
        lines = [line.strip() for line in event.text.splitlines() if line.strip()]
        if len(lines) > 1:
            event.text = ", ".join(map(quoted, lines))


class CorpusSuggester(Suggester):
    """Completes the last corpus from the files in its folder."""

    def __init__(self) -> None:
        super().__init__(use_cache=False, case_sensitive=True)

    async def get_suggestion(self, value: str) -> str | None:
        return await asyncio.to_thread(complete_last, value) if value else None


class ModelSuggester(Suggester):
    """Completes the name of a model or run, or a path."""

    def __init__(self) -> None:
        super().__init__(use_cache=False, case_sensitive=True)

    async def get_suggestion(self, value: str) -> str | None:
        return await asyncio.to_thread(_model, value) if value else None


def _model(text: str) -> str | None:
    if "/" in text or text.startswith((".", "~")):
        return complete(text)
    try:
        return next((m.name for m in lookup.every() if m.name.startswith(text) and m.name.isprintable()), None)
    except OSError:
        return None


class SwitchSuggester(Suggester):
    """Completes the last of the architecture switches."""

    def __init__(self) -> None:
        super().__init__(use_cache=False, case_sensitive=True)

    async def get_suggestion(self, value: str) -> str | None:
        before, comma, last = value.rpartition(",")
        names = switches.NAMES if comma else (*switches.NAMES, *switches.SETS)
        found = next((name for name in names if last and name.startswith(last)), None)
        return None if found is None else f"{before}{comma}{found}"


def entry(name: str) -> Widget:
    if name in CHOICES:
        choices = CHOICES[name]
        return Select(
            [(choice, choice) for choice in choices], value=choices[0], allow_blank=False, id=name, compact=True
        )
    suggester: Suggester | None = ModelSuggester() if name in ("from_model", "tokenizer") else None
    suggester = SwitchSuggester() if name == "arch" else suggester
    highlighter = SpacesHighlighter() if name == "sample_prompt" else None  # its spaces count
    return Field("1" if name == "nproc" else None, id=name, compact=True, suggester=suggester, highlighter=highlighter)


def corpus_row(corpus: str) -> Vertical:
    """The corpus's field, wider than the others, and the line below it."""
    line = Horizontal(Static(Content(LABELS["corpus"]), classes="label"), CorpusField(corpus), id="corpus-line")
    return Vertical(line, Static(id="corpus-note", classes="note"), id="corpus-row", classes="row")


def buttons() -> Horizontal:
    return Horizontal(
        Button("Start (ctrl+s)", id="start", variant="primary", compact=True),
        Button("Cancel (Esc)", id="cancel", compact=True),
        Button("Estimate (ctrl+e)", id="measure", compact=True),
        Button("Rate (ctrl+r)", id="find-rate", compact=True),
        id="buttons",
    )


def row(name: str) -> Horizontal:
    """A label, an input, and the hint or problem beside it."""
    return Horizontal(
        Static(Content(LABELS[name]), classes="label"),
        entry(name),
        Static(Content(HINTS.get(name, "")), id=f"{name}-note", classes="note"),
        id=f"{name}-row",
        classes="row",
    )


def create_and_start(
    name: str,
    corpora: list[str],
    given: dict[str, str],
    preset: str,
    device: str,
    beside: dict[str, Any],
    plan: Plan | None = None,
) -> Run:
    """Creates the run and starts its worker; if that fails, there is no run. A run with a time budget has a `plan`: its
    settings are the plan's. Raises `UserError` or OSError."""
    settings, _, found = resolve_settings(given, start_preset(preset, given), corpora)
    folder = found.folder if found else None
    run = launch.create(
        name, corpora, plan.settings if plan else settings, preset=preset, device=device, model=folder,
        pinned=pins.of_user(), **beside,
    )  # fmt: skip
    if plan is not None:
        plan.begin(run)
    start_or_delete(run)
    return run


def rate_finder(corpora: list[str], given: dict[str, str], preset: str, device: str) -> Callable[[], RateFinder]:
    """What starts a search for a learning rate, for the run that these fields describe."""

    def find() -> RateFinder:
        settings, model = tried_settings(given, preset, corpora)
        return RateFinder(settings, corpora, device, model)

    return find


def name_problem(name: str) -> str:
    """Why `name` can't name a new run; empty if it can."""
    try:
        check_name(name)
    except UserError as error:
        return str(error)
    return "a run of this name already exists" if (paths.runs_dir() / name).exists() else ""
