"""Parts of a model, and changes of what they compute: switched off, patched from another prompt, or steered.

Parts are numbered from 0, as in the literature: head 3 of layer 0 is `0.3`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tui_llm.common.errors import UserError

TOKENS, POSITIONS, HEAD, ATTENTION, MLP, LAYER, RESIDUAL, KEY = (
    "token embedding", "position embedding", "head", "attention", "MLP", "layer", "residual", "attention to token",
)  # fmt: skip
ATTENTION_BIAS, FINAL_BIAS = "attention bias", "final norm bias"  # constants: they can't be changed
SOFTCAP = "logit soft-cap"  # what it takes from a logit: it can't be changed either
REMAINDER = "changes switched on"  # of a logit: what interventions add to the stream beside the parts' own values
WHOLES = (ATTENTION, LAYER, RESIDUAL)  # kinds whose values are sums of what parts add to the residual stream
KINDS = (TOKENS, POSITIONS, HEAD, ATTENTION, MLP, LAYER, RESIDUAL, KEY, ATTENTION_BIAS, FINAL_BIAS, SOFTCAP, REMAINDER)

ZERO, MEAN, PATCH, STEER = "zero", "mean", "patch", "steer"
HOW = (ZERO, MEAN, PATCH, STEER)


@dataclass(frozen=True, slots=True, order=True)
class ModelPart:
    """A part of a model.

    kind: `TOKENS` and `POSITIONS`, the embeddings; `HEAD`, one attention head's values before the output projection;
        `ATTENTION`, a layer's attention, output projection included; `MLP`; `LAYER`, what a block adds to the residual
        stream, attention and MLP; `RESIDUAL`, the residual stream itself before block `layer` (with `layer` the number
        of blocks: after the last); `KEY`, the attention of later tokens to token number `layer`, in all heads.
    layer, head: -1 where the kind has none.
    """

    kind: str
    layer: int = -1
    head: int = -1

    @property
    def name(self) -> str:
        """As screens and JSON name it. Example: `head 0.3`."""
        if self.kind == HEAD:
            return f"head {self.layer}.{self.head}"
        return f"{self.kind} {self.layer}" if self.layer >= 0 else self.kind


@dataclass(frozen=True, slots=True)
class Intervention:
    """A change of one part's value.

    how: `ZERO`; `MEAN`, over the tokens of `reference`; `PATCH`, the value of `reference` at token number i + `shift`
        for token number i, where there is one; `STEER`, adds `coefficient` × a direction: the part's value after
        `reference` minus that after `against`, both at their last token, or the vector in `file`.
    at: the only token number that is changed, from 0; None: all.
    """

    part: ModelPart
    how: str = ZERO
    reference: tuple[int, ...] = ()
    against: tuple[int, ...] = ()
    shift: int = 0
    at: int | None = None
    coefficient: float = 1.0
    file: str = ""

    @property
    def numbered(self) -> bool:
        """Whether it depends on the tokens' numbers in the text."""
        return self.part.kind == KEY or self.at is not None or self.how == PATCH

    def acts_at(self, number: int) -> bool:
        """Whether it changes the part's value at token `number`."""
        there = self.how != PATCH or 0 <= number + self.shift < len(self.reference)
        return self.part.kind != KEY and self.at in (None, number) and there

    @property
    def name(self) -> str:
        """As every pane names it. Example: `head 0.3 off`."""
        where = "" if self.at is None else f" at token {self.at}"
        match self.how:
            case "zero":
                return f"{self.part.name}{where} off"
            case "mean":
                return f"{self.part.name}{where} at its mean"
            case "patch":
                return f"{self.part.name}{where} from another prompt"
            case _:
                return f"{self.part.name}{where} steered × {self.coefficient:g}"


def all_parts(layers: int, heads: int, positions: bool = True) -> list[ModelPart]:
    """The parts that add to the residual stream, in the order of the forward pass; their sum is the final one."""
    embeddings = [ModelPart(TOKENS), ModelPart(POSITIONS)] if positions else [ModelPart(TOKENS)]
    blocks = (
        [*(ModelPart(HEAD, layer, head) for head in range(heads)), ModelPart(MLP, layer)] for layer in range(layers)
    )
    return [*embeddings, *(part for block in blocks for part in block)]


def is_part_of(part: ModelPart, whole: ModelPart) -> bool:
    """Whether what `part` adds to the residual stream is in the value of `whole`, so that a change of that replaces it."""
    if whole.kind == RESIDUAL:
        return part.layer < whole.layer and part.kind not in (KEY, FINAL_BIAS, SOFTCAP, REMAINDER)
    inner = {ATTENTION: (HEAD, ATTENTION_BIAS), LAYER: (HEAD, ATTENTION_BIAS, ATTENTION, MLP)}
    return part.layer == whole.layer and part.kind in inner.get(whole.kind, ())


def replaced(interventions: Iterable[Intervention], number: int) -> dict[ModelPart, bool]:
    """The parts whose own value at token `number` is replaced, and whether by something else than zero."""
    found = [one for one in interventions if one.how != STEER and one.acts_at(number)]
    return {one.part: any(other.part == one.part and other.how != ZERO for other in found) for one in found}


def lost_in(part: ModelPart, changed: Iterable[ModelPart]) -> bool:
    """Whether what `part` adds is in a value of `changed`: where those are replaced, it adds nothing."""
    return any(is_part_of(part, whole) for whole in changed)


def named(interventions: Sequence[Intervention]) -> str:
    """One line for all of them. Example: `head 0.3 off, MLP 1 off`."""
    return ", ".join(one.name for one in interventions)


def mark(interventions: Sequence[Intervention]) -> str:
    """What marks the numbers of a changed model: at most three changes by name; empty if there is none."""
    if not interventions:
        return ""
    more = f" and {len(interventions) - 3} more" if len(interventions) > 3 else ""
    return f"changed model: {named(interventions[:3])}{more}"


def refusal(why: str, interventions: Sequence[Intervention]) -> str:
    """Why something is not done for a changed model."""
    return f"{why}; switch the parts on first (0): {named(interventions)}"


def fitting(
    interventions: Iterable[Intervention], layers: int, heads: int, same_tokens: bool = True
) -> tuple[tuple[Intervention, ...], tuple[Intervention, ...]]:
    """Those that a model with so many layers and heads can have, and the others. Without `same_tokens` the model's
    vocabulary or width is another, so values from a text or a file are none of its."""
    kept, dropped = list[Intervention](), list[Intervention]()
    for one in interventions:
        try:
            check_parts((one.part,), layers, heads)
        except UserError:
            dropped.append(one)
        else:
            (kept if same_tokens or one.how == ZERO else dropped).append(one)
    return tuple(kept), tuple(dropped)


_HEAD = re.compile(r"\s*(\d{1,4})\.(\d{1,4})\s*", re.ASCII)
_NUMBER = re.compile(r"\s*(\d{1,6})\s*", re.ASCII)


def parse_heads(text: str) -> list[ModelPart]:
    """`0.3,1.2` → heads. Raises `UserError`."""
    return [ModelPart(HEAD, *_numbers(_HEAD, one, "heads", "LAYER.HEAD, such as 0.3,1.2")) for one in _pieces(text)]


def parse_layers(text: str, kind: str) -> list[ModelPart]:
    """`0,2` → the MLPs, attentions, layers or tokens of these numbers. Raises `UserError`."""
    return [ModelPart(kind, *_numbers(_NUMBER, one, kind, "numbers from 0, such as 0,2")) for one in _pieces(text)]


def parse_parts(
    heads: str = "", attention: str = "", mlps: str = "", layers: str = "", tokens: str = ""
) -> list[ModelPart]:
    """The named parts, each once. Raises `UserError`."""
    lists = ((attention, ATTENTION), (mlps, MLP), (layers, LAYER), (tokens, KEY))
    return list(
        dict.fromkeys([*parse_heads(heads), *(part for text, kind in lists for part in parse_layers(text, kind))])
    )


def _pieces(text: str) -> Iterable[str]:
    return (one for one in text.split(",") if one.strip())


def _numbers(pattern: re.Pattern[str], text: str, what: str, wanted: str) -> list[int]:
    if (found := pattern.fullmatch(text)) is None:
        raise UserError(f"{what}: {text.strip()!r} is none; give {wanted}")
    return [int(number) for number in found.groups()]


def check_parts(parts: Iterable[ModelPart], layers: int, heads: int) -> None:
    """Raises `UserError` if the model has no such part."""
    for part in parts:
        most = layers if part.kind == RESIDUAL else layers - 1
        if part.kind not in (TOKENS, POSITIONS, KEY) and not 0 <= part.layer <= most:
            after = f", and {layers} is after the last" if part.kind == RESIDUAL else ""
            raise UserError(f"there is no {part.name}: the model's layers are 0 to {layers - 1}{after}")
        if part.kind == HEAD and not 0 <= part.head < heads:
            raise UserError(f"there is no {part.name}: each layer's heads are 0 to {heads - 1}")
