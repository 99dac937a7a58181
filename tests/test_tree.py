"""The tree as data: sums, pruning and undoing, growing within bounds, its file; and the command that prints it."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui_llm import cli
from tui_llm.common.errors import UserError
from tui_llm.facts.model import Weights
from tui_llm.facts.request import Request
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.facts.tokens import Token
from tui_llm.instruments.tree.question import Branches, BranchPoint, NextToken
from tui_llm.instruments.tree.tree import Growth, Node, Tree
from tui_llm.instruments.tree.tree_file import load, same_model, save, tree_json
from tui_llm.llm.tokens.token_bytes import token_text

WEIGHTS = Weights("na\x1b[31mno[/]", 7, 1000, 2, 2, 16, 32, 50, "cpu")
BYTES = [b"[/]", b"\x1b[31m", b"\xe2", "漢e\u0301\u202e".encode(), b" cat"]


def nexts(path: tuple[int, ...], count: int) -> tuple[NextToken, ...]:
    """Returns tokens with probabilities 1/2, 1/4, … after any path; ids differ by depth."""
    return tuple(
        NextToken(Token(id := (place * 7 + len(path)) % 50, BYTES[id % 5], token_text(BYTES[id % 5]), special=id == 49),
             -(place + 1) * math.log(2), 0.5 if place == 0 else 0.0, place + 1)
        for place in range(count)
    )  # fmt: skip


def answers(paths: tuple[tuple[int, ...], ...], count: int) -> Branches:
    return Branches(WEIGHTS, tuple(BranchPoint(path, nexts(path, count)) for path in paths), 1, 0.1)


def grown(
    count: int = 3, depth: int = 3, least: float = 0.0, budget: int = 1000, batch: int = 4
) -> tuple[Tree, Growth]:
    tree = Tree(
        Request(prompt="a", sampler=SamplerSettings(0.5, 3, 0.9, sequential_cuts=True)),
        WEIGHTS,
        seed=3,
        text_ids=(1, 2),
    )
    growth = Growth(tree, tree.root, count, depth, least, budget)
    while not growth.done:
        growth.take(answers(growth.batch(batch), count))
    return tree, growth


def facts(tree: Tree) -> list[object]:
    return [(n.path, n.log_path, n.log_drawn, n.size, n.depth, n.name, n.expanded) for n in tree.nodes()]


def check(tree: Tree) -> None:
    for node in tree.nodes():
        assert node.size == 1 + sum(child.size for child in node.children)
        assert node.covered <= 1 + 1e-9
        assert node.log_path == pytest.approx(sum(n.log_probability for n in node.path_nodes))
        assert node.path_probability == pytest.approx(math.prod(n.probability for n in node.path_nodes))
        assert node.total == pytest.approx(sum(n.surprisal for n in node.path_nodes)) and node.depth == len(
            node.path_nodes
        )
        keys = [(-child.log_probability, child.id) for child in node.children]
        assert keys == sorted(keys) and len({child.id for child in node.children}) == len(keys)
        assert all(child.parent is node for child in node.children)
        assert tree.find(node.path) is node
    assert len(tree) == sum(1 for _ in tree.nodes()) - 1


@given(st.data())
def test_sums_hold_after_any_change_and_undo_restores_the_tree(data: st.DataObject) -> None:
    tree, _ = grown(data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3)))
    before, pruned = facts(tree), 0
    for _ in range(data.draw(st.integers(0, 6))):
        nodes = [node for node in tree.nodes() if node.parent is not None]
        if nodes:
            node = data.draw(st.sampled_from(nodes))
            parent = node.parent
            assert tree.prune(node) is parent and tree.find(node.path) is None
            pruned += 1
        check(tree)
    assert tree.pruned == pruned
    while tree.undo() is not None:
        check(tree)
    assert facts(tree) == before


@given(st.data())
def test_growing_again_between_pruning_and_undoing_loses_nothing(data: st.DataObject) -> None:
    tree, _ = grown(3, 3)
    everything = {node.path for node in tree.nodes()}
    for _ in range(data.draw(st.integers(1, 5))):
        nodes = [node for node in tree.nodes() if node.parent is not None]
        if nodes and data.draw(st.booleans()):
            tree.prune(data.draw(st.sampled_from(nodes)))
        node = data.draw(st.sampled_from(list(tree.nodes())))
        tree.take(BranchPoint(node.path, nexts(node.path, 3)))
        if data.draw(st.booleans()):
            tree.undo()
        check(tree)
    while tree.undo() is not None:
        check(tree)
    assert everything <= {node.path for node in tree.nodes()}


@given(
    st.integers(1, 5), st.integers(1, 5), st.sampled_from([0.0, 0.5, 0.1, 0.01]), st.integers(1, 60), st.integers(1, 9)
)
def test_growth_stays_within_its_bounds(count: int, depth: int, least: float, budget: int, batch: int) -> None:
    tree, growth = grown(count, depth, least, budget, batch)
    check(tree)
    assert len(tree) == growth.added <= budget
    assert all(n.depth <= depth and n.path_probability >= least - 1e-9 for n in tree.nodes())
    if growth.full:
        assert growth.added == budget
    else:
        whole = sum(count**d for d in range(1, depth + 1))
        assert least or len(tree) == whole
        again = Growth(tree, tree.root, count, depth, least, budget)
        assert again.done  # everything is known already


def test_growth_does_not_bring_back_what_was_pruned_and_survives_pruning() -> None:
    tree, _ = grown(2, 2)
    gone = tree.root.children[0]
    tree.prune(gone)
    growth = Growth(tree, tree.root, 2, 3)
    asked = growth.batch()
    assert asked and not any(path[0] == gone.id for path in asked)
    tree.prune(tree.root.children[0])
    growth.take(answers(asked, 2))
    assert growth.done and len(tree) == 0


def test_the_end_of_the_text_is_not_grown() -> None:
    tree = Tree(Request(prompt="a"), WEIGHTS)
    end = tree.add(tree.root, NextToken(Token(49, b"<|endoftext|>", "<|endoftext|>", True), -0.1, 0.9, 1, ends=True))
    tree.root.expanded = 3
    assert Growth(tree, tree.root, 3, 5).done
    assert not Growth(tree, end, 3, 5).done  # unless requested
    role = tree.add(tree.root, NextToken(Token(48, b"<|im_start|>", "<|im_start|>", True), -3.0, 0.1, 2))
    assert Growth(tree, tree.root, 3, 5).batch() == (role.path,)  # special, but generation goes on after it


def test_a_sample_joins_existing_branches() -> None:
    tree, _ = grown(2, 2)
    first, second = tree.root.children[1], nexts((tree.root.children[1].id,), 9)[8]
    sample = Branches(WEIGHTS, (BranchPoint((), (nexts((), 2)[1],)), BranchPoint(first.path, (second,))), 2, 0.1)
    last = tree.take_sample(sample)
    assert last is not None and last.parent is first and last.path == (first.id, second.token.id)
    check(tree)
    tree.prune(first)
    assert tree.take_sample(Branches(WEIGHTS, (BranchPoint(first.path, (second,)),), 1, 0.1)) is None


# ── the file ──


def test_saved_and_opened_is_the_same(tmp_path: Path) -> None:
    tree, _ = grown(4, 3)
    tree.name(tree.root.children[0], "[/]\x1b[31m good \u202e" + "x" * 200)
    tree.root.children[1].collapsed = True
    third = tree.root.children[2]
    assert third.found is not None
    third.found = dataclasses.replace(third.found, u=0.0)
    save(tree, path := tmp_path / "tree.json")
    again = load(path)
    check(again)
    assert facts(again) == facts(tree) and not again.changed
    assert again.request == tree.request and (again.seed, again.draws, again.text_ids) == (3, 0, (1, 2))
    assert tree_json(again) == tree_json(tree)
    assert same_model(again.weights, tree.weights)
    assert not same_model(again.weights, Weights("other", 7, 1000, 2, 2, 16, 32, 50, "cpu"))


def test_which_tokens_end_the_text_is_kept_and_read_from_earlier_files(tmp_path: Path) -> None:
    tree = Tree(Request(prompt="a"), WEIGHTS)
    kinds = {46: (False, False), 47: (True, True), 48: (True, False), 49: (False, True)}  # special, ends
    for rank, (id, (special, ends)) in enumerate(kinds.items(), 1):
        tree.add(tree.root, NextToken(Token(id, b"x", "x", special), -float(rank), 0.1, rank, ends=ends))
    save(tree, path := tmp_path / "tree.json")
    assert {node.id: node.ends for node in load(path).root.children} == {id: ends for id, (_, ends) in kinds.items()}
    value = json.loads(path.read_text())
    for node in value["nodes"]:
        node.pop("ends", None)  # as an earlier version wrote it
    path.write_text(json.dumps(value))
    earlier = load(path)
    assert {node.id for node in earlier.root.children if node.ends} == {47, 48}
    earlier.set_ends({47, 49})  # what the open model says
    assert {node.id: node.ends for node in earlier.root.children} == {id: ends for id, (_, ends) in kinds.items()}
    assert not earlier.changed


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_a_file_of_an_earlier_version_gets_the_likeliest_children_when_it_grows(tmp_path: Path, penalty: float) -> None:
    """That version chose children by the penalised logits: the likeliest one could be absent."""
    tree = Tree(Request(prompt="a", sampler=SamplerSettings(repetition_penalty=penalty)), WEIGHTS)
    likeliest = nexts((), 3)
    tree.take(BranchPoint((), likeliest[:2] if penalty == 1 else likeliest[1:]))
    save(tree, path := tmp_path / "tree.json")
    again = load(path)
    assert Growth(again, again.root, 2, 1).done  # of this version: nothing to ask for
    value = json.loads(path.read_text())
    value.pop("children_by", None)
    path.write_text(json.dumps(value))
    earlier = load(path)
    assert tree_json(earlier)["nodes"] == value["nodes"]  # nothing that is shown changes
    growth = Growth(earlier, earlier.root, 2, 1)
    while not growth.done:
        growth.take(answers(growth.batch(), 2))
    assert {node.id for node in earlier.root.children} >= {found.token.id for found in likeliest[:2]}


def broken(change: object) -> str:
    value = json.loads(json.dumps(tree_json(grown(2, 2)[0])))
    change(value)  # type: ignore[operator]
    return json.dumps(value)


DAMAGE = [
    lambda v: v["nodes"][1].update(parent=5),
    lambda v: v["nodes"][1].update(parent=-1),
    lambda v: v["nodes"][0].update(id=50),
    lambda v: v["nodes"][0].update(id=True),
    lambda v: v["nodes"][0].update(bytes="xyz"),
    lambda v: v["nodes"][0].update(log_probability=0.5),
    lambda v: v["nodes"][0].update(log_probability=float("nan")),
    lambda v: v["nodes"][0].update(log_probability=float("-inf")),
    lambda v: v["nodes"][0].update(drawn=2),
    lambda v: v["nodes"][0].update(name=["[/]"]),
    lambda v: v["nodes"][0].pop("rank"),
    lambda v: v["nodes"][0].update(ends=1),
    lambda v: v["nodes"].append(v["nodes"][0]),
    lambda v: [node.update(log_probability=-0.1) for node in v["nodes"]],
    lambda v: v.update(nodes={}),
    lambda v: v.pop("model"),
    lambda v: v["model"].update(vocabulary="many"),
    lambda v: v["sampler"].update(temperature=-1),
    lambda v: v["sampler"].update(magic=1),
    lambda v: v["text"].update(prompt=5),
    lambda v: v.update(version=2),
    lambda v: v.update(format="\x1b[31m"),
    lambda v: v["nodes"][0].update(log_probability=10**400),
]


@pytest.mark.parametrize("damage", range(len(DAMAGE)))
def test_a_damaged_file_is_one_line(damage: int, tmp_path: Path) -> None:
    (path := tmp_path / "tree.json").write_text(broken(DAMAGE[damage]))
    with pytest.raises(UserError) as caught:
        load(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400 + len(str(path))


@given(st.binary(max_size=40))
def test_any_bytes_are_one_line(data: bytes) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        with pytest.raises(UserError):
            load(Path(file.name))


def test_a_missing_a_folder_and_a_truncated_tree_file(tmp_path: Path) -> None:
    whole = broken(lambda v: None)
    for at in (1, len(whole) // 2, len(whole) - 2):
        (tmp_path / "cut.json").write_text(whole[:at])
        with pytest.raises(UserError):
            load(tmp_path / "cut.json")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    for path in (tmp_path / "none.json", tmp_path, tmp_path / "deep.json", Path("a\0b")):
        with pytest.raises(UserError):
            load(path)


# ── the command ──


def test_the_command_prints_and_saves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tree.json"
    words = ["tree", "Once upon a time\x1b[31m", "--branch", "2", "--depth", "2", "--device", "cpu", "--out", str(out)]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert "path p" in printed and "\x1b" not in printed and len(printed.splitlines()) == 5 + 6 + 1
    assert cli.main([*words, "--json", "--force"]) == 0
    assert json.loads(capsys.readouterr().out) == {**json.loads(out.read_text()), "full": False}
    assert len(load(out)) == 6 and all(isinstance(node, Node) for node in load(out).nodes())
    assert cli.main([*words[:2], "--depth", "5", "--max-nodes", "7", "--device", "cpu"]) == 0
    assert "stopped at 7 tokens" in capsys.readouterr().out
    assert cli.main([*words[:2], "--branch", "3", "--max-nodes", "2", "--device", "cpu", "--json"]) == 0
    cut = json.loads(capsys.readouterr().out)
    assert cut["full"] and len(cut["nodes"]) == 2


@pytest.mark.parametrize(
    "words",
    [["a", "--branch", "0"], ["a", "--depth", "-1"], ["a", "--max-nodes", "0"], ["a", "--min-probability", "2"], [""],
     ["a", "--branch", "x"], ["a", "--min-probability", "nan"], ["a", "--out", "/proc/no/tree.json"], ["a", "--weights", "x"]],
)  # fmt: skip
def test_wrong_input_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tree", *words, "--device", "cpu"]) == 2
    printed = capsys.readouterr()
    assert not printed.out and len(printed.err.splitlines()) == 1
