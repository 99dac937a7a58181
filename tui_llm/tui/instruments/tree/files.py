"""The tree screen's forms for one line of text: a name, a file to write, a file to open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tui_llm.common import paths
from tui_llm.common.errors import UserError
from tui_llm.common.new_files import AlreadyExists
from tui_llm.facts.interventions import refusal
from tui_llm.instruments.tree.tree import Node, Tree
from tui_llm.instruments.tree.tree_file import load, save
from tui_llm.tui.kit.save import free_path
from tui_llm.tui.state.context import LabContext


class TreeFiles:
    """`tree` is the one that is shown, `here` the node under the cursor. `changed` shows the tree again, `opened` another
    one."""

    def __init__(
        self,
        context: LabContext,
        tree: Callable[[], Tree],
        here: Callable[[], Node],
        changed: Callable[[], None],
        opened: Callable[[Tree], None],
    ) -> None:
        self.context, self.tree, self.here, self.changed, self.opened = context, tree, here, changed, opened
        self.file: Path | None = None  # where the tree was saved, or opened from
        self.file_state: tuple[int, ...] | None = None  # the `_state` of that file at that time

    def _line(self, title: str, hint: str, text: str, take: Callable[[str], object]) -> None:
        """Asks for a line of text; calls `take` with it, unless the user cancels."""
        from tui_llm.tui.kit.ask import AskScreen

        def answered(line: str | None) -> None:
            if line is not None:
                take(" ".join(line.splitlines()).strip())

        self.context.push_screen(AskScreen(title, hint, text), answered)

    def _confirm(self, question: str, agree: str, go_on: Callable[[], object]) -> None:
        from tui_llm.tui.kit.confirm import ConfirmScreen

        def answered(yes: bool | None) -> None:
            if yes:
                go_on()

        self.context.push_screen(ConfirmScreen(question, agree), answered)

    def name(self) -> None:
        node = self.here()

        def named(name: str) -> None:
            self.tree().name(node, name)
            self.changed()

        self._line("Name of this path", "Enter names it, empty removes the name · Esc cancels", node.name, named)

    def save(self) -> None:
        def take(line: str) -> None:
            try:
                path = paths.expand(line)
            except UserError as error:
                self.context.warn(str(error))
                return
            if line:
                self._save(path, over=path == self.file and self.file_state == _state(path))

        try:
            path = self.file or free_path("tree", "json", "trees")
        except UserError as error:
            self.context.warn(str(error))
            return
        self._line("Save the tree as", "Enter saves · Esc cancels", str(path), take)

    def _save(self, path: Path, over: bool = False) -> None:
        """Saves the tree; asks before it overwrites a file. `over`: overwrites it without asking."""
        try:
            save(self.tree(), path, force=over)
        except AlreadyExists:
            question = f"{path} already exists. Overwrite it?"
            self._confirm(question, "Overwrite", lambda: self._save(path, over=True))
        except UserError as error:
            self.context.warn(str(error))
        else:
            self._note_file(path)
            self.context.notify(f"saved {path}")

    def _note_file(self, path: Path) -> None:
        self.file, self.file_state = path, _state(path)

    def open(self) -> None:
        def take(line: str) -> None:
            if line and len(self.tree()) and self.tree().changed:
                self._confirm("This tree is not saved. Open another in its place?", "Open", lambda: self._open(line))
            elif line:
                self._open(line)

        self._line("Open a tree", "a JSON file that w, or tui-llm tree --out, wrote", str(self.file or ""), take)

    def _open(self, line: str) -> None:
        try:
            path = paths.expand(line)
            tree = load(path)
            if off := self.context.lab.interventions:
                raise UserError(refusal("a tree from a file is of an unchanged model", off))
        except UserError as error:
            self.context.warn(str(error))
            return
        self._note_file(path)
        self.opened(tree)


def _state(path: Path) -> tuple[int, ...] | None:
    """What identifies the content of a file: writing it changes this. None if the file does not exist."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
