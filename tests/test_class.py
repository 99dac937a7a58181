"""`serve --lesson`, with the real server: a name for each tab, and who is at which step on the teacher's page."""

from __future__ import annotations

import asyncio
import contextlib
import html
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.test_serve import ESCAPES, serving
from tui_llm.cli import main
from tui_llm.commands.shared.classroom import Classroom
from tui_llm.common.errors import UserError
from tui_llm.tour.facts import Facts
from tui_llm.tour.learner_name import MOST, checked
from tui_llm.tour.lesson_file import find, read
from tui_llm.tour.tour import Tour, learners_dir

HOSTILE = "<script>alert(1)</script>&\"'"
F4 = "\x1bOS"


# ── without a server ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name", ["", "  ", "x" * (MOST + 1), "x" * 10_000, "a\x1bb", "a\u202eb", "a\x00b", "a\ud800b", "\u200b"]
)
def test_names_are_bounded_and_shown_as_they_are(name: str) -> None:
    with pytest.raises(UserError):
        checked(name)


def test_good_names_are_normalised() -> None:
    assert checked("  Ada   Lovelace ") == "Ada Lovelace" and checked("Bo\u0308b") == "B\u00f6b"
    assert checked(HOSTILE) == HOSTILE and checked("小明") == "小明" and checked("--again") == "--again"


def room() -> Classroom:
    return Classroom(read(find("tokens")), 2)


def test_the_teachers_page_shows_who_is_where() -> None:
    class_ = room()
    assert "Nobody has opened" in class_.teachers_page()
    ada = Tour(class_.lesson, "Ada")
    for _ in range(3):
        ada.move(1, Facts())
    ada.done.add(("space", 0))
    ada.save()
    class_.enter(HOSTILE, print)
    page = class_.teachers_page()
    assert "<script>" not in page and html.escape(HOSTILE) in page
    assert "step 2 of 6, The same word, other tokens (2 of 4)" in page and f"1 of {class_.parts}" in page
    assert [row.name for row in class_.rows()] == [HOSTILE, "Ada"]  # open tabs first
    assert class_.rows(time.time() + 600)[1].age == pytest.approx(600, abs=60) and class_.rows()[0].age is None
    while not ada.finished:
        ada.move(1, Facts())
    ada.save()
    assert "has finished" in class_.teachers_page()


@pytest.mark.parametrize("kept", ["", "{", "[]", "null", '{"learner": 3}', '{"learner": "Eve"}', '{"learner": "a\\u001b[31mb"}', '{"learner": "' + "x" * 99 + '"}'])  # fmt: skip
def test_damaged_progress_is_left_out(kept: str) -> None:
    class_ = room()
    folder = learners_dir("tokens")
    folder.mkdir(parents=True)
    (folder / "x.json").write_text(kept, encoding="utf-8")
    assert "Nobody has opened" in class_.teachers_page()
    Tour(class_.lesson, "Ada").path.write_text('{"learner": "Ada", "step": [], "part": 1e400}', encoding="utf-8")
    (row,) = class_.rows()
    assert (row.name, row.done) == ("Ada", 0) and row.where.startswith("step 1 of 6")


def test_the_older_tab_of_a_name_ends() -> None:
    class_, ended = room(), []
    first, second = (lambda: ended.append(1)), (lambda: ended.append(2))
    assert class_.enter("Ada", first) == []
    assert class_.enter("ada", second) == [first] and class_.is_open("ADA") and not class_.full
    class_.leave("Ada", first)  # it ended later than the other began
    assert class_.is_open("Ada")
    class_.leave("ada", second)
    assert not class_.tabs


@pytest.mark.parametrize(("arguments", "line"), [
    (["--most-tabs", "3"], "give --lesson too"),
    (["--lesson", "tokens", "--most-tabs", "0"], "from 1 to 1000"),
    (["--lesson", "tokns"], "did you mean tokens?"),
    (["--lesson", "tokens", "--host", "0.0.0.0"], "can be reached from other machines"),
])  # fmt: skip
def test_bad_options_are_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("textual_serve")
    assert main(["serve", *arguments]) == 2
    told = capsys.readouterr().err
    assert line in told and told.count("\n") == 1


# ── with one ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    pytest.importorskip("textual_serve")
    home = tmp_path_factory.mktemp("home")
    told = home / "told"
    process, line = serving(["--lesson", "tokens", "--most-tabs", "2"], home, told)
    assert process.stdout is not None
    found = [re.search(r"http://\S+", text) for text in (line, process.stdout.readline())]
    assert found[0] is not None and found[1] is not None
    yield found[0][0], found[1][0]
    process.terminate()
    assert process.wait() == 0
    assert "Traceback" not in Path(told).read_text()


async def until_shown(tab: Any, words: str) -> None:
    """Reads the tab's output until the words have been drawn."""
    drawn = ""
    async for message in tab:
        if isinstance(message.data, bytes):
            drawn += ESCAPES.sub("", message.data.decode(errors="replace"))
            if words in drawn:
                return
    pytest.fail(f"the tab was closed before it showed {words}: {drawn[-500:]}")


async def until_closed(tab: Any) -> None:
    """Reads the tab's output: only while it is read does the client answer pings, without which the server closes it."""
    async for _ in tab:
        pass


async def test_a_class(server: tuple[str, str]) -> None:
    import aiohttp
    from yarl import URL

    url, teacher = server

    async def teachers_page(words: str) -> str:
        while True:
            async with session.get(teacher) as answer:
                page = await answer.text()
            if words in page:
                return page
            await asyncio.sleep(0.05)

    async with aiohttp.ClientSession() as session:
        for query, said in (
            ("", "Your name"),
            ("?name=", "at least one character"),
            ("?name=%1b[31m", "no screen shows"),
            ("?name=" + "x" * 99, "at most 40"),
        ):
            async with session.get(f"{url}/{query}") as answer:
                page = await answer.text()
                assert answer.status == 200 and said in page and "\x1b" not in page and "textual.js" not in page
        for query in ("", "?key=", "?key=wrong", "?key=%ff"):
            async with session.get(f"{url}/class{query}") as answer:
                assert answer.status == 403
        async with session.get(f"{url}/", params={"name": " Ada "}) as answer:  # and follows to the app's page
            page = await answer.text()
            assert str(answer.url).endswith("/?name=Ada&begun=1")
            assert f"{url.replace('http', 'ws')}/ws/-Ada" in page
        for name in (".", "..", "a/../b", "{name}", "%2e"):  # a browser resolves a path of dots before it asks for it
            async with session.get(f"{url}/", params={"name": name}) as answer:
                found = re.search(r"ws://[^\"']*/ws/([^\"'/?]+)", await answer.text())
                assert found is not None and found[1] == "-" + quote(name, safe="")
        own = {"Origin": url}
        socket = f"{url.replace('http', 'ws')}/ws/-"
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(f"{socket}Ada", headers={"Origin": "http://evil.example"})
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(f"{socket}%1b", headers=own)
        async with session.ws_connect(f"{socket}Ada?width=100&height=30", headers=own) as tab:
            await until_shown(tab, "Lesson 1/6")
            closed = asyncio.create_task(until_closed(tab))
            page = await teachers_page("step 1 of 6, The space at the end (1 of 2)")
            assert "<td>Ada</td><td>open</td>" in page
            await tab.send_json(["stdin", F4])
            await teachers_page("step 1 of 6, The space at the end (2 of 2)")
            async with session.get(f"{url}/", params={"name": "ada"}) as answer:
                assert "That is me" in await answer.text()
            async with session.ws_connect(f"{socket}Ada", headers=own) as again:
                # The older tab is closed, and this one continues where it was.
                await asyncio.gather(closed, until_shown(again, "(2/2)"))
        await teachers_page("0 of at most 2 tabs open")
        tabs = [session.ws_connect(f"{socket}{name}", headers=own) for name in ("A", "B", "C")]
        opened = await asyncio.gather(*tabs, return_exceptions=True)  # in the same moment
        assert sum(isinstance(tab, aiohttp.WSServerHandshakeError) for tab in opened) == 1
        for tab in opened:
            if isinstance(tab, aiohttp.ClientWebSocketResponse):
                await tab.close()
        for name in ("..", "{a/b}"):
            url_of = URL(f"{socket}{quote(name, safe='')}", encoded=True)
            while True:  # until the tabs before have left their places
                try:
                    tab = await session.ws_connect(url_of, headers=own)
                    break
                except aiohttp.WSServerHandshakeError as error:
                    assert error.status == 503
                    await asyncio.sleep(0.05)
            await until_shown(tab, "Lesson 1/6")
            await tab.close()
        page = await teachers_page("0 of at most 2 tabs open")
        assert "<td>Ada</td><td>closed</td>" in page


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds the app's process in /proc")
async def test_a_tab_whose_app_is_killed_is_closed(server: tuple[str, str]) -> None:
    import aiohttp

    url, teacher = server
    name = f"Zed {os.getpid()}"  # another suite may run on this machine
    async with aiohttp.ClientSession() as session:
        socket = f"{url.replace('http', 'ws')}/ws/-{quote(name)}"
        async with session.ws_connect(socket, headers={"Origin": url}) as tab:
            await until_shown(tab, "Lesson 1/6")
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    if f"--learner={name}\0".encode() in file.read_bytes() + b"\0":
                        os.kill(int(file.parent.name), signal.SIGKILL)
            await until_closed(tab)
            while True:
                async with session.get(teacher) as answer:
                    if f"<td>{name}</td><td>closed</td>" in await answer.text():
                        break
                await asyncio.sleep(0.05)
