"""textual-serve's server, which answers this program's own page only."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from textual_serve.app_service import AppService
from textual_serve.server import Server as TextualServer

from tui_llm.commands.shared.browser_messages import DEFAULT, CheckedSocket, size
from tui_llm.common.display import visible

FONT = "<style>@font-face { font-family: 'Roboto Mono'; src: url('/static/fonts/RobotoMono-VariableFont_wght.ttf'); }</style>"

# xterm.js reads keys from a text area of its own, and textual-serve's page focuses it only on a click. Here it gets the focus
# once it exists, and again with the window, except under the dialog of an ended session, whose button then has the keys.
FOCUS = """<script>
function focusTerminal() {
  const keys = document.querySelector(".xterm-helper-textarea");
  if (keys && !document.body.classList.contains("-closed")) keys.focus();
  return keys !== null;
}
new MutationObserver((_changes, observer) => { if (focusTerminal()) observer.disconnect(); })
  .observe(document, { childList: true, subtree: true });
window.addEventListener("focus", focusTerminal);
</script>"""


# An address of documentation (RFC 5737, RFC 3849) for each address that stands for all of a machine's.
ANY = {"0.0.0.0": (socket.AF_INET, "192.0.2.1"), "::": (socket.AF_INET6, "2001:db8::1")}


def own_address(host: str) -> str:
    """An address of this machine that others can open, for a `host` in `ANY`, which they can't: the one from which it would
    send to another network. Its host name if it has no network."""
    family, elsewhere = ANY[host]
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))  # of a datagram socket: chooses a route, and sends nothing
            return str(probe.getsockname()[0])
    except OSError:
        return socket.gethostname()


class OneLine(logging.Formatter):
    """Logs errors in one line, without a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        error = record.exc_info[1] if record.exc_info else None
        reason = f": {type(error).__name__}: {error}" if error is not None else ""
        return "tui-llm: " + visible(" ".join(f"{record.getMessage()}{reason}".split()))[:300]


class Server(TextualServer):
    """Answers only under its own address, and accepts websockets only from its own page: browsers let any other open page
    connect too, or reach this server under that page's own host name (DNS rebinding)."""

    def __init__(self, command: str, host: str, port: int) -> None:
        self.anywhere = host in ANY  # reachable under host names that are not known here
        shown = own_address(host) if self.anywhere else host
        shown = f"[{shown}]" if ":" in shown else shown
        super().__init__(command, host, port, title="tui-llm", public_url=f"http://{shown}:{port}")
        names = {shown, "localhost", "127.0.0.1", "[::1]"} if shown in ("localhost", "127.0.0.1", "[::1]") else {shown}
        self.hosts = {f"{name}:{port}" for name in names}
        self.hosts |= set(names) if port == 80 else set()

    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        app.middlewares.append(self._own_page_only)
        return app

    @web.middleware
    async def _own_page_only(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        host, origin = request.host, request.headers.get("Origin")
        if not self.anywhere and host not in self.hosts:
            raise web.HTTPForbidden(text=f"this is {self.public_url}")
        if request.path.startswith("/ws") and origin != f"http://{host}":
            raise web.HTTPForbidden(text="only the page of this server may connect")
        try:
            return await handler(request)
        except (OSError, ValueError) as error:  # not a possible file name
            raise web.HTTPNotFound(text="there is no such page") from error

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """Limits the size in the query: the app's process gets it before any message."""
        numbers = (request.query.get(name, "") for name in ("width", "height"))
        given = [int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else None for text in numbers]
        width, height = size(*(one or usual for one, usual in zip(given, DEFAULT, strict=True)))
        return await super().handle_websocket(
            request.clone(rel_url=request.rel_url.with_query(width=width, height=height))
        )

    async def _process_messages(self, websocket: Any, app_service: AppService) -> None:
        """Closes the tab when its app's process has ended: textual-serve leaves that of a killed one open, with its last
        picture."""
        reading = asyncio.ensure_future(super()._process_messages(CheckedSocket(websocket), app_service))  # type: ignore[arg-type]
        running = {task for task in [app_service._task] if task is not None}  # textual-serve 1.1 says it nowhere else
        try:
            await asyncio.wait({reading, *running}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
            else:
                await websocket.close(message=b"the app has ended")
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def handle_index(self, request: web.Request) -> web.StreamResponse:
        """Puts the host name of the request into the page: 127.0.0.1 and localhost are different origins to a browser."""
        before, self.public_url = self.public_url, f"http://{request.host}"
        try:
            page = await super().handle_index(request)
            assert isinstance(page, web.Response)
            # The font comes from this server, not from Google's: the page works without a network.
            text = re.sub(r"<link[^>]*fonts\.googleapis\.com[^>]*>", FONT, page.text or "")
            page.text = text.replace("</head>", f"{FOCUS}</head>", 1)
            return page
        finally:
            self.public_url = before

    def initialize_logging(self) -> None:
        handler = logging.StreamHandler()
        handler.setFormatter(OneLine())
        logging.basicConfig(level=logging.WARNING, handlers=[handler])

    async def on_startup(self, app: web.Application) -> None:
        """Prints nothing: `serve` has printed the address."""
