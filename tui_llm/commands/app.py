"""Open the app: what every command that shows the screen calls."""

from __future__ import annotations

import argparse
import gc
import os

# Settings of Textual's, read as it is imported; who sets them otherwise is obeyed. It looks for changes to paint so many times
# a second and paints nothing where nothing changed: at its 60, what changes soon after a paint waits up to 33 ms for the next.
# Without animations a page of scrolling is one paint, not twenty, of which a slow line would have to carry each.
TEXTUAL = {"TEXTUAL_FPS": "500", "TEXTUAL_ANIMATIONS": "none"}


def open_app(options: argparse.Namespace, *, tour: bool = False) -> int:
    """Opens the app. torch is imported by the app's asking thread, once the screen is there."""
    for name, value in TEXTUAL.items():
        os.environ.setdefault(name, value)
    gc.disable()  # what is imported stays; from the first reading on the asker has garbage collected
    from tui_llm.facts.engine import Engine
    from tui_llm.llm.model.device_names import check_device
    from tui_llm.llm.model.weight_names import check_weights
    from tui_llm.tui.app import LabApp
    from tui_llm.tui.terminal import run_app

    check_device(options.device)
    check_weights(options.weights)

    def open_engine() -> Engine:
        from tui_llm.engine import PipelineEngine

        return PipelineEngine(options.device, options.weights)

    return run_app(
        LabApp(open_engine, model=options.model, prompt=options.prompt, tour=tour), mouse=not options.no_mouse
    )
