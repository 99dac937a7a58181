"""A package index on loopback: the wheel of this checkout, and for each installed package a stub of the same name and version.

The stubs contain no code. One of them puts this Python's packages on the path of the environment that they are installed into, so
that an installer resolves and installs all that tui-llm requires, in seconds and without a network.
"""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from threading import Thread


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def fill(folder: Path, wheel: Path) -> None:
    """Writes the index's files, in the layout of PEP 503."""
    for distribution in metadata.distributions():
        name, version = distribution.metadata["Name"], distribution.version
        if name and normalized(name) != "tui-llm":
            _stub(folder / "simple" / normalized(name), name, version)
    own = folder / "simple" / "tui-llm"
    own.mkdir(parents=True)
    (own / wheel.name).write_bytes(wheel.read_bytes())


def _stub(folder: Path, name: str, version: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{re.sub(r'[-_.]+', '_', name)}-{version}"
    files = {
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if normalized(name) == "textual":  # a dependency: every installer installs it
        files["packages_of_the_tests.pth"] = "\n".join(path for path in sys.path if path.endswith("-packages"))
    record = "".join(f"{file},,\n" for file in [*files, f"{stem}.dist-info/RECORD"])
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as archive:
        for file, text in {**files, f"{stem}.dist-info/RECORD": record}.items():
            archive.writestr(file, text)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The index's address while the block runs."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/simple"
        finally:
            server.shutdown()
