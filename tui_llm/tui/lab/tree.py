"""The tree of continuations: opens it for the lab's text, and accepts one of its paths as the lab's continuation, token
ids included."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from tui_llm.facts.model import Weights
from tui_llm.facts.prediction import GeneratedToken
from tui_llm.facts.request import Request
from tui_llm.facts.tokens import Token
from tui_llm.instruments.tree.tree import Node, Tree
from tui_llm.llm.tokens.token_bytes import TextStream
from tui_llm.tui.state.context import LabContext
from tui_llm.tui.state.lab import GrowthSettings

if TYPE_CHECKING:
    from tui_llm.tui.instruments.tree.tree import TreeScreen

KEPT = 8  # trees kept, to be shown again for the same text


class TreeController:
    def __init__(self, context: LabContext) -> None:
        self.context, self.lab = context, context.lab
        self._screen: TreeScreen | None = None
        self._trees: dict[object, Tree] = {}
        self._rules = GrowthSettings()

    def open(self) -> None:
        from tui_llm.tui.instruments.tree.tree import TreeScreen

        weights = self.context.weights
        if not self.context.is_open() or weights is None:
            return
        self.context.stop_generation()
        request = self._root()
        tree = self._trees.get(self._key(request, weights))
        if tree is None:
            tree = Tree(request, weights, self.lab.seed, continued=tuple(
                Token(step.id, step.bytes, step.text) for step in self.lab.steps))  # fmt: skip
        self._screen = TreeScreen(self.context, tree, self._rules)

        def left(chosen: tuple[Tree, Node] | None) -> None:
            screen, self._screen = self._screen, None
            if screen is not None:
                self._trees.pop(found := self._key(screen.shown_tree.request, screen.shown_tree.weights), None)
                self._trees[found] = screen.shown_tree
            while len(self._trees) > KEPT:
                self._trees.pop(next(iter(self._trees)))
            if chosen is not None:
                self._put_in(*chosen)

        self.context.push_screen(self._screen, left)

    def _root(self) -> Request:
        lab = self.lab
        return Request(prompt=lab.prompt, continuation=lab.continuation, allow_special=lab.allow_special,
                       start_token=lab.start_token, chat=lab.chat, sampler=lab.sampler, interventions=lab.interventions)  # fmt: skip

    def _key(self, request: Request, weights: Weights) -> object:
        return request, dataclasses.replace(weights, device="")

    def _put_in(self, tree: Tree, node: Node) -> None:
        """Accepts the path to `node`. If the tree's root is another text than the lab's, it first replaces the
        lab's."""
        if dataclasses.replace(tree.request, sampler=self.lab.sampler) != self._root():
            request = tree.request
            self.context.set_prompt(request.prompt)
            self.lab.change_format(
                allow_special=request.allow_special, start_token=request.start_token, chat=request.chat
            )
            self.lab.steps = steps(tree, [])
        self.lab.steps = (*self.lab.steps, *steps(tree, node.path_nodes)[len(tree.continued) :])
        self.lab.note = f"{node.depth} token{'' if node.depth == 1 else 's'} from the tree"
        self.context.refresh_generation()
        self.context.request_reading()


def steps(tree: Tree, way: list[Node]) -> tuple[GeneratedToken, ...]:
    """Generated tokens made of the tokens before the root (whose probabilities are not known here) and those of the
    path, as the tree's sampler and its changed model gave them."""
    stream, found = TextStream(), []
    sampler, parts = tree.request.sampler, tree.request.interventions
    for index, token in enumerate(tree.continued):
        found.append(GeneratedToken(index, token.id, token.bytes, stream.feed(token.bytes), None, math.nan, math.nan, 0, (),
                                    sampler, by_hand=True, interventions=parts))  # fmt: skip
    for index, node in enumerate(way, len(tree.continued)):
        assert node.token is not None
        data = node.token.bytes
        # A greedy draw has no u: its token is the one that has all of the sampler's probability.
        by_hand = node.u is None and not (sampler.greedy and node.drawn == 1.0)
        found.append(GeneratedToken(index, node.id, data, stream.feed(data), node.u, node.drawn, node.probability, node.rank,
                                    (), sampler, by_hand=by_hand, interventions=parts))  # fmt: skip
    return tuple(found)
