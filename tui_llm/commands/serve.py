"""`tui-llm serve`: the app in a browser, through textual-serve; every tab is a separate process."""

from __future__ import annotations

import argparse
import errno
import sys

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import model_options, start_options, weights_option, whole
from tui_llm.commands.shared.output import put
from tui_llm.common.errors import UserError

MOST_TABS = 40


def add(commands: Commands) -> None:
    commands.add(
        "serve",
        "serve the app to a browser on this machine (extra `serve`)",
        serve,
        _add_options,
        more="Needs the extra `serve`. Serves until Ctrl+C; every browser tab is a separate process. Whoever can open the page can use "
        "the app as you, so addresses that other machines can reach need --expose.\n\n"
        "With --lesson, for a class: each tab asks for a name and opens the lesson, and a second address shows the teacher who is at "
        "which step (docs/lessons.md).",
        examples=("tui-llm serve", "tui-llm serve --port 8123 --model nano", "tui-llm serve --lesson tokens"),
    )


def _add_options(parser: Parser) -> None:
    model_options(parser, remembered=True)
    weights_option(parser)
    start_options(parser)
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=whole, default=8000, metavar="N", help="port to listen on (default 8000)")
    parser.add_argument("--expose", action="store_true", help="allow an address that other machines can reach: whoever opens it can use the app as you, with your files")  # fmt: skip
    parser.add_argument("--lesson", metavar="LESSON", help="a class: each tab asks for a name and opens this lesson (tour, tokens, loss-curve or a lesson file)")  # fmt: skip
    parser.add_argument("--most-tabs", type=whole, metavar="N", help="with --lesson, how many tabs may be open at once (default 40)")  # fmt: skip


def serve(options: argparse.Namespace) -> int:
    """Serves until Ctrl+C. Raises `UserError` for an address that is not allowed or can't be used."""
    import shlex

    from tui_llm.common.display import visible
    from tui_llm.llm.model.device_names import check_device
    from tui_llm.llm.model.weight_names import check_weights

    check_device(options.device)
    check_weights(options.weights)
    if not 1 <= options.port <= 65535:
        raise UserError(f"--port is {options.port}; give a number from 1 to 65535, such as 8000")
    if not options.expose and not _loopback(options.host):
        raise UserError(
            f"{options.host} can be reached from other machines, and whoever opens the page can train, read and delete as you;"
            " leave --host out and use an SSH tunnel (ssh -L 8000:localhost:8000), or add --expose"
        )
    if options.most_tabs is not None and (options.lesson is None or not 1 <= options.most_tabs <= 1000):
        raise UserError("--most-tabs is for a class: give --lesson too, and a number from 1 to 1000")
    _check_free(options.host, options.port)
    try:
        from tui_llm.commands.shared import server as serving
    except ImportError as error:
        raise UserError("this needs textual-serve: pip install 'tui-llm[serve]'") from error
    if options.lesson is not None:
        return _serve_class(options)
    command = [sys.executable, "-m", "tui_llm", *_app_options(options)]
    server = serving.Server(shlex.join(command), options.host, options.port)
    put(f"open {visible(server.public_url)} in a browser; every tab runs its own app and model; Ctrl+C ends them all")
    sys.stdout.flush()
    server.serve()
    return 0


def _app_options(options: argparse.Namespace) -> list[str]:
    given = ["--device", options.device, "--weights", options.weights]
    given += ["--model", options.model] if options.model is not None else []
    given += [f"--prompt={options.prompt}"] if options.prompt is not None else []
    # The tabs of a class are several people's: none begins with what another left.
    return [*given, "--fresh"] if options.fresh or options.lesson is not None else given


def _serve_class(options: argparse.Namespace) -> int:
    """Serves a lesson, with a page for the teacher."""
    from tui_llm.commands.shared.class_server import ClassServer
    from tui_llm.commands.shared.classroom import Classroom
    from tui_llm.commands.tour import read_lesson
    from tui_llm.common.display import visible

    room = Classroom(read_lesson(options.lesson), MOST_TABS if options.most_tabs is None else options.most_tabs)
    words = [sys.executable, "-m", "tui_llm", "tour", room.lesson.source, *_app_options(options)]
    server = ClassServer(words, options.host, options.port, room)
    put(
        f"the class opens {visible(server.public_url)} in a browser; every tab asks for a name, and runs its own app and model"
    )
    put(f"you open {visible(server.teachers_url)} to see who is at which step; Ctrl+C ends all")
    sys.stdout.flush()
    server.serve()
    return 0


def _loopback(host: str) -> bool:
    import ipaddress

    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name may resolve to any address


def _check_free(host: str, port: int) -> None:
    import socket

    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except UnicodeError as error:  # a part of the name is empty, or too long
        raise UserError(f"{host[:80]!r} is no host name; give another one") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} is in use; give another one, such as --port {port % 65535 + 1}") from error
        raise UserError(f"can't listen on {host} port {port}: {error.strerror or error}") from error
