"""The tree of continuations on the screen: navigating, growing, drawing, pruning, files, inserting into the text."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path

import pytest
from fake_engine import VOCABULARY, FakeEngine
from helpers import answered, drawn, make_app, unsafe, until
from textual.pilot import Pilot

from tests import HANG
from tui_llm.common.errors import UserError
from tui_llm.facts.model import Weights
from tui_llm.facts.prediction import Candidate
from tui_llm.instruments.tree.question import (
    Branches,
    BranchPoint,
    BranchQuestion,
    Known,
    KnownQuestion,
    NextToken,
    SampleQuestion,
)
from tui_llm.instruments.tree.tree_file import load, save, tree_json
from tui_llm.tui.app import LabApp
from tui_llm.tui.instruments.tree.tree import TreeScreen
from tui_llm.tui.kit.ask import AskScreen
from tui_llm.tui.kit.confirm import ConfirmScreen
from tui_llm.tui.state.messages import ModelOpened


class TreeEngine(FakeEngine):
    """A fake that answers the tree's questions; `free` can hold the expansions back."""

    def __init__(self, hostile: bool = False) -> None:
        super().__init__(hostile)
        self.free = threading.Event()
        self.free.set()
        self.answers |= {BranchQuestion: self.branch, SampleQuestion: self.sample, KnownQuestion: self.known}

    def _rows(self, question: BranchQuestion | SampleQuestion, path: tuple[int, ...]) -> tuple[Candidate, ...]:
        ids = self.encode(question.request.prompt) + list(question.request.continuation) + list(path)
        return self.distribution(ids, question.request).candidates

    def _next(self, row: Candidate, u: float | None = None) -> NextToken:
        return NextToken(self.token(row.id), math.log(row.raw_probability), row.probability, row.rank, u)

    def branch(self, question: BranchQuestion) -> Branches:
        assert self.free.wait(HANG)
        found = [
            BranchPoint(path, tuple(self._next(row) for row in self._rows(question, path)[: question.count]))
            for path in question.paths
        ]
        assert self.weights is not None
        return Branches(self.weights, tuple(found), 1, 1.0)

    def sample(self, question: SampleQuestion) -> Branches:
        path, found = question.path, []
        for _ in range(question.count):
            row = self._rows(question, path)[question.seed % 7]
            found.append(BranchPoint(path, (self._next(row, 0.25),)))
            path = (*path, row.id)
        assert self.weights is not None
        return Branches(self.weights, tuple(found), 1, 1.0)

    def known(self, question: KnownQuestion) -> Known:
        assert self.weights is not None
        ids = self.encode(question.request.prompt) + list(question.request.continuation)
        return Known(self.weights, tuple(ids), tuple(self.token(id) for id in question.ids))


async def open_tree(pilot: Pilot[None], app: LabApp) -> TreeScreen:
    await answered(pilot, app.lab_screen)
    await pilot.press("escape", "5", "T")
    await until(pilot, lambda: isinstance(app.screen, TreeScreen))
    screen = app.screen
    assert isinstance(screen, TreeScreen)
    await until(pilot, lambda: len(screen.shown_tree) >= 3)
    await pilot.pause()
    return screen


async def type_line(pilot: Pilot[None], app: LabApp, text: str) -> None:
    await until(pilot, lambda: app.screen.query("#answer"))
    app.screen.query_one("#answer").set_text(text)  # type: ignore[attr-defined]
    await pilot.press("enter")
    await pilot.pause()


async def test_at_80_by_24_the_numbers_and_their_names() -> None:
    app = make_app(TreeEngine())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_tree(pilot, app)
        text = "\n".join(drawn(app))
        for words in ("raw p", "drawn p", "−ln p", "path p", "total", "3 of 1,000 next tokens", "k 3", "depth 4"):
            assert words in text
        first = screen.shown_tree.root.children[0]
        row = next(line for line in drawn(app) if line.strip().startswith("1 "))
        assert f"{100 * first.probability:.1f} %" in row and f"{first.surprisal:.2f}" in row
        covered = sum(child.probability for child in screen.shown_tree.root.children)
        assert f"raw p sums to {100 * covered:.1f} %" in text


async def test_keys_move_through_the_tree_and_to_siblings() -> None:
    app = make_app(TreeEngine())
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await open_tree(pilot, app)
        root = screen.shown_tree.root
        await pilot.press("right")
        assert screen.here is root.children[0]
        await pilot.press("enter")  # no children yet: they are requested
        await until(pilot, lambda: root.children[0].children)
        await pilot.press("right", "down")
        assert screen.here is root.children[0].children[1]
        await pilot.press("left")
        assert screen.here is root.children[0]
        await pilot.press("down")  # the next sibling, skipping the children
        assert screen.here is root.children[1]
        await pilot.press("up")
        assert screen.here is root.children[0]
        await pilot.press("j")  # the line below, which is a child
        assert screen.here is root.children[0].children[0]
        await pilot.press("left", "z")
        assert len(screen.lines.nodes) == 4
        await pilot.press("right")  # unfolds
        assert screen.here is root.children[0].children[0]
        await pilot.press("end")
        assert screen.here is root.children[2]


async def test_k_sets_how_many_children_e_adds() -> None:
    app = make_app(TreeEngine())
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await open_tree(pilot, app)
        await pilot.press("5", "e")
        await until(pilot, lambda: len(screen.shown_tree) == 5)
        likeliest = [-node.log_probability for node in screen.shown_tree.root.children]
        assert likeliest == sorted(likeliest)


async def test_growing_within_its_bounds() -> None:
    app = make_app(TreeEngine())
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await open_tree(pilot, app)
        await pilot.press("2", "minus", "less_than_sign", "less_than_sign", "less_than_sign", "less_than_sign", "E")
        await until(pilot, lambda: screen.growth is None)
        tree = screen.shown_tree  # of 3 nodes, 2 grow to depth 3
        assert len(tree) == 3 + 4 + 8 and max(node.depth for node in tree.nodes()) == 3
        await pilot.press("b", "b", "b", "equals_sign", "9", "E")  # a budget of 100
        await until(pilot, lambda: screen.growth is None and len(tree) > 15)
        assert screen.rules.budget == 100 and 100 <= len(tree) <= 115


async def test_esc_stops_growing_and_readings_are_not_held_up() -> None:
    engine = TreeEngine()
    app = make_app(engine)
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await open_tree(pilot, app)
        engine.free.clear()
        await pilot.press("E")
        await until(pilot, lambda: screen.growth is not None)
        await pilot.pause()
        assert "Esc stops" in "\n".join(drawn(app))
        await pilot.press("g")  # refused now
        await pilot.press("escape")
        assert screen.growth is None and app.screen is screen
        engine.free.set()
        app.lab_screen.readings.request()
        await answered(pilot, app.lab_screen)
        assert len(screen.shown_tree) == 3  # a late answer is dropped
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.lab_screen)


async def test_drawing() -> None:
    app = make_app(TreeEngine())
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await open_tree(pilot, app)
        tree = screen.shown_tree
        await pilot.press("g")
        await until(pilot, lambda: tree.draws == 1 and not screen._sampling)
        assert (screen.here.depth == 1 and screen.here.u == 0.25) or screen.here in tree.root.children
        await pilot.press("home", "plus", "space")
        await until(pilot, lambda: tree.draws == 2 and not screen._sampling)
        assert screen.here.depth == 5
        questions = [q for q in app.lab_screen.context.client._engine.questions if isinstance(q, SampleQuestion)]  # type: ignore[union-attr]
        assert [q.seed for q in questions] == [1, 2] and [q.count for q in questions] == [1, 5]


async def test_pruning_undoing_naming() -> None:
    app = make_app(TreeEngine())
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await open_tree(pilot, app)
        before = tree_json(screen.shown_tree)
        gone = screen.shown_tree.root.children[1]
        await pilot.press("x")  # the root can't be removed
        await pilot.press("right", "down", "x")
        assert len(screen.shown_tree) == 2 and "1 pruned" in drawn(app)[0]
        await pilot.press("u")
        assert tree_json(screen.shown_tree) == before and screen.here is gone
        await pilot.press("n")
        await type_line(pilot, app, "[/] the \x1b[31m one")
        assert gone.name and not unsafe(drawn(app))
        assert "[/] the" in "\n".join(drawn(app))


async def test_a_path_is_appended_to_the_text_as_ids_and_the_tree_is_kept() -> None:
    app = make_app(TreeEngine())
    async with app.run_test(size=(100, 30)) as pilot:
        lab = app.lab_screen
        screen = await open_tree(pilot, app)
        await pilot.press("a")  # the root is the text itself
        assert app.screen is screen
        await pilot.press("right", "right")
        await until(pilot, lambda: screen.here.children)
        await pilot.press("right", "down")
        node = screen.here
        await pilot.press("a")
        await until(pilot, lambda: app.screen is lab)
        assert lab.lab.continuation == node.path and lab.lab.generated_text == node.text
        assert [step.by_hand for step in lab.lab.steps] == [True, True]
        assert lab.lab.steps[1].raw_probability == node.probability
        await answered(pilot, lab)
        await pilot.press("c")  # removes these tokens again
        await answered(pilot, lab)
        await pilot.press("T")
        await until(pilot, lambda: app.screen is not lab)
        assert app.screen.shown_tree is screen.shown_tree  # type: ignore[attr-defined]


async def test_saving_and_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = make_app(TreeEngine())
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await open_tree(pilot, app)
        await pilot.press("w")
        await pilot.pause()
        await pilot.press("enter")
        await until(pilot, lambda: (tmp_path / "tree-1.json").exists())
        saved = tree_json(load(tmp_path / "tree-1.json"))
        assert saved == tree_json(screen.shown_tree)
        await pilot.press("right", "x", "x", "o")
        await type_line(pilot, app, "tree-1.json")
        await pilot.press("y")  # confirms replacing the unsaved tree
        await until(pilot, lambda: len(screen.shown_tree) == 3 and not screen.frozen)
        (tmp_path / "other.json").write_text("[red]{")
        await pilot.press("o")
        await type_line(pilot, app, "other.json")
        await pilot.pause()
        assert len(screen.shown_tree) == 3
        await pilot.press("w")
        await type_line(pilot, app, "other.json")  # asks before replacing
        await pilot.press("n")
        await pilot.pause()
        assert (tmp_path / "other.json").read_text() == "[red]{"


async def test_an_existing_file_is_overwritten_only_after_a_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = make_app(TreeEngine())
    own = tmp_path / "tree-1.json"
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await open_tree(pilot, app)
        await pilot.press("w")
        await until(pilot, lambda: isinstance(app.screen, AskScreen))
        own.write_text("theirs")  # the file appears after the name was offered
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        assert own.read_text() == "theirs"
        await pilot.press("y")
        await until(pilot, lambda: own.read_text() != "theirs")
        await until(pilot, lambda: app.screen is screen)
        inode = own.stat().st_ino
        await pilot.press("w")
        await until(pilot, lambda: isinstance(app.screen, AskScreen))
        await pilot.press("enter")  # its own unchanged file is replaced without a question
        await until(pilot, lambda: app.screen is screen and own.stat().st_ino != inode)
        own.write_text("theirs again")
        await pilot.press("w")
        await until(pilot, lambda: isinstance(app.screen, AskScreen))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("n")
        await until(pilot, lambda: app.screen is screen)
        assert own.read_text() == "theirs again"


async def test_a_tree_of_another_model_or_with_other_bytes_is_read_only(tmp_path: Path) -> None:
    app = make_app(TreeEngine())
    async with app.run_test(size=(110, 30)) as pilot:
        screen = await open_tree(pilot, app)
        value = tree_json(screen.shown_tree)
        value["model"]["name"] = "x\x1b[31m[/]"
        (tmp_path / "model.json").write_text(json.dumps(value))
        value = tree_json(screen.shown_tree)
        value["nodes"][0]["bytes"] = b"[/]\x1b]0;x\x07".hex()
        (tmp_path / "bytes.json").write_text(json.dumps(value))
        value = tree_json(screen.shown_tree)
        value["text"]["ids"] = [1, 2]
        (tmp_path / "text.json").write_text(json.dumps(value))
        for name, words in (("model", "not of the open model"), ("bytes", "not those of"), ("text", "other tokens")):
            await pilot.press("o")
            await type_line(pilot, app, str(tmp_path / f"{name}.json"))
            await pilot.press("y")
            await until(pilot, lambda words=words: words in screen.frozen)
            await pilot.press("right", "e", "E", "g", "a")
            await pilot.pause()
            assert app.screen is screen and len(screen.shown_tree) == 3
            assert not unsafe(drawn(app))


async def test_a_tree_file_with_another_text_sets_the_prompt(tmp_path: Path) -> None:
    app = make_app(TreeEngine())
    async with app.run_test(size=(110, 30)) as pilot:
        lab = app.lab_screen
        screen = await open_tree(pilot, app)
        path = tmp_path / "t.json"
        save(screen.shown_tree, path)
        await pilot.press("escape", "i", "!")
        await answered(pilot, lab)
        prompt = lab.lab.prompt
        screen = await open_tree(pilot, app)
        await pilot.press("o")
        await type_line(pilot, app, str(path))
        await pilot.press("y")
        await until(pilot, lambda: not screen.frozen and screen.shown_tree.request.prompt != prompt)
        await pilot.press("right", "a")
        await until(pilot, lambda: app.screen is lab)
        await answered(pilot, lab)
        assert lab.lab.prompt == "The cat sat on the" == lab.prompt.prompt_text
        assert len(lab.lab.continuation) == 1


async def test_the_tree_is_read_only_while_another_model_is_open() -> None:
    app = make_app(TreeEngine())
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await open_tree(pilot, app)
        old = app.lab_screen.weights
        assert old is not None
        app.lab_screen.post_message(ModelOpened(Weights("run", 9, 5, 1, 1, 4, 64, VOCABULARY, "cpu"), fresh=False))
        await until(pilot, lambda: "run at step 9" in screen.frozen)
        app.lab_screen.post_message(ModelOpened(old))
        await until(pilot, lambda: not screen.frozen)


async def test_a_problem_is_one_line() -> None:
    engine = TreeEngine()
    app = make_app(engine)

    def fail(_question: object) -> Branches:
        raise UserError("[/] no\nanswer")

    async with app.run_test(size=(100, 30)) as pilot:
        screen = await open_tree(pilot, app)
        engine.answers[BranchQuestion] = fail
        await pilot.press("E")
        await until(pilot, lambda: screen.growth is None and not screen._busy)
        assert len(screen.shown_tree) == 3


@pytest.mark.parametrize("size", [(80, 24), (1, 1), (30, 8)])
async def test_hostile_tokens_and_any_size(size: tuple[int, int]) -> None:
    app = make_app(TreeEngine(hostile=True), prompt="a [/] \x1b[31m \u202e 漢e\u0301")
    async with app.run_test(size=size) as pilot:
        screen = await open_tree(pilot, app)
        await pilot.press("9", "greater_than_sign", "E")
        await until(pilot, lambda: screen.growth is None)
        for key in ("right", "space", "down", "z", "k", "end", "x", "u", "y"):
            await pilot.press(key)
            await until(pilot, lambda: not screen._sampling)
            assert not unsafe(drawn(app))
            assert all(len(line) <= size[0] or size[0] < 10 for line in drawn(app)[:1])
        rows = list(screen.lines.table())
        assert len({len(row) for row in rows}) == 1 and not unsafe(["".join(row) for row in rows])


async def test_the_tree_is_copied_and_its_commands_are_in_the_palette() -> None:
    from tui_llm.tui.app import CommandProvider

    app = make_app(TreeEngine())
    async with app.run_test(size=(100, 30)) as pilot:
        await open_tree(pilot, app)
        await pilot.press("y")
        lines = app.clipboard.splitlines()
        assert lines[0].startswith("depth\tid\tbytes") and len(lines) == 4
        labels = {str(hit.text) async for hit in CommandProvider(app.screen).discover()}
        assert any("prune" in label for label in labels)
