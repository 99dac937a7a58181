"""Textual's styles (8.2) in less time, by its private names.

- `Stylesheet.apply` searches all rules for those that name a widget's type, id or classes. `apply` keeps what it found for the
  widgets with the same names (`Narrowed`). Its `replace_rules` then sets each rule again, and its `_process_component_classes` makes each
  component class a node anew; those here do neither without a change. All of a screen's widgets are restyled if its classes
  change.
- `DOMNode._attach` and `_component_styles`: Textual computes the style of every component class of a widget whenever the
  widget's style changes, such as at each change of the focus. Twenty of them for each list of lines took a sixth of the
  time in which the app is mounted; `get_component_styles` computes one when it is first used.
- `DOMNode.update_node_styles`: Textual also computes the styles of a widget that is not mounted yet, when it gets a class in its
  constructor, and again when it is mounted.
"""

from __future__ import annotations

from typing import Any

from textual.css.model import RuleSet
from textual.css.styles import RenderStyles, RulesMap
from textual.css.stylesheet import Stylesheet
from textual.dom import DOMNode
from textual.widget import Widget


class Narrowed(Stylesheet):
    """Those rules of a stylesheet that name one of a node's selectors: the only ones that can match it."""

    def __init__(self, whole: Stylesheet, rules: list[RuleSet]) -> None:
        super().__init__()
        self._whole, self._rules = whole, rules

    def _process_component_classes(self, node: DOMNode) -> None:
        self._whole._process_component_classes(node)  # they have other names


def apply(self: Stylesheet, node: DOMNode, *, animate: bool = False, cache: dict[Any, RulesMap] | None = None) -> None:
    rules = self.rules  # another list after each parse
    known, narrowed = vars(self).get("_narrowed", (None, {}))
    if known is not rules:
        narrowed = {}
        self._narrowed = rules, narrowed  # type: ignore[attr-defined]
    names = frozenset(self.rules_map.keys() & node._selector_names)
    sheet = narrowed.get(names)
    if sheet is None:
        sheet = narrowed[names] = Narrowed(self, [rule for rule in rules if not names.isdisjoint(rule.selector_names)])
    _apply(sheet, node, animate=animate, cache=cache)


def replace_rules(cls: type[Stylesheet], node: DOMNode, rules: RulesMap, animate: bool = False) -> None:
    base = node.styles.base
    applied, updates = vars(base).get("_applied", (None, 0))
    if applied == rules and updates == base._updates:
        node.notify_style_update()
        return
    _replace_rules(node, rules, animate)
    base._applied = rules, base._updates  # type: ignore[attr-defined]


def process_component_classes(self: Stylesheet, node: DOMNode) -> None:
    changed = False
    for styles in node._component_styles.values():
        before = styles.base._rules.copy()
        assert styles.node is not None
        self.apply(styles.node, animate=False)
        changed |= styles.base._rules != before
    if changed:
        node.refresh()


def get_component_styles(self: DOMNode, *names: str) -> RenderStyles:
    for name in self._get_component_classes().intersection(names) - self._component_styles.keys():
        part = DOMNode(classes=name)
        part._attach(self)
        self.app.stylesheet.apply(part, animate=False)
        self._component_styles[name] = part.styles
    return _get_component_styles(self, *names)


def update_node_styles(self: DOMNode, animate: bool = True) -> None:
    if self.parent is not None or not isinstance(self, Widget):
        _update_node_styles(self, animate)


_apply, _replace_rules = Stylesheet.apply, Stylesheet.replace_rules
_process_component_classes = Stylesheet._process_component_classes
_get_component_styles, _update_node_styles = DOMNode.get_component_styles, DOMNode.update_node_styles


def install() -> None:
    DOMNode.get_component_styles = get_component_styles  # type: ignore[method-assign]
    DOMNode.update_node_styles = update_node_styles  # type: ignore[method-assign]
    Stylesheet._process_component_classes = process_component_classes  # type: ignore[method-assign]
    Stylesheet.apply = apply  # type: ignore[method-assign]
    Stylesheet.replace_rules = classmethod(replace_rules)  # type: ignore[method-assign, assignment]
