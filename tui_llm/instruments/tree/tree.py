"""A tree of continuations as a data structure: nodes, pruning and growth. No torch and no screen here.

The root is a text. Every other node is a candidate for the next token after the path to its parent:

    path probability  p(path) = Π p(token | text, tokens before it)       ln p(path) = −Σ surprisal, in nats

Both use the raw probabilities. The sampler's probabilities are stored in addition.
"""

from __future__ import annotations

import bisect
import dataclasses
import heapq
import itertools
import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from tui_llm.facts.model import Weights, seen_words
from tui_llm.facts.request import Request
from tui_llm.facts.tokens import Token
from tui_llm.instruments.tree.question import BATCH, Branches, BranchPoint, NextToken, Path
from tui_llm.llm.tokens.token_bytes import token_text

LONGEST_NAME = 80  # characters


@dataclass(slots=True, eq=False)
class Node:
    """A token at the end of a path; the root has none.

    log_path, log_drawn: ln of the products of `probability` and `drawn` from the root.
    expanded, least: the children were chosen from the `expanded` most probable continuations (0: not expanded yet),
        those with a path probability of at least `least`. Children may be missing because they were pruned.
    size: number of nodes in the branch, this node included.
    """

    parent: Node | None
    found: NextToken | None
    name: str = ""
    collapsed: bool = False  # its children are hidden
    children: list[Node] = field(default_factory=list)  # in descending order of probability, ties by lower id
    expanded: int = 0
    least: float = 0.0
    size: int = 1
    depth: int = 0
    log_path: float = 0.0
    log_drawn: float = 0.0

    @property
    def token(self) -> Token | None:
        return self.found.token if self.found is not None else None

    @property
    def log_probability(self) -> float:
        return self.found.log_probability if self.found is not None else 0.0

    @property
    def drawn(self) -> float:
        return self.found.drawn if self.found is not None else 1.0

    @property
    def rank(self) -> int:
        return self.found.rank if self.found is not None else 0

    @property
    def u(self) -> float | None:
        return self.found.u if self.found is not None else None

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
        """−ln p of the path to this node, in nats: the sum of its tokens' surprisals."""
        return 0.0 - self.log_path

    @property
    def covered(self) -> float:
        """The sum of the children's probabilities."""
        return math.fsum(child.probability for child in self.children)

    @property
    def ends(self) -> bool:
        """Whether the text ends here, as after `<|endoftext|>`."""
        return self.found is not None and self.found.ends

    @property
    def path_nodes(self) -> list[Node]:
        """The nodes of the path: from a child of the root to this node."""
        found, node = [], self
        while node.parent is not None:
            found.append(node)
            node = node.parent
        return found[::-1]

    @property
    def path(self) -> Path:
        return tuple(node.id for node in self.path_nodes)

    @property
    def text(self) -> str:
        """The path's text; bytes that complete no character are shown as `<0xE2>`."""
        return token_text(b"".join(node.token.bytes for node in self.path_nodes if node.token is not None))

    def _order(self) -> tuple[float, int]:
        return -self.log_probability, self.id


@dataclass(slots=True, eq=False)
class Tree:
    """A text and its continuations.

    request: the text at the root, and the sampler that `drawn` refers to.
    weights: the model that the probabilities come from.
    draws: number of branches sampled so far; branch i used the seed `seed + i`.
    """

    request: Request
    weights: Weights
    seed: int = 1
    draws: int = 0
    continued: tuple[Token, ...] = ()  # the tokens of the request's continuation
    text_ids: Path = ()  # the ids of the text at the root, if known
    root: Node = field(default_factory=lambda: Node(None, None))
    changed: bool = False  # unsaved changes
    _pruned: list[Node] = field(default_factory=list)

    def __len__(self) -> int:
        """Number of tokens in the tree, the root excluded."""
        return self.root.size - 1

    @property
    def seen_words(self) -> str:
        """How much of the text at the root the model sees; empty if all of it, or if its ids are not known."""
        count = len(self.text_ids)
        return seen_words(min(count, self.weights.context), count)

    def nodes(self, top: Node | None = None, *, shown: bool = False) -> Iterator[Node]:
        """The branch of `top` (None: the root) in pre-order; `shown` skips the children of collapsed nodes."""
        waiting = [top or self.root]
        while waiting:
            node = waiting.pop()
            yield node
            if not (shown and node.collapsed):
                waiting.extend(reversed(node.children))

    def find(self, path: Iterable[int]) -> Node | None:
        """The node at the end of `path`, a sequence of ids from the root; None if there is none."""
        node: Node | None = self.root
        for id in path:
            node = next((child for child in node.children if child.id == id), None) if node else None
        return node

    def set_ends(self, ids: Collection[int]) -> None:
        """Those of the tree's tokens that end a text are `ids`: a file of an earlier version does not say which."""
        for node in self.nodes():
            if node.found is not None and node.ends != (node.id in ids):
                node.found = dataclasses.replace(node.found, ends=not node.ends)

    # ── growing ──

    def add(self, parent: Node, found: NextToken) -> Node:
        """Return the child for that token, creating it if needed."""
        for child in parent.children:
            if child.id == found.token.id:
                return child
        drawn = math.log(found.drawn) if found.drawn > 0 else -math.inf
        log_path, log_drawn = parent.log_path + found.log_probability, parent.log_drawn + drawn
        node = Node(parent, found, depth=parent.depth + 1, log_path=log_path, log_drawn=log_drawn)
        self._attach(node)
        return node

    def take(self, branching: BranchPoint, least: float = 0.0) -> list[Node] | None:
        """Add a node's candidates as its children, if their path probability is at least `least`. Returns these
        children, those that existed before included; None if the node was pruned."""
        parent = self.find(branching.path)
        if parent is None:
            return None
        children = [self.add(parent, found) for found in wanted(parent, branching, least)]
        parent.expanded, parent.least = len(branching.nexts), least
        parent.collapsed = parent.collapsed and not children
        return children

    def take_sample(self, branches: Branches) -> Node | None:
        """Add a sampled branch and return its last node; None if the node that it starts from was pruned."""
        node = self.find(branches.branchings[0].path) if branches.branchings else None
        for branching in branches.branchings if node is not None else ():
            assert node is not None
            node.collapsed = False
            node = self.add(node, branching.nexts[0])
        return node

    # ── pruning ──

    def prune(self, node: Node) -> Node:
        """Remove the branch and return its parent. Raises ValueError for the root."""
        parent = node.parent
        if parent is None:
            raise ValueError("the root is the text itself")
        parent.children.remove(node)
        self._resize(parent, -node.size)
        self._pruned.append(node)
        return parent

    def undo(self) -> Node | None:
        """Restore the branch that was pruned last, and return it; None if there is none. Nodes added there in the
        meantime are merged into it."""
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
            if old.expanded > new.expanded:
                new.expanded, new.least = old.expanded, old.least
            there = {child.id: child for child in new.children}
            for child in old.children:
                if child.id in there:
                    waiting.append((child, there[child.id]))
                else:
                    child.parent = new
                    self._attach(child)
        for pruned in self._pruned:  # branches pruned earlier from the old nodes now belong to their replacements
            if pruned.parent is not None and (replacement := self._replacement(pruned.parent)) is not None:
                pruned.parent = replacement
        return newer

    def _replacement(self, node: Node) -> Node | None:
        """The node that has the path of `node` in the tree now; None if a branch above it is still pruned."""
        top = node
        while top.parent is not None:
            top = top.parent
        return self.find(node.path) if top is self.root else None

    @property
    def pruned(self) -> int:
        """Number of branches that can be restored."""
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
    """ln of the minimum path probability, minus a tolerance for the rounding of products."""
    return math.log(least) - 1e-9 if least > 0 else -math.inf


def wanted(parent: Node, branching: BranchPoint, least: float) -> list[NextToken]:
    """The candidates whose path probability is at least `least`."""
    return [found for found in branching.nexts if parent.log_path + found.log_probability >= floor(least)]


class Growth:
    """Best-first growth of a branch, most probable paths first.

    Adds the `count` most probable continuations of every node, `depth` levels deep, without paths less probable than
    `least`, until `budget` tokens are added. Usage: until `done`, ask for the continuations of the paths in `batch()`
    and pass the answer to `take`. Pruned branches are not regrown.
    """

    def __init__(self, tree: Tree, top: Node, count: int, depth: int, least: float = 0.0, budget: int = 1000) -> None:
        self.tree, self.top, self.count, self.least, self.budget = tree, top, count, least, budget
        self.deepest = top.depth + depth
        self.added = 0
        self.full = False  # the budget is exhausted
        self._number = itertools.count()
        self._frontier: list[tuple[float, int, Node]] = []
        self._visit(top)

    @property
    def done(self) -> bool:
        return self.full or not self._frontier

    def batch(self, most: int = BATCH) -> tuple[Path, ...]:
        """The next paths to ask for, the most probable first, within the budget. Each is returned once."""
        room = max(1, -(-(self.budget - self.added) // max(1, self.count)))
        return tuple(heapq.heappop(self._frontier)[2].path for _ in range(min(most, room, len(self._frontier))))

    def take(self, branches: Branches) -> None:
        """Add the answer to the tree, until the budget is exhausted."""
        for branching in branches.branchings:
            node = self.tree.find(branching.path)
            if node is None:  # the user pruned it in the meantime
                continue
            there = {child.id for child in node.children}
            new = [found for found in wanted(node, branching, self.least) if found.token.id not in there]
            room = self.budget - self.added
            self.full = len(new) > room
            if self.full and not room:
                return
            if self.full:  # the likeliest of them
                nexts = branching.nexts[: branching.nexts.index(new[room])]
                branching, new = dataclasses.replace(branching, nexts=nexts), new[:room]
            self.added += len(new)
            for child in self.tree.take(branching, self.least) or ():
                self._visit(child)
            if self.full:
                return

    def _visit(self, node: Node) -> None:
        """Add the node to the frontier, to be expanded. If it is expanded already, do so with its children instead."""
        waiting = [node]
        while waiting:
            node = waiting.pop()
            if node.depth >= self.deepest or (node.ends and node is not self.top) or node.log_path < floor(self.least):
                continue
            if node.expanded >= self.count and node.least <= self.least:
                waiting.extend(node.children[: self.count])
            else:
                heapq.heappush(self._frontier, (-node.log_path, next(self._number), node))
