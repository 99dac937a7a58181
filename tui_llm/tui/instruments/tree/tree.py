"""The Tree screen: navigates the tree of continuations, grows it, draws samples in it, and accepts one of its paths."""

from __future__ import annotations

import time
from collections.abc import Iterable

from textual.app import ComposeResult
from textual.content import Content
from textual.screen import Screen

from tui_llm.common import numbers
from tui_llm.common.display import visible
from tui_llm.facts.interventions import mark
from tui_llm.facts.model import Weights
from tui_llm.instruments.tree.question import Branches, BranchQuestion, Known, KnownQuestion, Path, SampleQuestion
from tui_llm.instruments.tree.tree import Growth, Node, Tree
from tui_llm.instruments.tree.tree_file import model_words, same_model
from tui_llm.tui.instruments.tree.files import TreeFiles
from tui_llm.tui.instruments.tree.keys import KEYS
from tui_llm.tui.instruments.tree.lines import NO_TREE, TreeLines
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.base_screen import BaseScreen
from tui_llm.tui.kit.command import bindings, in_footer
from tui_llm.tui.kit.over import copy_rows
from tui_llm.tui.kit.widgets.bars import Bar, KeyBar
from tui_llm.tui.state.context import LabContext
from tui_llm.tui.state.lab import GrowthSettings

REPAINT_SECONDS = 0.1  # a growing tree is repainted at most ten times a second
QUESTIONS = (BranchQuestion, SampleQuestion, KnownQuestion)


class TreeScreen(BaseScreen, Screen[tuple[Tree, Node] | None]):
    """Dismissed with the tree and the node whose path is to be accepted, or with None. `lab` asks the model."""

    own_keys = KEYS
    BINDINGS = bindings(KEYS)
    DEFAULT_CSS = """
    TreeScreen { layout: vertical; overflow: hidden; }
    TreeScreen TreeLines { height: 1fr; padding: 0 1; background: $background; }
    """

    def __init__(self, context: LabContext, tree: Tree, rules: GrowthSettings) -> None:
        super().__init__()
        self.context, self.shown_tree, self.rules = context, tree, rules
        self.growth: Growth | None = None
        self.frozen = ""  # why the tree can't be grown or accepted; empty if it can
        self._wanted: list[Path] = []  # paths to expand as soon as the model is free
        self._busy = False
        self._sampling = False
        self._shown_at = 0.0
        files = TreeFiles(context, lambda: self.shown_tree, lambda: self.here, self.refill, self.show_tree)
        self.action_name = files.name
        self.action_save = files.save
        self.action_open_file = files.open

    def compose(self) -> ComposeResult:
        yield Bar(id="tree-top")
        yield TreeLines()
        yield Bar(id="tree-rules")
        yield KeyBar(id="keys")

    def on_mount(self) -> None:
        self.query_one(KeyBar).show_commands(in_footer(KEYS, "tree"))
        self.lines.focus()
        self.show_tree(self.shown_tree)

    def on_unmount(self) -> None:
        self._forget()

    @property
    def lines(self) -> TreeLines:
        return self.query_one(TreeLines)

    @property
    def here(self) -> Node:
        return self.lines.here or self.shown_tree.root

    # ── what is shown ────────────────────────────────────────────────────────────────────────────────────────────

    def refill(self, node: Node | None = None) -> None:
        if self.is_mounted:
            self._shown_at = time.monotonic()
            self.lines.count = self.rules.count
            with self.app.batch_update():
                self.lines.show(self.shown_tree, node)
                self._show_bars()

    def _show_bars(self) -> None:
        tree, rules = self.shown_tree, self.rules
        parts: list[str | tuple[str, str]] = [("Tree  ", "bold"), (visible(model_words(tree.weights)), "bold")]
        if tree.seen_words:
            parts.append(f" {tree.seen_words}")
        parts.append(f"  {fmt.sampler(tree.request.sampler)}  {fmt.count(len(tree))} tokens")
        if tree.pruned:
            parts.append((f"  {tree.pruned} pruned (u)", "$text-muted"))
        if self.frozen:
            parts.append((f"  ! {visible(self.frozen)}", "$text-error"))
        self.query_one("#tree-top", Bar).put(Content.assemble(*parts))
        words = (
            f"k {rules.count} · depth {rules.depth} · path p ≥ {numbers.precise_percent(rules.least)} · "
            f"at most {fmt.count(rules.budget)} new · next seed {tree.seed + tree.draws}"
        )
        if self.growth is not None:
            words = f"growing: {fmt.count(self.growth.added)} of at most {fmt.count(self.growth.budget)} · Esc stops"
        elif self._sampling:
            words = "drawing …"
        self.query_one("#tree-rules", Bar).put(Content(words))

    # ── the tree's model ─────────────────────────────────────────────────────────────────────────────────────────

    def show_tree(self, tree: Tree) -> None:
        """Shows `tree`, and asks the open model whether the tree's tokens are the model's own."""
        self._forget()
        self.shown_tree = tree
        self.frozen = "checking its tokens …"
        self.refill(tree.root)
        self.reopened(self.context.weights)

    def reopened(self, weights: Weights | None) -> None:
        """Called when a model was opened. `weights` is None if no model is open."""
        if weights is None or not same_model(weights, self.shown_tree.weights):
            self._stop()
            self._freeze(f"not of the open model ({model_words(weights)})" if weights else "no model is open")
            return
        ids = dict.fromkeys(node.id for node in self.shown_tree.nodes() if node.token is not None)
        self.context.questions.ask(self, KnownQuestion(self.shown_tree.request, tuple(ids)), self._known, self._freeze)

    def _known(self, known: Known) -> None:
        tree = self.shown_tree
        own = {token.id: token for token in known.tokens}
        if tree.text_ids and tree.text_ids != known.text:
            self._freeze("the open model reads its text as other tokens")
        elif any(node.token != own.get(node.id) for node in tree.nodes() if node.token is not None):
            self._freeze("its tokens are not those of the open model")
        else:
            tree.text_ids = known.text
            tree.set_ends(known.ends)
            self._freeze("")
            if not tree.root.children and not tree.changed and not tree.request.empty:
                self._expand(tree.root)

    def _freeze(self, reason: str) -> None:
        self.frozen = reason
        self.refill()

    def _can(self) -> bool:
        """Whether the model can be asked now; if not, notifies the user why."""
        if self.shown_tree.request.empty:
            self.context.notify(NO_TREE)
            return False
        if self.frozen:
            self.context.notify(f"this tree is read-only: {self.frozen}")
        elif self.growth is not None or self._sampling:
            self.context.notify("busy; Esc stops it")
        return not self.frozen and self.growth is None and not self._sampling

    # ── questions ────────────────────────────────────────────────────────────────────────────────────────────────

    def _expand(self, node: Node) -> None:
        self._wanted.append(node.path)
        if not self._busy:
            self._ask()

    def _ask(self) -> None:
        paths = self.growth.batch() if self.growth is not None else tuple(dict.fromkeys(self._wanted))
        count = self.growth.count if self.growth is not None else self.rules.count
        self._wanted.clear()
        self._busy = True
        self.context.questions.ask(
            self, BranchQuestion(self.shown_tree.request, paths, count), self._taken, self._problem
        )

    def _taken(self, branches: Branches) -> None:
        self._busy = False
        if not same_model(branches.weights, self.shown_tree.weights):
            self._stop()
        elif self.growth is not None:
            self.growth.take(branches)
            if not self.growth.done:
                self._ask()
                if time.monotonic() - self._shown_at < REPAINT_SECONDS:
                    return
            else:
                full, added = self.growth.full, fmt.count(self.growth.added)
                self.growth = None
                self.context.notify(
                    f"{added} new: the budget is spent (b raises it)"
                    if full
                    else f"{added} new: everything within the bounds"
                )
        else:
            for branching in branches.branchings:
                self.shown_tree.take(branching)
        self.refill()
        if self._wanted and not self._busy:
            self._ask()

    def _drawn(self, branches: Branches) -> None:
        self._sampling = False
        last = self.shown_tree.take_sample(branches) if same_model(branches.weights, self.shown_tree.weights) else None
        self.refill(last)

    def _problem(self, line: str) -> None:
        self._stop()
        self.context.warn(line)
        self.refill()

    def _stop(self) -> bool:
        """Stops the work in progress; returns whether there was any."""
        was = self.growth is not None or self._sampling or self._busy
        self._forget(BranchQuestion, SampleQuestion)
        return was

    def _forget(self, *kinds: type[BranchQuestion | SampleQuestion | KnownQuestion]) -> None:
        for kind in kinds or QUESTIONS:
            self.context.questions.forget(kind)
        self.growth, self._busy, self._sampling = None, False, False
        self._wanted.clear()

    # ── moving the cursor ────────────────────────────────────────────────────────────────────────────────────────

    def action_enter(self) -> None:
        here = self.here
        if not here.children:
            if here.ends:
                self.context.notify("the text ends here")
            else:
                self.action_expand()
            return
        if here.collapsed:
            here.collapsed = False
            self.refill()
        self.lines.go(here.children[0])

    def action_out(self) -> None:
        if self.here.parent is not None:
            self.lines.go(self.here.parent)

    def action_sibling(self, direction: int) -> None:
        here = self.here
        siblings = here.parent.children if here.parent is not None else [here]
        at = siblings.index(here) + direction
        if 0 <= at < len(siblings):
            self.lines.go(siblings[at])
        else:
            self.action_line(direction)

    def action_line(self, direction: int) -> None:
        nodes, at = self.lines.nodes, (self.lines.cursor or 0) + direction
        if 0 <= at < len(nodes):
            self.lines.go(nodes[at])

    def action_fold(self) -> None:
        here = self.here
        if here.children:
            here.collapsed = not here.collapsed
            self.refill()

    # ── growing ──────────────────────────────────────────────────────────────────────────────────────────────────

    def action_expand(self) -> None:
        if self._can():
            self.here.collapsed = False
            self._expand(self.here)

    def action_grow(self) -> None:
        if not self._can():
            return
        self._stop()
        rules = self.rules
        self.here.collapsed = False
        growth = Growth(self.shown_tree, self.here, rules.count, rules.depth, rules.least, rules.budget)
        if growth.done:
            self.context.notify("nothing more within the bounds: + goes deeper, < adds less likely paths")
            return
        self.growth = growth
        self._ask()
        self._show_bars()

    def action_draw(self, count: int) -> None:
        if not self._can():
            return
        if self.here.ends:
            self.context.notify("the text ends here")
            return
        tree = self.shown_tree
        question = SampleQuestion(tree.request, self.here.path, count or self.rules.depth, tree.seed + tree.draws)
        tree.draws += 1
        self._sampling = True
        self._show_bars()
        self.context.questions.ask(self, question, self._drawn, self._problem)

    def action_count(self, count: int) -> None:
        self.rules.count = count
        self.refill()

    def action_depth(self, by: int) -> None:
        self.rules.deepen(by)
        self._show_bars()

    def action_least(self, direction: int) -> None:
        self.rules.bound(direction)
        self._show_bars()

    def action_budget(self) -> None:
        self.rules.next_budget()
        self._show_bars()

    # ── editing ──────────────────────────────────────────────────────────────────────────────────────────────────

    def action_prune(self) -> None:
        here = self.here
        if here.parent is None:
            self.context.notify("the root is the text itself")
            return
        siblings = here.parent.children
        at = siblings.index(here)
        parent = self.shown_tree.prune(here)
        self.refill(parent.children[min(at, len(parent.children) - 1)] if parent.children else parent)

    def action_undo(self) -> None:
        node = self.shown_tree.undo()
        if node is None:
            self.context.notify("nothing was pruned")
            return
        for above in node.path_nodes[:-1]:
            above.collapsed = False
        self.shown_tree.root.collapsed = False
        self.refill(node)

    def action_put(self) -> None:
        if self.here.parent is None:
            self.context.notify("the root is the text itself: go into a continuation first")
        elif self.frozen:
            self._can()
        else:
            self.dismiss((self.shown_tree, self.here))

    def action_copy(self) -> None:
        self.context.notify(copy_rows(self.app, list(self.table()), mark(self.context.lab.interventions)))

    def table(self) -> Iterable[tuple[str, ...]]:
        return self.lines.table()

    def action_close(self) -> None:
        if self.growth is None and not self._sampling:
            self.dismiss(None)
            return
        added = self.growth.added if self.growth is not None else 0
        self._stop()
        self.context.notify(f"stopped: {fmt.count(added)} new")
        self.refill()
