"""Activation patching of a text, piece by piece; what is computed is kept until the screen closes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from tui_llm.common.errors import Overtaken, UserError
from tui_llm.facts.interventions import PATCH, Intervention, ModelPart
from tui_llm.facts.request import Request
from tui_llm.instruments.answers import answers
from tui_llm.instruments.lens.answer import likeliest
from tui_llm.instruments.patch.question import PatchCell, PatchPiece, PatchQuestion
from tui_llm.instruments.trace import place_in, text_blocks
from tui_llm.llm.model import patching
from tui_llm.llm.model.part_effects import PartEffects
from tui_llm.session.messages import FIRST
from tui_llm.session.open_model import OpenModel

_KEY = "patch"


@dataclass
class _Prompts:
    """Both texts as ids, each at most the context long, and the two tokens whose logits are compared. left_out: how many
    tokens precede each in its text."""

    clean: list[int]
    changed: list[int]
    left_out: tuple[int, int]
    target: int
    rival: int
    clean_difference: float
    changed_difference: float


@dataclass
class _Grid:
    """What is known of one grid."""

    key: object
    prompts: _Prompts
    batches: list[patching.Cells]
    unchanged: list[tuple[int, int]]
    shared: patching.Patching | patching.PartPatching | None  # None: each cell is an intervention of its own
    effects: list[list[float]] = field(default_factory=list)  # of the first batches


@answers(PatchQuestion)
def answer(open_model: OpenModel, question: PatchQuestion, overtaken: Callable[[], bool]) -> PatchPiece:
    """Raises `UserError` if a prompt is empty, they are the same, or target or rival is no token; `Overtaken`."""
    if question.kind not in patching.KINDS:
        raise UserError(f"{question.kind!r} can't be patched; choose from {', '.join(patching.KINDS)}")
    weights, on = open_model.weights(), question.request.interventions
    try:
        grid = _grid(open_model, question, overtaken)
        began, known = time.perf_counter(), min(question.known, len(grid.batches))
        while len(grid.effects) < len(grid.batches):
            late = time.perf_counter() - began > question.seconds and len(grid.effects) > known
            if late:
                break
            if overtaken():
                raise Overtaken
            grid.effects.append(_effects(open_model, grid, question, overtaken))
    finally:
        open_model.intervene(on)
    prompts, shift = grid.prompts, len(grid.prompts.clean) - len(grid.prompts.changed)
    cells = [
        PatchCell(batch.layer, token, effect)
        for batch, effects in zip(grid.batches[known:], grid.effects[known:], strict=False)
        for token, effect in zip(batch.tokens, effects, strict=True)
    ]
    if not known:
        cells += [PatchCell(*cell, prompts.changed_difference) for cell in grid.unchanged]
    aligned = [at + shift for at in range(len(prompts.changed))]
    return PatchPiece(
        weights,
        question.kind,
        tuple(map(open_model.token, prompts.changed)),
        tuple(None if at < 0 else open_model.token(prompts.clean[at]) for at in aligned),
        tuple(range(patching.rows(question.kind, weights.layers))),
        open_model.token(prompts.target),
        open_model.token(prompts.rival),
        prompts.clean_difference,
        prompts.changed_difference,
        tuple(prompts.clean),
        prompts.left_out,
        tuple(cells),
        len(grid.effects),
        len(grid.batches),
    )


def _grid(open_model: OpenModel, question: PatchQuestion, overtaken: Callable[[], bool]) -> _Grid:
    """What is known of the grid; interventions are off afterwards."""
    on = question.request.interventions
    key = dataclasses.replace(question, request=dataclasses.replace(question.request, number=0), known=0, seconds=0.0)
    open_model.intervene(())
    grid: _Grid | None = open_model.screen_cache.get(_KEY)
    if grid is not None and grid.key == key:
        return grid
    open_model.screen_cache.pop(_KEY, None)  # free the old one first
    prompts = _prompts(open_model, question, overtaken)
    weights = open_model.weights()
    shift, cost, same = len(prompts.clean) - len(prompts.changed), None, 0
    shared: patching.Patching | patching.PartPatching | None = None
    pair = prompts.target, prompts.rival
    if not on:
        same = patching.same_start(prompts.clean, prompts.changed)
        if open_model.is_gpt:
            clean, changed = prompts.clean, prompts.changed
            shared = patching.Patching(open_model.gpt, clean, changed, question.kind, pair, overtaken)
            config = shared.model.config
            cost = config.block_matrices()
        else:
            run = PartEffects(text_blocks(open_model, prompts.changed), overtaken=overtaken)
            shared = patching.PartPatching(run, prompts.clean, question.kind, pair)
            cost = run.blocks.work  # every token of a text runs
    batches, unchanged = patching.plan(question.kind, weights.layers, len(prompts.changed), shift, same, cost)
    grid = open_model.screen_cache[_KEY] = _Grid(key, prompts, batches, unchanged, shared)
    return grid


def _effects(open_model: OpenModel, grid: _Grid, question: PatchQuestion, overtaken: Callable[[], bool]) -> list[float]:
    batch = grid.batches[len(grid.effects)]
    if grid.shared is not None:
        return grid.shared.effects(batch, overtaken)
    prompts, (token,) = grid.prompts, batch.tokens
    part, first = ModelPart(question.kind, batch.layer), prompts.left_out[1]
    shift = len(prompts.clean) - len(prompts.changed) - first
    patch = Intervention(part, PATCH, tuple(prompts.clean), shift=shift, at=token + first)
    open_model.intervene((*question.request.interventions, patch))
    logits = _changed_logits(open_model, question.request, prompts.changed, overtaken)
    return [_difference(logits, prompts.target, prompts.rival)]


def _prompts(open_model: OpenModel, question: PatchQuestion, overtaken: Callable[[], bool]) -> _Prompts:
    request = question.request
    position = request.position
    if position == 0:
        raise UserError(FIRST)
    fed, place = place_in(open_model, request, None if position is None else position - 1)
    changed, following = fed[: place.index + 1], fed[place.index + 1 :]
    if not question.clean:
        raise UserError("the clean prompt is empty; type the text whose values are put into this one")
    every = open_model.ids(_whole(question.clean, request))
    clean = every[-open_model.window.context :]
    if clean == changed:
        raise UserError("both prompts have the same tokens, so a patch changes nothing; change a word of one of them")
    before = _logits(open_model, clean, overtaken)  # without interventions: a patch takes its values from this pass
    open_model.intervene(request.interventions)
    after = _changed_logits(open_model, request, changed, overtaken)
    wanted = request.target
    if wanted is None or wanted.likeliest:
        target = likeliest(before, 1)[0]
    else:
        target = open_model.target_ids(wanted, request, following, overtaken)[0]
    if question.rival is None:
        rival = next((id for id in likeliest(after, 2) if id != target), target)
    else:
        rival = open_model.target_ids(question.rival, request, following, overtaken)[0]
    if rival == target:
        raise UserError("target and rival are the same token, so their logits can't differ; give another rival")
    open_model.intervene(())
    return _Prompts(
        clean,
        changed,
        (len(every) - len(clean), place.first),
        target,
        rival,
        _difference(before, target, rival),
        _difference(after, target, rival),
    )


def _whole(text: str, request: Request) -> Request:
    """The request for another prompt."""
    return dataclasses.replace(request, prompt=text, continuation=(), position=None, overrides=())


def _changed_logits(
    open_model: OpenModel, request: Request, changed: list[int], overtaken: Callable[[], bool]
) -> torch.Tensor:
    """The logits after `changed`, of the window of the whole text: interventions count tokens from the text's start."""
    open_model.ids(request)  # says which token number the window begins with
    return _logits(open_model, changed, overtaken)


def _logits(open_model: OpenModel, ids: Sequence[int], overtaken: Callable[[], bool]) -> torch.Tensor:
    open_model.feed(list(ids), overtaken)
    return torch.as_tensor(open_model.window.logits())


def _difference(logits: torch.Tensor, target: int, rival: int) -> float:
    return float(logits[target].double() - logits[rival].double())
