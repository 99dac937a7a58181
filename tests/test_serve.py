"""The app in a browser: not served to other machines, closed to other pages, and used in a real browser."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tui_llm.cli import main

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
SOCKETS, LISTENING = Path("/proc/net/tcp"), "0A"  # Linux: its tenth column is the socket's inode
ESCAPES = re.compile(r"\x1b\[[0-9;?>]*[A-Za-z]")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serving(words: list[str], home: Path, told: Path) -> tuple[subprocess.Popen[str], str]:
    """A `serve` process that listens, and its first line, which it prints before. Where another process takes the free port
    meanwhile, it gets another one."""
    while True:
        port = free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", "tui_llm", "serve", "--port", str(port), *words],
            env={**os.environ, "TUI_LLM_HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=told.open("w"),
            text=True,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        while process.poll() is None:  # the test's timeout ends a futile wait
            if line and listens(process, port):
                return process, line
            time.sleep(0.01)
        process.communicate()
        assert "in use" in told.read_text(), told.read_text()


def listens(process: subprocess.Popen[str], port: int) -> bool:
    """Whether the process listens: itself, where that can be told, since another one may have taken the port."""
    if not SOCKETS.exists():
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0
    try:
        own = {str(file.readlink()) for file in Path(f"/proc/{process.pid}/fd").iterdir()}
    except OSError:  # it has just closed one, or ended
        return False
    rows = (row.split() for row in SOCKETS.read_text().splitlines())
    return any(row[3] == LISTENING and f"socket:[{row[9]}]" in own for row in rows)


ONCE = """
import socket, sys
print({name!r}, flush=True)
if {name!r} == "loses":
    sys.exit("address already in use")
listening = socket.create_server(("127.0.0.1", 0))
sys.stdin.read()
"""


def test_a_server_that_loses_its_port_after_its_line_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, start = iter(["loses", "listens"]), subprocess.Popen

    def once(_command: list[str], **more: Any) -> Any:
        return start([sys.executable, "-c", ONCE.format(name=next(names))], stdin=subprocess.PIPE, **more)

    monkeypatch.setattr(subprocess, "Popen", once)
    process, line = serving([], tmp_path, tmp_path / "told")
    assert line == "listens\n" and process.poll() is None
    process.communicate()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("textual_serve")
    home = tmp_path_factory.mktemp("home")
    told = home / "told"
    process, line = serving(["--prompt", "The cat sat on the"], home, told)
    found = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert found is not None, line
    yield found[0]
    process.terminate()
    assert process.wait() == 0
    assert "Traceback" not in told.read_text()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--host", "0.0.0.0"], "can be reached from other machines"),
        (["--host", "example.org"], "can be reached from other machines"),
        (["--port", "0"], "give a number from 1"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_requests_from_other_pages_and_addresses_are_refused(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *arguments]) == 2
    told = capsys.readouterr().err
    assert line in told and told.count("\n") == 1


@pytest.mark.parametrize(("host", "family"), [("0.0.0.0", socket.AF_INET), ("::", socket.AF_INET6)])
def test_the_address_that_is_told_is_one_that_others_can_open(host: str, family: socket.AddressFamily) -> None:
    pytest.importorskip("textual_serve")
    from tui_llm.commands.shared.server import Server

    told = urlsplit(Server("app", host, 8123).public_url)
    assert told.port == 8123 and told.hostname not in ("0.0.0.0", "::", None)
    try:
        listening = socket.socket(family)
        listening.bind((host, 0))
    except OSError:
        pytest.skip(f"this machine has no {host}")
    with listening:
        listening.listen()
        if told.hostname != socket.gethostname().lower():  # the name may not be known here
            socket.create_connection((told.hostname, listening.getsockname()[1])).close()


def test_a_port_in_use_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["serve", "--port", str(taken.getsockname()[1])]) == 2
    assert "is in use" in capsys.readouterr().err


def test_only_its_own_page_may_connect(server: str) -> None:
    """Any page open in a browser may try to connect to this machine, under any host name."""

    port = int(server.rpartition(":")[2])
    own = f"127.0.0.1:{port}"

    def status(path: str, host: str = own, *headers: str) -> int:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall("\r\n".join([f"GET {path} HTTP/1.1", f"Host: {host}", *headers, "", ""]).encode())
            return int(connection.recv(100).split()[1])

    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + "A" * 22 + "==")  # fmt: skip
    assert status("/") == 200
    assert status("/", "evil.example") == 403
    assert status("/ws", own, "Origin: http://evil.example", *upgrade) == 403
    assert status("/ws", own, *upgrade) == 403
    assert status("/ws", own, f"Origin: {server}", *upgrade) == 101


def answer(server: str, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", int(server.rpartition(":")[2]))) as connection:
        connection.sendall(request)
        return connection.recv(100)


@pytest.mark.parametrize(
    "path",
    [
        "/" + "a" * 300,
        "/static/" + "a" * 300,
        "/static/" + "a" * 70_000,
        "/static/%00",
        "/download/" + "k" * 5000,
        "/\xff",
    ],
)
def test_no_requested_path_stops_the_server(server: str, path: str) -> None:
    """The fixture `server` checks for tracebacks at the end."""
    host = server.removeprefix("http://")
    assert answer(server, f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1")).split()[1] in (
        b"404",
        b"400",
    )
    assert answer(server, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()).split()[1] == b"200"


def test_the_page_gives_the_terminal_the_focus(server: str) -> None:
    """`test_a_real_browser_opens_the_app_and_types` types without a click; this holds where there is no browser."""
    with urllib.request.urlopen(server) as answer:
        page = answer.read().decode()
    head, _, body = page.partition("</head>")
    assert head.count("focusTerminal()") >= 2 and 'id="terminal"' in body
    with urllib.request.urlopen(f"{server}/static/js/textual.js") as answer:
        assert b"xterm-helper-textarea" in answer.read()  # the class that xterm.js gives the element


NO_MESSAGES = [
    "", "nonsense", "null", "1e999", "{}", "[]", "[1]", '"stdin"', '["stdin"]', '["stdin", 5]', '["stdin", "a", "b"]', '["stdin", ""]',
    '["resize"]', '["resize", 4]', '["resize", {}]', '["resize", {"width": "a", "height": null}]', '["resize", {"width": 1e9, "height": 1}]',
    '["ping"]', '["unknown", 1]', "[" * 100_000,
]  # fmt: skip


def test_messages_that_no_page_sends_are_dropped() -> None:
    messages = pytest.importorskip("tui_llm.commands.shared.browser_messages")
    assert [text for text in NO_MESSAGES if messages.checked(text) is not None] == []
    assert messages.checked('["stdin", "a\\ud800"]').json() == ["stdin", "a?"]
    assert messages.checked('["resize", {"width": 1000000000, "height": -4}]').json() == [
        "resize",
        {"width": 1000, "height": 1},
    ]
    assert messages.checked('["blur"]').json() == ["blur"]


async def test_malformed_messages_leave_the_tab_open(server: str) -> None:
    aiohttp = pytest.importorskip("aiohttp")
    where = server.replace("http", "ws") + "/ws?width=99999999999&height=-1"
    async with aiohttp.ClientSession() as session, session.ws_connect(where, headers={"Origin": server}) as tab:
        for text in NO_MESSAGES:
            await tab.send_str(text)
        await tab.send_bytes(b"\xff\x00")
        await tab.send_str('["ping", 7]')
        async for message in tab:
            if message.type == aiohttp.WSMsgType.TEXT:
                assert message.json() == ["pong", 7]
                break
        else:
            pytest.fail("the tab was closed")


@pytest.fixture
def page(server: str, tmp_path: Path) -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=0)
        page = browser.new_page(viewport={"width": 1300, "height": 800})
        page.set_default_timeout(0)  # none: the test's own timeout applies
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        yield page
        browser.close()
        assert asked and all(url.startswith((server, "data:")) for url in asked), "it works without a network"


def test_a_real_browser_opens_the_app_and_types(page: Any, server: str) -> None:
    """The page draws on a canvas, so the test reads the data sent to it instead."""
    drawn: list[bytes] = []

    def connected(socket: Any) -> None:
        socket.on("framereceived", lambda data: drawn.append(data) if isinstance(data, bytes) else None)

    def wait_for(words: str) -> None:
        while words not in ESCAPES.sub("", b"".join(drawn).decode(errors="replace")):
            page.wait_for_timeout(50)  # lets frames arrive; the test's own timeout applies
        drawn.clear()

    page.on("websocket", connected)
    page.goto(server)
    wait_for("tokens of nano")  # and typed without a click
    page.keyboard.type(" table")
    wait_for("·table")  # the panes are updated
    page.keyboard.press("Escape")
    wait_for("i edits")  # otherwise Esc and q would be read as Alt+q
    page.keyboard.press("q")
    page.wait_for_selector(".closed-dialog", state="visible")  # the app's process has ended
