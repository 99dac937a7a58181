"""The app in a browser."""

from __future__ import annotations

from tui_llm.options import AddCommand
from tui_llm.options.shared import model_options, weights_option, whole


def add(command: AddCommand) -> None:
    serve = command("serve", "the same app in a browser, on this machine only (extra `serve`)", "serve")
    model_options(serve)
    weights_option(serve)
    serve.add_argument("--prompt", metavar="TEXT", help="the text to begin with")
    serve.add_argument("--host", default="127.0.0.1", metavar="H", help="address to listen on (default 127.0.0.1)")
    serve.add_argument("--port", type=whole, default=8000, metavar="N", help="port to listen on (default 8000)")
    serve.add_argument("--expose", action="store_true", help="allow an address that other machines can reach: whoever opens it can use the app as you, with your files")  # fmt: skip
