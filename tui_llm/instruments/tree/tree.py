"""A tree of continuations as data: nodes, what was pruned from them, and how to grow it. No torch and no screen here.

The root is a text. Every other node is a token that may come next after the way to it:

    path probability  p(way) = Π p(token | text, tokens before it)       ln p(way) = −Σ surprisal, in nats

Both are of the model's own (raw) probabilities. What the sampler would draw with stands beside them.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tui_llm.facts.model import Weights
from tui_llm.facts.request import Request
from tui_llm.facts.tokens import Token
from tui_llm.instruments.tree.question import BATCH, Branches, Branching, Next, Path
from tui_llm.llm.tokens.token_bytes import token_text

LONGEST_NAME = 80  # characters


@dataclass(slots=True, eq=False)
class Node:
    """A token after its parent's way; the root has none. `log_probability` and `drawn` as in `instruments.tree.question.Next`.
    `log_path` and `log_drawn` are ln of the products down from the root. Of the `asked` likeliest continuations, all whose
    path probability is at least `least` are children, or were pruned. `size` counts the branch, this node included."""

    parent: Node | None
    token: Token | None
    log_probability: float = 0.0
    drawn: float = 1.0
    rank: int = 0
    u: float | None = None
    name: str = ""
    shut: bool = False  # its children are not shown
    children: list[Node] = field(default_factory=list)  # likeliest first, ties by lower id
    asked: int = 0
    least: float = 0.0
    size: int = 1
    depth: int = 0
    log_path: float = 0.0
    log_drawn: float = 0.0

    @property
    def id(self) -> int:
        assert self.token is not None
        return self.token.id

    @property
    def probability(self) -> float:
        return math.exp(self.log_probability)

    @property
    def path_probability(self) -> float:
        return math.exp(self.log_path)

    @property
    def surprisal(self) -> float:
        """−ln p of this token, in nats."""
        return 0.0 - self.log_probability

    @property
    def total(self) -> float:
        """−ln p of the way to here, in nats: the sum of its tokens' surprisals."""
        return 0.0 - self.log_path

    @property
    def covered(self) -> float:
        """How much of what may come next the children hold together."""
        return math.fsum(child.probability for child in self.children)

    @property
    def ends(self) -> bool:
        """The text ends here: a special token such as `<|endoftext|>`."""
        return self.token is not None and self.token.special

    @property
    def way(self) -> list[Node]:
        """The nodes from the root's child down to here."""
        found, node = [], self
        while node.parent is not None:
            found.append(node)
            node = node.parent
        return found[::-1]

    @property
    def path(self) -> Path:
        return tuple(node.id for node in self.way)

    @property
    def text(self) -> str:
        """The way's text; bytes that complete no character show as `<0xE2>`."""
        return token_text(b"".join(node.token.bytes for node in self.way if node.token is not None))

    def _order(self) -> tuple[float, int]:
        return -self.log_probability, self.id


@dataclass(slots=True, eq=False)
class Tree:
    """`request` is the text at the root and the sampler of `drawn`; `weights` is whose numbers these are. `draws` counts the
    branches drawn so far: number i used the seed `seed + i`."""

    request: Request
    weights: Weights
    seed: int = 1
    draws: int = 0
    continued: tuple[Token, ...] = ()  # the tokens of the request's continuation
    text_ids: Path = ()  # the ids at the root, where they are known
    root: Node = field(default_factory=lambda: Node(None, None))
    changed: bool = False  # since it was last saved
    _pruned: list[Node] = field(default_factory=list)

    def __len__(self) -> int:
        """Tokens in the tree, the root not counted."""
        return self.root.size - 1

    def nodes(self, top: Node | None = None, *, shown: bool = False) -> Iterator[Node]:
        """The branch of `top`, the root's where None, each node before its children; `shown` leaves out what is shut away."""
        waiting = [top or self.root]
        while waiting:
            node = waiting.pop()
            yield node
            if not (shown and node.shut):
                waiting.extend(reversed(node.children))

    def find(self, path: Iterable[int]) -> Node | None:
        node: Node | None = self.root
        for id in path:
            node = next((child for child in node.children if child.id == id), None) if node else None
        return node

    # ── growing ──

    def add(self, parent: Node, found: Next) -> Node:
        """The child of that token: a new one, or the one that is there."""
        for child in parent.children:
            if child.id == found.token.id:
                return child
        drawn = math.log(found.drawn) if found.drawn > 0 else -math.inf
        node = Node(parent, found.token, found.log_probability, found.drawn, found.rank, found.u, depth=parent.depth + 1,
                    log_path=parent.log_path + found.log_probability, log_drawn=parent.log_drawn + drawn)  # fmt: skip
        self._attach(node)
        return node

    def take(self, branching: Branching, least: float = 0.0) -> list[Node] | None:
        """The likeliest continuations of one node become its children, as far as their path probability is at least `least`.
        Returns all of them, also those that were there; None where the node itself is gone."""
        parent = self.find(branching.path)
        if parent is None:
            return None
        made = [self.add(parent, found) for found in wanted(parent, branching, least)]
        parent.asked, parent.least = len(branching.nexts), least
        parent.shut = parent.shut and not made
        return made

    def take_sample(self, branches: Branches) -> Node | None:
        """A drawn branch; its last node. None where the node that it was drawn from is gone."""
        node = self.find(branches.branchings[0].path) if branches.branchings else None
        for branching in branches.branchings if node is not None else ():
            assert node is not None
            node.shut = False
            node = self.add(node, branching.nexts[0])
        return node

    # ── pruning ──

    def prune(self, node: Node) -> Node:
        """Takes the branch away and returns its parent. Raises ValueError for the root."""
        parent = node.parent
        if parent is None:
            raise ValueError("the root is the text itself")
        parent.children.remove(node)
        self._resize(parent, -node.size)
        self._pruned.append(node)
        return parent

    def undo(self) -> Node | None:
        """Puts the branch back that was pruned last, and returns it; None where there is none. What has grown there since
        becomes part of it."""
        if not self._pruned:
            return None
        node = self._pruned.pop()
        assert node.parent is not None
        newer = next((child for child in node.parent.children if child.id == node.id), None)
        if newer is None:
            self._attach(node)
            return node
        waiting = [(node, newer)]
        while waiting:
            old, new = waiting.pop()
            new.name = new.name or old.name
            if old.asked > new.asked:
                new.asked, new.least = old.asked, old.least
            there = {child.id: child for child in new.children}
            for child in old.children:
                if child.id in there:
                    waiting.append((child, there[child.id]))
                else:
                    child.parent = new
                    self._attach(child)
        for pruned in self._pruned:  # what was pruned from the old nodes before belongs to those that took their place
            if pruned.parent is not None and (heir := self._heir(pruned.parent)) is not None:
                pruned.parent = heir
        return newer

    def _heir(self, node: Node) -> Node | None:
        """The node of the same way that is in the tree."""
        top = node
        while top.parent is not None:
            top = top.parent
        return self.find(node.path) if top is self.root else None

    @property
    def pruned(self) -> int:
        """How many branches can be put back."""
        return len(self._pruned)

    def name(self, node: Node, name: str) -> None:
        node.name = name[:LONGEST_NAME]
        self.changed = True

    def _attach(self, node: Node) -> None:
        assert node.parent is not None
        bisect.insort(node.parent.children, node, key=Node._order)
        self._resize(node.parent, node.size)

    def _resize(self, node: Node | None, by: int) -> None:
        self.changed = True
        while node is not None:
            node.size += by
            node = node.parent


def floor(least: float) -> float:
    """ln of a least path probability; a product of rounded numbers may fall short of it by their rounding."""
    return math.log(least) - 1e-9 if least > 0 else -math.inf


def wanted(parent: Node, branching: Branching, least: float) -> list[Next]:
    """Those that lead to a path probability of at least `least`."""
    return [found for found in branching.nexts if parent.log_path + found.log_probability >= floor(least)]


class Growth:
    """Grows a branch by the `count` likeliest continuations of every node, `depth` deep: the likeliest ways first, no way
    less likely than `least`, and at most `budget` new tokens.

    Ask for what `batch` says, hand the answer to `take`, until `done`. What was pruned stays away.
    """

    def __init__(self, tree: Tree, top: Node, count: int, depth: int, least: float = 0.0, budget: int = 1000) -> None:
        self.tree, self.top, self.count, self.least, self.budget = tree, top, count, least, budget
        self.deepest = top.depth + depth
        self.added = 0
        self.full = False  # the budget ended it
        self._number = itertools.count()
        self._frontier: list[tuple[float, int, Node]] = []
        self._visit(top)

    @property
    def done(self) -> bool:
        return self.full or not self._frontier

    def batch(self, most: int = BATCH) -> tuple[Path, ...]:
        """The paths to ask next, likeliest first: no more than the budget has room for. They are not named again."""
        room = max(1, -(-(self.budget - self.added) // max(1, self.count)))
        return tuple(heapq.heappop(self._frontier)[2].path for _ in range(min(most, room, len(self._frontier))))

    def take(self, branches: Branches) -> None:
        for branching in branches.branchings:
            node = self.tree.find(branching.path)
            if node is None:  # pruned in the meantime
                continue
            there = {child.id for child in node.children}
            new = sum(found.token.id not in there for found in wanted(node, branching, self.least))
            if self.added + new > self.budget:
                self.full = True
                return
            self.added += new
            for child in self.tree.take(branching, self.least) or ():
                self._visit(child)

    def _visit(self, node: Node) -> None:
        """Into the frontier, or past it to what is known already."""
        waiting = [node]
        while waiting:
            node = waiting.pop()
            if node.depth >= self.deepest or (node.ends and node is not self.top) or node.log_path < floor(self.least):
                continue
            if node.asked >= self.count and node.least <= self.least:
                waiting.extend(node.children[: self.count])
            else:
                heapq.heappush(self._frontier, (-node.log_path, next(self._number), node))
