"""The server of a class: asks each tab for a name, runs the lesson under it, and shows the teacher who is where."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import shlex
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple
from urllib.parse import quote

from aiohttp import web
from textual_serve.app_service import AppService

from tui_llm.commands.shared.classroom import Classroom
from tui_llm.commands.shared.server import Server
from tui_llm.common.errors import UserError
from tui_llm.tour.learner_name import checked

HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"}  # fmt: skip


class _Tab(NamedTuple):
    """The tab of a request: the learner's name, when it is to end, and what ends the older tabs of that name."""

    name: str
    ended: asyncio.Event
    older: list[Callable[[], object]]


_tab: ContextVar[_Tab | None] = ContextVar("tab", default=None)


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
        tab = _tab.get()
        return shlex.join([*self.words, f"--learner={tab.name}"] if tab is not None else self.words)

    @command.setter
    def command(self, _command: str) -> None:
        """textual-serve sets it; it follows from the words and the name."""

    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        app.add_routes([web.get("/class", self.handle_class), web.get("/ws/-{name:[^/]+}", self.handle_websocket)])
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
        ended = asyncio.Event()
        leave: Callable[[], object] = ended.set
        # Before the handshake: many tabs may be opened in the same moment.
        tab = _Tab(name, ended, self.room.enter(name, leave))
        _tab.set(tab)
        try:
            return await super().handle_websocket(request)
        finally:
            self.room.leave(name, leave)

    async def _process_messages(self, websocket: Any, app_service: AppService) -> None:
        """Ends the older tabs of this name, and this tab when the same name opens another one."""
        tab = _tab.get()
        assert tab is not None
        for end in tab.older:
            end()
        reading = asyncio.ensure_future(super()._process_messages(websocket, app_service))
        ending = asyncio.ensure_future(tab.ended.wait())
        try:
            await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                await websocket.close(message=b"this name was opened in another tab")
        finally:
            for task in (reading, ending):
                task.cancel()
            await asyncio.gather(reading, ending, return_exceptions=True)
