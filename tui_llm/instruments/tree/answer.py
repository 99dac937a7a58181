"""Predictions after many continuations of one text, in as few forward passes as possible.

The text's keys and values are cached between questions. All paths of a question are run as one tree, shared prefixes
once, in a single forward pass (`llm/predict/tree_attention.py`). If text and path together exceed the context, the window
slides as in generation, and each path takes its own pass. So does every path of a model that runs through transformers.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tui_llm.common.errors import Overtaken, UserError
from tui_llm.facts.prediction import Candidate
from tui_llm.facts.request import Request
from tui_llm.instruments.answers import answers
from tui_llm.instruments.tree.question import (
    Branches,
    BranchPoint,
    BranchQuestion,
    Known,
    KnownQuestion,
    NextToken,
    Path,
    SampleQuestion,
)
from tui_llm.llm.model import device
from tui_llm.llm.model.model import KVCache
from tui_llm.llm.predict.distribution import Processed, process
from tui_llm.llm.predict.generate import uniform
from tui_llm.llm.predict.softmax import Array
from tui_llm.llm.predict.tree_attention import tree_features
from tui_llm.session.open_model import OpenModel

_CHUNK = 256  # tokens per forward pass; `overtaken` is checked between passes
_TEXT = "tree: the text's keys and values"


@answers(KnownQuestion)
def known(open_model: OpenModel, question: KnownQuestion, overtaken: Callable[[], bool]) -> Known:
    """Raises `UserError` if an id is not in the vocabulary."""
    _check(open_model, question.ids)
    text = tuple(open_model.ids(question.request))
    before = (*(text[-1:] or (None,)), *question.ids)  # the ids that each follows
    ends = frozenset(filter(open_model.tokenizer.ends, question.ids))
    return Known(open_model.weights(), text, tuple(map(open_model.token, question.ids, before)), ends)


@answers(BranchQuestion)
def branches(open_model: OpenModel, question: BranchQuestion, overtaken: Callable[[], bool]) -> Branches:
    """Raises `UserError` if there is no text, or an id is not in the vocabulary; `Overtaken`."""
    began = time.perf_counter()
    asked = _Asked(open_model, question.request, overtaken)
    for path in question.paths:
        _check(open_model, path)
    found = []
    text = open_model.ids(question.request)
    for path, processed in zip(question.paths, asked.after(question.paths), strict=True):
        rows = processed.likeliest(question.count, open_model.bytes_of)
        before = (*text, *path)
        nexts = (_next(open_model, processed, row, before) for row in rows if row.logit > -math.inf)
        found.append(BranchPoint(path, tuple(nexts)))
    return Branches(open_model.weights(), tuple(found), asked.run, (time.perf_counter() - began) * 1000)


@answers(SampleQuestion)
def sample(open_model: OpenModel, question: SampleQuestion, overtaken: Callable[[], bool]) -> Branches:
    """Raises as `branches` does."""
    began = time.perf_counter()
    asked = _Asked(open_model, question.request, overtaken)
    settings = question.request.sampler
    path, found, text = question.path, [], open_model.ids(question.request)
    _check(open_model, path)
    for _ in range(question.count):
        processed = asked.after([path])[0]
        u = None if settings.greedy else uniform(question.seed, len(question.request.continuation) + len(path))
        row = processed.row(0 if u is None else processed.place(u), open_model.bytes_of)
        found.append(BranchPoint(path, (_next(open_model, processed, row, (*text, *path), u),)))
        path = (*path, row.id)
        if open_model.tokenizer.ends(row.id):
            break
    return Branches(open_model.weights(), tuple(found), asked.run, (time.perf_counter() - began) * 1000)


def _check(open_model: OpenModel, ids: Sequence[int]) -> None:
    for id in ids:
        if not 0 <= id < open_model.tokenizer.size:
            raise UserError(f"there is no token {id}; ids go from 0 to {open_model.tokenizer.size - 1}")


def _next(
    open_model: OpenModel, processed: Processed, row: Candidate, before: Sequence[int], u: float | None = None
) -> NextToken:
    """`before`: the ids that the token follows."""
    log_p = min(0.0, row.logit - processed.sorted.logsumexp)  # stays finite where p underflows
    ends = open_model.tokenizer.ends(row.id)
    return NextToken(open_model.token(row.id, before[-1]), log_p, row.probability, row.rank, u, ends)


class _Asked:
    """The evaluation of one question: the request's text once, then the paths after it. `run` counts the tokens run."""

    def __init__(self, open_model: OpenModel, request: Request, overtaken: Callable[[], bool]) -> None:
        self.open_model, self.request, self.overtaken, self.run = open_model, request, overtaken, 0
        self.text = open_model.ids(request)
        if not self.text:
            raise UserError("there is nothing to continue yet: type some text, or put <|endoftext|> in front")

    def after(self, paths: Sequence[Path]) -> list[Processed]:
        """The prediction after each path."""
        room = self.open_model.weights().context - len(self.text)
        together = [path for path in paths if len(path) <= room] if self.open_model.is_gpt else []
        logits = dict(zip(together, self._together(together), strict=True)) if together else {}
        return [self._processed(path, logits.get(path)) for path in paths]

    def _processed(self, path: Path, logits: Tensor | Array | None) -> Processed:
        if self.overtaken():
            raise Overtaken
        if logits is None:
            request = dataclasses.replace(self.request, continuation=(*self.request.continuation, *path), position=None)
            before = self.open_model.forward_tokens
            logits = self.open_model.logits(request, self.overtaken)
            self.run += self.open_model.forward_tokens - before
        with device.threads(self.open_model.tokenizer.size):
            return process(logits, self.request.sampler, [*self.text, *path])

    def _together(self, paths: Sequence[Path]) -> list[Tensor]:
        """Logits (V,) after each path, in one forward pass. The paths must fit into the context."""
        features, cache = self._read_text()
        places: dict[Path, int] = {}
        ids: list[int] = []
        parents: list[int] = []
        for path in paths:
            for length in range(1, len(path) + 1):
                if path[:length] not in places:
                    parents.append(places[path[: length - 1]] if length > 1 else -1)
                    places[path[:length]] = len(ids)
                    ids.append(path[length - 1])
        model = self.open_model.gpt
        with torch.inference_mode(), device.threads(model.config.parameters() * max(1, len(ids))):
            if ids:
                self.run += len(ids)
                features = torch.cat([features, tree_features(model, cache, ids, parents)])
            rows = features[[places[path] + 1 if path else 0 for path in paths]]
            logits = model.logits(rows)[:, : self.open_model.tokenizer.size].float().cpu()
        return list(logits)

    def _read_text(self) -> tuple[Tensor, KVCache]:
        """The features (1, C) of the text's last token, and the text's KV cache. The text must fit into the context."""
        model = self.open_model.gpt
        known = self.open_model.screen_cache.get(_TEXT)
        cache, before = (known[1], known[0]) if known else (KVCache(model.config, model.device), [])
        same = 0
        # The last token is always run: its features are needed.
        for old, new in zip(before, self.text[:-1], strict=False):
            if old != new:
                break
            same += 1
        if known and before == self.text:
            return known[2], cache
        self.open_model.screen_cache.pop(_TEXT, None)
        cache.crop(same)
        features = None
        for start in range(same, len(self.text), _CHUNK):
            if self.overtaken():
                raise Overtaken
            part = self.text[start : start + _CHUNK]
            self.run += len(part)
            with torch.inference_mode(), device.threads(model.config.parameters() * len(part)):
                features = model.features(torch.tensor([part], device=model.device), cache)[0, -1:]
        assert features is not None
        self.open_model.screen_cache[_TEXT] = (list(self.text), cache, features)
        return features, cache
