"""The server: textual-serve's, for this page alone."""

from __future__ import annotations

import logging
import re

from aiohttp import web
from aiohttp.typedefs import Handler
from textual_serve.server import Server as TextualServer

FONT = "<style>@font-face { font-family: 'Roboto Mono'; src: url('/static/fonts/RobotoMono-VariableFont_wght.ttf'); }</style>"


class Server(TextualServer):
    """Answers only to its own address, and takes keys only from its own page: any other page that the browser has open
    could connect too (browsers let them), or reach it under a name of its own (DNS rebinding)."""

    def __init__(self, command: str, host: str, port: int) -> None:
        shown = f"[{host}]" if ":" in host else host
        super().__init__(command, host, port, title="tui-llm", public_url=f"http://{shown}:{port}")
        self.anywhere = host in ("0.0.0.0", "::")  # reached under names that nobody here knows
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
        if request.path == "/ws" and origin != f"http://{host}":
            raise web.HTTPForbidden(text="only the page of this server may connect")
        return await handler(request)

    async def handle_index(self, request: web.Request) -> web.StreamResponse:
        """Under the name that the browser knows it by: 127.0.0.1 and localhost are two pages to it."""
        before, self.public_url = self.public_url, f"http://{request.host}"
        try:
            page = await super().handle_index(request)
            assert isinstance(page, web.Response)
            # Its font comes from this server too, not from a stranger's: the page works without a network.
            page.text = re.sub(r"<link[^>]*fonts\.googleapis\.com[^>]*>", FONT, page.text or "")
            return page
        finally:
            self.public_url = before

    def initialize_logging(self) -> None:
        logging.basicConfig(level=logging.WARNING)

    async def on_startup(self, app: web.Application) -> None:
        """Its own word is on the screen already."""
