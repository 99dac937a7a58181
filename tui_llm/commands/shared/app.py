"""`tui-llm` without a command: its options, its help page, and the app that it opens."""

from __future__ import annotations

import argparse
import gc
import os
from typing import TYPE_CHECKING

from tui_llm import __version__
from tui_llm.commands.shared.command import Formatter, Parser, examples_text
from tui_llm.commands.shared.options import DEFAULT_MODEL, model_options, start_options, weights_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from tui_llm.facts.engine import Engine
    from tui_llm.tour.step import Lesson

DEFAULT_PROMPT = "Once upon a time, there was a little"

EXAMPLES = (
    "tui-llm",
    "tui-llm tour",
    'tui-llm --model nano --prompt "The cat sat on the"',
    'tui-llm logits "Once upon a time" --top 5',
)
SECTIONS = """exit status:
  0    success
  1    a run that was followed, or a rung of `ladder`, failed after it had
       started; `check`: something is broken
  2    invalid input or an error: one line on stderr says what to do
  130  interrupted with Ctrl+C

environment:
  TUI_LLM_HOME  keep everything in this folder: data, cache and log
  TUI_LLM_DEBUG show tracebacks, which otherwise go to LOG/errors.log
  TUI_LLM_KERNEL
                what multiplies by the weights on a CPU, as --kernel
  TUI_LLM_NATIVE_TRAINING
                0: a run on a CPU trains with torch, without the step in C
  TUI_LLM_NATIVE_DIR
                where the C code of --kernel native and of that step is kept
                once compiled, instead of CACHE
  TUI_LLM_NICE  the niceness of the processes that train
  TUI_LLM_VOCABULARY_MIRROR
                an address with gpt2.tiktoken, cl100k_base.tiktoken and
                o200k_base.tiktoken, instead of tiktoken's
  CC            the C compiler (default gcc, then cc)
  NO_COLOR      the app in shades of grey
  COLUMNS       the width of this help, and of guess and ladder on a terminal
  HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN
                as in huggingface_hub, for pulled models
  HF_HUB_OFFLINE
                1: `models pull` is refused
  TIKTOKEN_CACHE_DIR
                also searched for gpt2, cl100k_base and o200k_base

files:
  DATA/runs/NAME/      a run: settings, metrics, samples, checkpoints, log
  DATA/models/         pulled models and your own
  DATA/vocabularies/   vocabularies added under a name
  DATA/pins.json       pinned prompts
  DATA/ladders/        what each ladder was asked for; its runs are in runs/
  DATA/foreign.json    paths of other people's runs
  DATA/pairs/          answers that were preferred, for `train --preference`
  DATA/tour.json, tour-dismissed.json
                       progress in the tour; that it was closed
  DATA/lessons/        progress in other lessons, and that of classes
  DATA/state.json      what comes back at the next start: prompt, model, target,
                       sampler, vocabulary, theme, pane; delete it to forget
  DATA/readings/, trees/, pictures/, charts/, directions/
                       what the app saves where the current folder is not
                       writable
  CACHE/               downloads, compiled code, measurements, tokenized text:
                       can be deleted; without a network keep vocabularies/
                       if `vocabulary add` installed one of tiktoken's
  LOG/                 app.log, errors.log
  DATA, CACHE and LOG are the system's folders for tui-llm (on Linux
  ~/.local/share/tui-llm, ~/.cache/tui-llm and ~/.local/state/tui-llm/log),
  or in TUI_LLM_HOME.

Every command but serve and completion takes --json. `tui-llm COMMAND --help`
describes each one."""

# Textual reads these variables when it is imported; values that the user has set are kept. Textual checks for changes to paint
# this many times a second and paints nothing where nothing changed: at its default of 60, a change soon after a paint waits up to
# 33 ms for the next. Without animations, scrolling a page is one paint instead of twenty, which matters on a slow connection.
TEXTUAL = {"TEXTUAL_FPS": "500", "TEXTUAL_ANIMATIONS": "none"}


def parser() -> Parser:
    """The parser of `tui-llm`, without commands."""
    top = Parser(
        prog="tui-llm",
        description="See how a language model is pre-trained: tokens, logits, loss, training and generated text, on a real "
        "model. Without a command it opens the app.",
        epilog=f"{examples_text(EXAMPLES)}\n\n{SECTIONS}",
        formatter_class=Formatter,
    )
    top.add_argument("--version", action="version", version=f"tui-llm {__version__}")
    model_options(top, remembered=True)
    weights_option(top)
    start_options(top)
    top.add_argument("--no-mouse", action="store_true", help="don't capture the mouse: the terminal selects text")
    top.set_defaults(run_command=open_app)
    return top


def open_app(
    options: argparse.Namespace, *, tour: bool = False, lesson: Lesson | None = None, learner: str = ""
) -> int:
    """Opens the app, with the tour or another lesson where one is given. Small models are read without torch at first, which is imported once the screen is quiet."""
    for name, value in TEXTUAL.items():
        os.environ.setdefault(name, value)
    gc.disable()  # imported modules are never garbage; the engine thread collects from the first reading on
    from tui_llm.llm.model.device_names import check_device
    from tui_llm.llm.model.weight_names import check_weights

    check_device(options.device)
    check_weights(options.weights)

    def open_engine() -> Engine:
        from tui_llm.llm.model.blas_threads import import_numpy

        import_numpy()
        from tui_llm.engine import PipelineEngine

        return PipelineEngine(options.device, options.weights, numpy_first=True)

    return _run(open_engine, options, tour, lesson, learner)


def _run(
    open_engine: Callable[[], Engine], options: argparse.Namespace, tour: bool, lesson: Lesson | None, learner: str
) -> int:
    """Runs the app, with what is remembered where no option says otherwise."""
    import dataclasses

    from tui_llm.commands.shared import streams
    from tui_llm.common import memory
    from tui_llm.common.display import visible
    from tui_llm.tui.app import LabApp
    from tui_llm.tui.kit.themes import DARK
    from tui_llm.tui.state import saved_state
    from tui_llm.tui.state.saved_state import SavedState
    from tui_llm.tui.state.state_file import StateWriter, load
    from tui_llm.tui.terminal import run_app

    memory.map_large_blocks()
    saved, problem = (SavedState(), "") if options.fresh else load()
    prompt = next(text for text in (options.prompt, saved.prompt, DEFAULT_PROMPT) if text is not None)
    if options.prompt not in (None, saved.prompt):
        saved = dataclasses.replace(saved, target=None)  # it was chosen for another text
    writer = None
    if not options.fresh:
        writer = StateWriter(saved, saved_state.first(DEFAULT_PROMPT, DEFAULT_MODEL, DARK, "logits"))
    model = options.model or saved.model or DEFAULT_MODEL
    app = LabApp(
        open_engine, model=model, prompt=prompt, tour=tour, lesson=lesson, learner=learner, saved=saved, writer=writer
    )
    app.problem_at_start = problem
    if options.model is None and model != DEFAULT_MODEL:
        app.lab_screen.fallback_model = DEFAULT_MODEL
    try:
        return run_app(app, mouse=not options.no_mouse)
    finally:
        if writer is not None:
            writer.finish()
            if writer.problem:
                streams.print_error(f"the state can't be saved: {visible(writer.problem)}")
