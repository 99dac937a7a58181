"""What the tree's screen asks for a line of text for: a name, a file to write, a file to open."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from textual.screen import Screen

from tui_llm.errors import UserError
from tui_llm.tree import Node, Tree
from tui_llm.tree_file import load, save
from tui_llm.tui.saving import free_path
from tui_llm.tui.screens.base import BaseScreen


class KeepsTrees(BaseScreen, Screen[Any]):
    shown_tree: Tree
    file: Path | None = None  # where the tree was saved, or opened from

    @property
    @abstractmethod
    def here(self) -> Node: ...

    @abstractmethod
    def meet(self, tree: Tree) -> None: ...

    @abstractmethod
    def refill(self, node: Node | None = None) -> None: ...

    @abstractmethod
    def say(self, line: str) -> None: ...

    @abstractmethod
    def warn(self, line: str) -> None: ...

    def _line(self, title: str, hint: str, text: str, take: Callable[[str], object]) -> None:
        """Asks for a line; `take` gets it, unless it was given up."""
        from tui_llm.tui.screens.ask import AskScreen

        def answered(line: str | None) -> None:
            if line is not None:
                take(" ".join(line.splitlines()).strip())

        self.app.push_screen(AskScreen(title, hint, text), answered)

    def _confirm(self, question: str, agree: str, go_on: Callable[[], object]) -> None:
        from tui_llm.tui.screens.confirm import ConfirmScreen

        def answered(yes: bool | None) -> None:
            if yes:
                go_on()

        self.app.push_screen(ConfirmScreen(question, agree), answered)

    def action_name(self) -> None:
        node = self.here

        def named(name: str) -> None:
            self.shown_tree.name(node, name)
            self.refill()

        self._line("Name of this way", "Enter names it, empty takes the name off · Esc leaves it", node.name, named)

    def action_save(self) -> None:
        def take(line: str) -> None:
            path = Path(line).expanduser()
            try:
                there = path.exists()
            except (OSError, ValueError):
                there = False
            if there and path != self.file:
                self._confirm(f"{path} is there already. Write over it?", "Write over", lambda: self._save(path))
            elif line:
                self._save(path)

        self._line(
            "Save the tree as",
            "Enter writes it · Esc does not",
            str(self.file or free_path("tree", "json", "trees")),
            take,
        )

    def _save(self, path: Path) -> None:
        try:
            save(self.shown_tree, path)
        except (UserError, OSError, ValueError, RuntimeError) as error:
            self.warn(str(error))
            return
        self.file = path
        self.say(f"saved {path}")

    def action_open_file(self) -> None:
        def take(line: str) -> None:
            if line and len(self.shown_tree) and self.shown_tree.changed:
                self._confirm("This tree was not saved. Open another over it?", "Open", lambda: self._open(line))
            elif line:
                self._open(line)

        self._line("Open a tree", "a JSON file that w, or tui-llm tree --out, wrote", str(self.file or ""), take)

    def _open(self, line: str) -> None:
        try:
            path = Path(line).expanduser()
            tree = load(path)
        except (UserError, OSError, ValueError, RuntimeError) as error:
            self.warn(str(error))
            return
        self.file = path
        self.meet(tree)
