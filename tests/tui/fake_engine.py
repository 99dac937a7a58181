"""A fake engine for the screen's tests: word-like tokens, and a distribution that depends on the last id only."""

from __future__ import annotations

import dataclasses
import functools
import math
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tui_llm.common.errors import Overtaken, UserError
from tui_llm.facts.model import ModelChoices, ModelInfo, Weights
from tui_llm.facts.prediction import (
    Candidate,
    Distribution,
    GeneratedToken,
    LossReading,
    Rest,
    TargetToken,
    TokenLoss,
    TokenScore,
)
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Question, Request
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.facts.tokens import Piece, Token, Tokenization
from tui_llm.instruments.choices.question import ChoicesQuestion
from tui_llm.instruments.ghost.question import Ghost, GhostQuestion
from tui_llm.instruments.vocabulary.question import FindQuestion, VocabularyMatch, VocabularyPage, VocabularyQuestion

WORDS = (
    " cat",
    " mat",
    " the",
    " sat",
    " on",
    " dog",
    " floor",
    " moon",
    ".",
    ",",
    " a",
    " and",
    " was",
    "\n",
    "!",
    " little",
    " there",
    " upon",
    " time",
    " once",
    "The",
    "Once",
)
HOSTILE = (
    "[/]",
    "[red]x",
    "[link='x",
    "[/usr/bin]",
    "\x1b]0;owned\x07",
    "\x9b31m",
    "\u202eabc",
    "👩\u200d👩\u200d👧",
    "\x00",
    "e\u0301",
    "\ufeff",
    "漢字",
)
VOCABULARY = 1000
CONTEXT = 64


class FakeEngine:
    """A fake engine. `hostile` adds tokens with markup and control characters; `gate` can hold readings back."""

    def __init__(self, hostile: bool = False) -> None:
        texts = list((HOSTILE + WORDS) if hostile else WORDS)
        texts += [f"w{index}" for index in range(len(texts), VOCABULARY)]
        self.texts = texts
        self.ids = {text: index for index, text in enumerate(texts)}
        self.gate = threading.Event()
        self.gate.set()
        self.requests: list[Request] = []
        self.distributions: dict[object, Distribution] = {}  # a cache: a thousand tokens are slow in plain Python
        self.opened: list[str] = []
        self.released = 0
        self.prepared = 0
        self.fail: Exception | None = None
        self.hold_after: int | None = None  # after this many tokens, a draw waits until it is stopped
        self.weights: Weights | None = None
        self.answers: dict[type[Question], Callable[[Any], Any]] = {}  # the instruments' answers, by type of question
        self.questions: list[Question] = []  # all questions except those for ghost text, which are automatic
        self.ghosts: list[GhostQuestion] = []

    # ── the protocol ─────────────────────────────────────────────────────────────────────────────────────────────

    def open(self, model: str) -> Weights:
        if model == "missing":
            raise UserError("there is no model 'missing'; `tui-llm models` lists them")
        self.opened.append(model)
        self.weights = Weights(model, None, 2_600_000, 4, 4, 128, CONTEXT, VOCABULARY, "cpu")
        return self.weights

    def answer(self, question: Question, overtaken: Callable[[], bool] = lambda: False) -> Any:
        if isinstance(question, GhostQuestion):
            self.ghosts.append(question)
            return self.answers.get(GhostQuestion, self.ghost)(question)
        self.questions.append(question)
        if isinstance(question, (VocabularyQuestion, FindQuestion)) and type(question) not in self.answers:
            return self.vocabulary(question)
        if isinstance(question, ChoicesQuestion) and ChoicesQuestion not in self.answers:
            return ModelChoices(tied=False, start="<s>\x1b[/]")
        return self.answers[type(question)](question)

    def prepare(self) -> None:
        self.prepared += 1

    def use_torch(self) -> Weights | None:
        return None

    def release(self) -> None:
        self.released += 1

    def refresh(self) -> Weights | None:
        return None

    def models(self) -> Sequence[ModelInfo]:
        return (
            ModelInfo("nano", "shipped", "/models/nano", 2_600_000, 256, 4096),
            ModelInfo("[/]\x1b[31mrun\u202e", "run", "/runs/x", 1000, 64, 256, step=120),
            ModelInfo(
                "broken",
                "folder",
                "/tmp/broken",
                None,
                None,
                None,
                problem="[red]model.safetensors is cut short",
            ),
        )

    def read(self, request: Request, overtaken: Callable[[], bool] = lambda: False) -> Reading:
        assert self.weights is not None
        self.requests.append(request)
        while not self.gate.wait(0.01):
            if overtaken():
                raise Overtaken
        if self.fail is not None:
            raise self.fail
        ids = self.encode(request.prompt) + list(request.continuation)
        if request.start_token:
            ids.insert(0, 999)
        position = len(ids) if request.position is None else max(0, min(request.position, len(ids)))
        before, after = ids[:position], ids[position:]
        distribution = self.distribution(before, request) if before else None
        return Reading(
            request=request,
            weights=self.weights,
            tokens=self.tokenization(request, ids),
            prompt_ids=tuple(ids),
            fed=min(len(ids), CONTEXT),
            distribution=distribution,
            loss=self.loss(before, request, after) if before and request.target else None,
            position=position,
            following=self.token(after[0]) if after else None,
            scores=self.scores(ids) if request.scores else (),
            following_score=self.scores(ids)[position] if after else None,
            span=self.span(request, position),
            problem=None
            if before
            else "the first token has no prediction: type something, or press o for a start token",
            milliseconds=1.5,
            forward_tokens=1,
        )

    def generate(
        self, request: Request, *, seed: int, start: int, count: int, stop: Callable[[], bool] = lambda: False
    ) -> Iterator[GeneratedToken]:
        ids = self.encode(request.prompt) + list(request.continuation)
        for index in range(start, start + count):
            while self.hold_after is not None and index >= self.hold_after and not stop():
                time.sleep(0.001)
            if stop() or not ids:
                return
            u = random.Random(f"{seed} {index}").random()
            rows = self.distribution(ids, request).candidates
            total, chosen = 0.0, rows[0]
            for row in rows:
                total += row.probability
                if row.kept and u < total:
                    chosen = row
                    break
            ids.append(chosen.id)
            yield GeneratedToken(
                index,
                chosen.id,
                chosen.bytes,
                chosen.text,
                None if request.sampler.greedy else u,
                chosen.probability,
                chosen.raw_probability,
                chosen.rank,
                rows[:10],
                request.sampler,
                seed,
                sum(row.kept for row in rows),
            )

    def vocabulary(self, question: VocabularyQuestion | FindQuestion) -> VocabularyPage | VocabularyMatch:
        """Answers from the whole table, by probability, id, text or length."""
        assert self.weights is not None
        whole = dataclasses.replace(question.request, top=VOCABULARY)
        read = self.encode(whole.prompt) + list(whole.continuation)
        rows = list(self.distribution(read[: whole.position], whole).candidates)
        if question.order != "probability":
            rows.sort(key={"id": lambda row: row.id, "text": lambda row: row.bytes}.get(
                question.order, lambda row: -len(row.bytes)))  # fmt: skip
        hits = [at for at, row in enumerate(rows) if question.find in row.text or question.find == f"#{row.id}"]
        if isinstance(question, VocabularyQuestion):
            shown = tuple(rows[question.start : question.stop])
            return VocabularyPage(question, self.weights, VOCABULARY, question.start, shown)
        if not hits:
            return VocabularyMatch(question, 0)
        at = next((at for at, place in enumerate(hits) if place > question.after), 0)
        return VocabularyMatch(question, len(hits), hits[at], at + 1, rows[hits[at]].id)

    def span(self, request: Request, position: int) -> tuple[int, int] | None:
        at = position - request.start_token
        found = [match.span() for match in re.finditer(r" ?\w+|\s|[^\w\s]", request.prompt)]
        return found[at] if 0 <= at < len(found) else None

    def ghost(self, question: GhostQuestion) -> Ghost:
        assert self.weights is not None
        ids, made = self.encode(question.request.prompt), []
        for _ in range(question.count):
            logits = self.logits([*ids, *made])
            made.append(logits.index(max(logits)))
        return Ghost(self.weights, tuple(self.texts[id] for id in made))

    # ── the fake model ────────────────────────────────────────────────────────────────────────────────────────────────

    def encode(self, text: str) -> list[int]:
        return [self.ids.get(piece, 100 + sum(piece.encode()) % 800) for piece in re.findall(r" ?\w+|\s|[^\w\s]", text)]

    def token(self, id: int) -> Token:
        return Token(id, self.texts[id].encode("utf-8", "replace"), self.texts[id], special=id == 999)

    def tokenization(self, request: Request, ids: list[int]) -> Tokenization:
        if request.tokenizer == "o200k_base":
            return Tokenization("o200k_base", 0, 0, 0, (), (), 0, "o200k_base is not on this machine [/]; connect once")
        pieces = re.findall(r" ?\w+|\s|[^\w\s]", request.prompt)
        tokens = [Token(id, text.encode(), text) for id, text in zip(self.encode(request.prompt), pieces, strict=True)]
        tokens += [self.token(id) for id in request.continuation]
        if request.start_token:
            tokens.insert(0, Token(999, b"<|endoftext|>", "<|endoftext|>", special=True))
        shown = tokens[-request.token_window :]
        return Tokenization(
            request.tokenizer or "nano",
            VOCABULARY,
            len(tokens),
            len(tokens) - len(shown),
            tuple(shown),
            tuple(Piece(at, at + 1, token.text) for at, token in enumerate(shown)),
            len(request.continuation),
        )

    def logits(self, ids: list[int]) -> list[float]:
        return list(toy_logits(ids[-1]))

    def distribution(self, ids: list[int], request: Request) -> Distribution:
        key = (ids[-1], request.sampler, request.overrides, request.top)
        if key not in self.distributions:
            self.distributions[key] = self._distribution(ids, request)
        return self.distributions[key]

    def _distribution(self, ids: list[int], request: Request) -> Distribution:
        logits = self.logits(ids)
        for id, value in request.overrides:
            logits[id] = value
        order = sorted(range(VOCABULARY), key=lambda id: (-logits[id], id))
        raw, tempered = softmax(logits, 1), softmax(logits, request.sampler.temperature)
        settings: SamplerSettings = request.sampler
        cumulative, kept = 0.0, 0
        for id in order:
            cumulative += tempered[id]
            kept += 1
            if cumulative >= settings.top_p - 1e-12:
                break
        mass = cumulative
        rows, cumulative = [], 0.0
        for place, id in enumerate(order[: request.top]):
            cumulative += tempered[id]
            rows.append(
                Candidate(
                    place + 1,
                    id,
                    self.token(id).bytes,
                    self.texts[id],
                    logits[id],
                    math.exp(logits[id]),
                    raw[id],
                    tempered[id],
                    cumulative,
                    tempered[id] / mass if place < kept else 0.0,
                    place < kept,
                    logits[id],
                    logits[id] / (settings.temperature or 1),
                    tempered[id] / tempered[order[0]],
                )
            )
        rest = order[request.top :]
        entropy = -sum(p * math.log(p) for p in raw if p)
        peak, total = logits[order[0]] / (settings.temperature or 1), 1 / tempered[order[0]]
        return Distribution(
            settings,
            VOCABULARY,
            logsumexp(logits),
            entropy,
            kept,
            mass,
            tuple(rows),
            Rest(
                len(rest),
                sum(raw[id] for id in rest),
                sum(tempered[id] for id in rest),
                0.0,
                max(0, kept - len(rows)),
            ),
            math.exp(entropy),
            peak,
            total,
            peak + math.log(total),
            math.exp(logsumexp(logits)),
        )

    def scores(self, ids: list[int]) -> tuple[TokenScore | None, ...]:
        found: list[TokenScore | None] = [None] if ids else []
        for at in range(1, len(ids)):
            logits = self.logits(ids[:at])
            total = logsumexp(logits)
            entropy = -sum(math.exp(x - total) * (x - total) for x in logits)
            found.append(TokenScore(self.token_loss(logits, ids[at]), entropy))
        return tuple(found)

    def token_loss(self, logits: list[float], id: int) -> TokenLoss:
        total, own = logsumexp(logits), logits[id]
        p = math.exp(own - total)
        return TokenLoss(id, 1 + sum(x > own for x in logits), own, total, p, total - own, p - 1)

    def loss(self, ids: list[int], request: Request, after: list[int]) -> LossReading:
        assert request.target is not None
        uniform = math.log(VOCABULARY)
        if request.target.own:
            targets, text = after[:1], self.texts[after[0]] if after else ""
        elif request.target.likeliest:
            targets = [self.distribution(ids, request).candidates[0].id]
            text = self.texts[targets[0]]
        elif request.target.id is not None:
            targets, text = [request.target.id], self.texts[request.target.id]
        else:
            text = request.target.text or ""
            targets = self.encode(text)
        rows, given = [], list(ids)
        for id in targets:
            logits = self.logits(given)
            for override, value in request.overrides if not rows else ():
                logits[override] = value
            rows.append(TargetToken(self.token(id), self.token_loss(logits, id)))
            given.append(id)
        total_loss = sum(row.loss.nats for row in rows)
        mean = total_loss / max(1, len(rows))
        return LossReading(
            text,
            tuple(rows),
            total_loss,
            mean,
            mean / math.log(2),
            math.exp(mean),
            uniform,
            None if rows else "the target is empty: type one",
        )


@functools.lru_cache(maxsize=256)
def toy_logits(last: int) -> tuple[float, ...]:
    """Returns the logits after a text whose last id is `last`."""
    draw = random.Random(last)
    return tuple(8 - 0.4 * rank + draw.random() * 3 if rank < 30 else -4 + draw.random() for rank in range(VOCABULARY))


def logsumexp(values: Sequence[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))


def softmax(values: Sequence[float], temperature: float) -> list[float]:
    if temperature == 0:
        best = max(range(len(values)), key=lambda index: values[index])
        return [float(index == best) for index in range(len(values))]
    total = logsumexp([value / temperature for value in values])
    return [math.exp(value / temperature - total) for value in values]
