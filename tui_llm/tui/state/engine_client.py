"""The only thread that calls the engine. Newer readings supersede older ones; streaming interleaves; nothing is
queued."""

from __future__ import annotations

import dataclasses
import gc
import logging
import threading
import time
from collections.abc import Callable

from textual.message import Message

from tui_llm.common import memory
from tui_llm.common.errors import Overtaken, UserError, in_one_line
from tui_llm.facts.engine import Engine
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Question, Request
from tui_llm.tui.state import garbage
from tui_llm.tui.state.generation import Generation
from tui_llm.tui.state.lab import END_OF_TEXT
from tui_llm.tui.state.messages import (
    Answered,
    Drawn,
    EngineProgress,
    Failed,
    GenerationEnded,
    ModelOpened,
    ModelsListed,
    ReadingReady,
)
from tui_llm.tui.state.warm_up import WarmUp

log = logging.getLogger("tui_llm.tui")

REPAINT_SECONDS = 0.25  # streaming repaints at most four times a second: repainting all panes sends about 12 KiB
IDLE_SECONDS = 1.0  # collect garbage, and return freed memory to the system, after so long without a job


def one_line(error: BaseException) -> str:
    """An exception as one line for the user. The rest goes to the log."""
    if isinstance(error, UserError):
        return in_one_line(error) or "no reason given"
    first = in_one_line(error)[:200]
    return f"internal error, {type(error).__name__}: {first}" if first else f"internal error, {type(error).__name__}"


class EngineClient:
    """Calls the engine on one thread. `post` is called from that thread with messages; it must be thread-safe
    (`post_message` is)."""

    def __init__(self, open_engine: Callable[[], Engine], post: Callable[[Message], object]) -> None:
        self._open_engine = open_engine
        self._post = post
        self._engine: Engine | None = None
        self._wake = threading.Condition()
        self._slot: Request | None = None
        self._model: str | None = None
        self._abandoned = False  # the user cancelled opening the model
        self._opened: str | None = None
        self._otherwise = ""  # opened in place of the first model if that can't be
        self._questions: dict[object, Question] = {}  # by `Question.key`
        self._want_models = False
        self._want_refresh = False
        self._want_release = False
        self._warm_up = WarmUp(self._wake)
        self._last: Request | None = None  # the open model's last reading
        self._generation: Generation | None = None
        self._generations = 0
        self._closing = False
        self._writing = False  # the question being answered writes a file
        self._thread = threading.Thread(target=self._run, name="client", daemon=True)

    # ── called from the app's thread ─────────────────────────────────────────────────────────────────────────────

    @property
    def opened(self) -> str | None:
        """The argument that the open model was opened with."""
        return self._opened

    def start(self, model: str, otherwise: str = "") -> None:
        """Opens `model` or, if that fails, `otherwise`."""
        self._model, self._otherwise = model, otherwise
        self._thread.start()

    def close(self) -> None:
        """Ends the thread after its current job and after the questions that write files; does not wait for it."""
        with self._wake:
            self._closing = True
            if self._generation is not None:
                self._generation.stop.set()
            self._wake.notify()

    def finish(self) -> None:
        """After `close`: waits until every file that the user asked for is written, and for nothing else."""
        while self._thread.is_alive():
            with self._wake:
                if not self._writing and self._to_write() is None:
                    return
            self._thread.join(0.02)

    def read(self, request: Request) -> None:
        """Requests a reading; replaces a request that has not been answered yet."""
        with self._wake:
            self._slot = request
            self._wake.notify()

    def open(self, model: str) -> None:
        with self._wake:
            self._model, self._abandoned = model, False
            if self._generation is not None:
                self._generation.stop.set()
            self._wake.notify()

    def abandon(self) -> None:
        """Cancels opening a model, and the one to be opened next: the previous one, if any, stays open."""
        with self._wake:
            self._model, self._abandoned = None, True

    def refresh(self) -> None:
        """Checks whether the open run has a newer checkpoint."""
        with self._wake:
            self._want_refresh = True
            self._wake.notify()

    def release(self) -> None:
        """Frees, once nothing else is to be done, what instruments cached for screens that have closed."""
        with self._wake:
            self._want_release = True
            self._wake.notify()

    def list_models(self) -> None:
        with self._wake:
            self._want_models = True
            self._wake.notify()

    def inquire(self, question: Question) -> None:
        """Asks an instrument; replaces a question of the same key that has not been answered yet."""
        with self._wake:
            self._questions[question.key] = question
            self._wake.notify()

    def forget(self, key: object) -> None:
        """Drops the question of that key, even while it is being answered. If a file is written by then, the answer is
        posted all the same."""
        with self._wake:
            self._questions.pop(key, None)

    def generate(self, request: Request, seed: int, count: int) -> int:
        """Generates up to `count` tokens after the request's continuation, in place of a running generation; returns
        the number that `Drawn.job` will have."""
        with self._wake:
            if self._generation is not None:
                self._generation.stop.set()
            self._generations += 1
            self._generation = Generation(self._generations, request, seed, count)
            self._wake.notify()
            return self._generations

    def stop_generating(self) -> None:
        with self._wake:
            if self._generation is not None:
                self._generation.stop.set()

    # ── on the engine thread ─────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        self._post(EngineProgress("starting the engine"))
        garbage.pause()
        try:
            self._engine = self._open_engine()
        except BaseException as error:
            garbage.freeze()
            self._fail("engine", error)
            self._post(EngineProgress(""))
            return
        rested = True
        while True:
            with self._wake:
                while (job := self._next()) is None:
                    if not self._wake.wait(None if rested else IDLE_SECONDS):
                        break
            if job is None:
                gc.collect()
                memory.trim()
                rested = True
                self._warm_up.start(self._engine)  # not sooner: it slows the screen down
                continue
            rested = False
            if self._closing and job != self._answer:
                return
            try:
                job()
            except BaseException as error:
                self._fail("read", error)

    def _next(self) -> Callable[[], None] | None:
        if self._closing:
            return self._answer if self._to_write() is not None else lambda: None
        if self._model is not None:
            return self._open
        if self._want_models:
            return self._list
        if self._slot is not None:
            return self._read
        if self._questions:
            return self._answer
        if self._generation is not None:
            return self._draw
        if self._want_refresh:
            return self._refresh
        if self._want_release:
            return self._release
        if self._warm_up.ready:
            return self._use_torch
        return None

    def _to_write(self) -> object | None:
        return next((key for key, question in self._questions.items() if question.writes), None)

    def _fail(self, what: str, error: BaseException) -> None:
        if not isinstance(error, UserError):
            log.error("asking the engine failed", exc_info=error)
        self._post(Failed(what, one_line(error)))

    def _open(self) -> None:
        assert self._engine is not None
        with self._wake:
            model, self._model = self._model, None
        assert model is not None
        self._post(EngineProgress(f"opening {model}"))
        try:
            weights = self._engine.open(model)
            with self._wake:
                abandoned, self._abandoned = self._abandoned, False
            if abandoned and self._opened is not None:
                weights = self._engine.open(self._opened)
            else:
                self._opened = model
            with self._wake:  # a request for the previous model; the lab makes another once it knows the new one
                self._slot = self._last = None
        except BaseException as error:
            garbage.freeze()
            self._open_failed(model, error)
        else:
            self._post(ModelOpened(weights))
        finally:
            self._post(EngineProgress(""))

    def _open_failed(self, model: str, error: BaseException) -> None:
        otherwise, self._otherwise = self._otherwise, ""
        if not otherwise or self._opened is not None:
            self._fail("open", error)
            return
        with self._wake:
            self._model = self._model or otherwise
        self._fail("remembered", UserError(f"{otherwise} is opened, not {model} as last time: {one_line(error)}"))

    def _list(self) -> None:
        assert self._engine is not None
        self._want_models = False
        try:
            models = tuple(self._engine.models())
        except BaseException as error:
            self._fail("models", error)
        else:
            self._post(ModelsListed(models))

    def _refresh(self) -> None:
        assert self._engine is not None
        self._want_refresh = False
        weights = self._engine.refresh()
        if weights is not None:
            self._post(ModelOpened(weights, fresh=False))

    def _use_torch(self) -> None:
        assert self._engine is not None
        if self._warm_up.take_over(self._engine) and self._last is not None:
            self._ask(self._last)  # so that the next reading finds its tokens in the KV cache

    def _release(self) -> None:
        assert self._engine is not None
        self._want_release = False
        self._engine.release()

    def _read(self) -> None:
        with self._wake:
            request, self._slot = self._slot, None
            generation = self._generation
        assert request is not None
        streaming = generation is not None and not generation.stop.is_set()
        if streaming and generation is not None and request.prompt == generation.request.prompt:
            # A request made while streaming is answered for the text up to the stream's last token.
            same = request.continuation == generation.request.continuation
            generation.request = dataclasses.replace(
                request,
                number=max(request.number, generation.request.number),  # the stream's own request may be the newer one
                continuation=generation.request.continuation,
                overrides=request.overrides if same else (),
            )
            request = generation.request
            self._show(generation, None)
        self._last = request
        reading = self._ask(request)
        garbage.freeze()  # the first reading created the last of the long-lived objects
        if reading is not None:
            self._post(ReadingReady(reading))

    def _answer(self) -> None:
        """Answers a question. As that may take long, it is interrupted by a reading and restarts after it."""
        assert self._engine is not None
        with self._wake:
            key = self._to_write() if self._closing else next(iter(self._questions), None)
            if key is None:
                return
            question = self._questions[key]
            self._writing = question.writes
        answer, problem = None, ""
        try:
            answer = self._engine.answer(
                question, lambda: self._slot is not None or self._closing or self._questions.get(key) is not question
            )
        except Overtaken:
            if self._closing:
                self.forget(key)
            return
        except BaseException as error:
            if not isinstance(error, UserError):
                log.error("asking an instrument failed", exc_info=error)
            problem = one_line(error)
        finally:
            self._writing = False
        with self._wake:
            if self._questions.get(key) is question:
                del self._questions[key]
            elif problem or not question.writes:
                return  # it was dropped, and has left nothing: what is written is told all the same
        self._post(Answered(question, answer, problem))

    def _ask(self, request: Request) -> Reading | None:
        assert self._engine is not None
        try:
            return self._engine.read(request, lambda: self._slot is not None or self._closing)
        except Overtaken:
            return None
        except BaseException as error:
            self._fail("read", error)
            return None

    def _draw(self) -> None:
        """Generates one token of the running generation. One at a time gives the same tokens as all at once (see
        `Engine.generate`), and readings can be made in between without a second model state."""
        assert self._engine is not None
        generation = self._generation
        if generation is None:
            return
        reason = "stopped" if generation.stop.is_set() else ""
        if not reason:
            generation.begin()
            try:
                tokens = list(
                    self._engine.generate(
                        generation.request,
                        seed=generation.seed,
                        start=generation.index,
                        count=1,
                        stop=generation.stop.is_set,
                    )
                )
            except BaseException as error:
                self._fail("generate", error)
                tokens, reason = [], "no token was drawn"
            generation.took(tokens)
            generation.left -= 1
            generation.request = dataclasses.replace(
                generation.request,
                continuation=(*generation.request.continuation, *(token.id for token in tokens)),
                overrides=() if tokens else generation.request.overrides,  # overrides apply to one prediction
            )
            if not reason:
                if not tokens:
                    reason = "stopped" if generation.stop.is_set() else "the model has nothing to draw from"
                elif tokens[-1].ends or tokens[-1].text == END_OF_TEXT:
                    reason = f"{tokens[-1].text} ended the text"
                elif generation.left <= 0:
                    reason = "done"
        if reason or time.monotonic() - generation.shown_at >= REPAINT_SECONDS:
            self._show(generation, self._ask(generation.request) if generation.pending else None)
        if reason:
            with self._wake:
                if self._generation is generation:
                    self._generation = None
            self._post(GenerationEnded(generation.number, reason))

    def _show(self, generation: Generation, reading: Reading | None) -> None:
        if generation.pending:
            self._post(Drawn(generation.number, tuple(generation.pending), reading, generation.speed))
            generation.pending = []
        generation.shown_at = time.monotonic()
