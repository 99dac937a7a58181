"""The server of a class: asks each tab for a name, runs the lesson under it, and shows the teacher who is where."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import shlex
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any
from urllib.parse import quote

from aiohttp import web
from textual_serve.app_service import AppService

from tui_llm.commands.shared.classroom import Classroom
from tui_llm.commands.shared.server import Server
from tui_llm.common.errors import UserError
from tui_llm.tour.learner_name import checked

HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"}  # fmt: skip

_learner: ContextVar[str] = ContextVar("learner", default="")


class ClassServer(Server):
    """`words` are the command of a tab, without the learner's name."""

    def __init__(self, words: Sequence[str], host: str, port: int, room: Classroom) -> None:
        self.words = list(words)
        super().__init__(shlex.join(words), host, port)
        self.room = room
        self.key = secrets.token_urlsafe(18)

    @property
    def teachers_url(self) -> str:
        return f"{self.public_url}/class?key={self.key}"

    @property
    def command(self) -> str:
        """The command of the tab whose request is being answered: textual-serve starts what it reads here."""
        name = _learner.get()
        return shlex.join([*self.words, f"--learner={name}"] if name else self.words)

    @command.setter
    def command(self, _command: str) -> None:
        """textual-serve sets it; it follows from the words and the name."""

    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        app.add_routes([web.get("/class", self.handle_class), web.get("/ws/-{name}", self.handle_websocket)])
        return app

    async def handle_class(self, request: web.Request) -> web.Response:
        if not hmac.compare_digest(request.query.get("key", "").encode("utf-8", "replace"), self.key.encode()):
            raise web.HTTPForbidden(text="this page needs the teacher's key: use the address that the command printed")
        page = await asyncio.to_thread(self.room.teachers_page)
        return web.Response(text=page, content_type="text/html", headers=HEADERS)

    async def handle_index(self, request: web.Request) -> web.StreamResponse:
        """The page that asks for a name; with one, the app's page."""
        given = request.query.get("name")
        if given is None:
            return self._ask()
        try:
            name = checked(given)
        except UserError as error:
            return self._ask(str(error), given)
        if "begun" not in request.query:
            if self.room.is_open(name) and "mine" not in request.query:
                return self._ask(
                    f"a tab with the name {name} is open; take another name, such as one with an initial",
                    name,
                    taken=True,
                )
            # The address of the app's page: a reload takes the name again without asking.
            raise web.HTTPSeeOther(f"/?name={quote(name, safe='')}&begun=1")
        page = await super().handle_index(request)
        assert isinstance(page, web.Response)
        # After a sign, as browsers resolve "/ws/.." to "/" before they ask for it.
        page.text = (page.text or "").replace(
            f"ws://{request.host}/ws", f"ws://{request.host}/ws/-{quote(name, safe='')}"
        )
        return page

    def _ask(self, wrong: str = "", name: str = "", taken: bool = False) -> web.Response:
        page = self.room.name_page(wrong, name, taken)
        return web.Response(text=page, content_type="text/html", headers=HEADERS)

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        try:
            name = checked(request.match_info.get("name", ""))
        except UserError as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        if self.room.full and not self.room.is_open(name):
            raise web.HTTPServiceUnavailable(
                text="every place in this class is taken; the teacher can start it with --most-tabs"
            )
        _learner.set(name)
        return await super().handle_websocket(request)

    async def _process_messages(self, websocket: Any, app_service: AppService) -> None:
        """Notes the tab while it is open, and ends it when the same name opens another one."""
        name, ended = _learner.get(), asyncio.Event()
        leave: Callable[[], object] = ended.set
        for end in self.room.enter(name, leave):
            end()
        reading = asyncio.ensure_future(super()._process_messages(websocket, app_service))
        ending = asyncio.ensure_future(ended.wait())
        try:
            await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                await websocket.close(message=b"this name was opened in another tab")
        finally:
            self.room.leave(name, leave)
            for task in (reading, ending):
                task.cancel()
            await asyncio.gather(reading, ending, return_exceptions=True)
