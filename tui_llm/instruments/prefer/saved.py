"""What Prefer saves: the pairs as JSON Lines, and the copy as a model folder with its card."""

from __future__ import annotations

import codecs
import json
from collections.abc import Sequence
from pathlib import Path

from tui_llm.common import files
from tui_llm.common.display import visible
from tui_llm.common.errors import UserError
from tui_llm.common.numbers import counted
from tui_llm.facts.preference import PairChange, RankedPair
from tui_llm.llm.data import preference_pairs
from tui_llm.llm.data.preference_pairs import PreferencePair
from tui_llm.llm.tokens.tokenizer import Tokenizer
from tui_llm.session.messages import NOTHING
from tui_llm.session.open_model import OpenModel


def as_text(tokenizer: Tokenizer, ranked: RankedPair) -> PreferencePair:
    """The pair as text. A character that the prompt begins and the answers end belongs to the answers. Raises
    `UserError` if there is no prompt, or an answer has no text."""
    if not ranked.prompt:
        raise UserError(NOTHING)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    prompt = decoder.decode(tokenizer.decode_bytes(ranked.prompt))
    begun = decoder.getstate()[0]
    chosen, rejected = (
        (begun + tokenizer.decode_bytes(ids, ranked.prompt[-1])).decode("utf-8", "replace")
        for ids in (ranked.chosen, ranked.rejected)
    )
    return PreferencePair(prompt, chosen, rejected)


class PairsFile:
    """Keeps a file equal to the pairs that were ranked: a new one is appended and synced before it is learned, so that a
    process killed afterwards has kept it; undone ones are removed."""

    def __init__(self) -> None:
        self.path = ""
        self._written: list[RankedPair] = []

    def update(self, tokenizer: Tokenizer, path: str, ranked: Sequence[RankedPair]) -> None:
        """Raises `UserError` if the file can't be written."""
        if path != self.path:
            self.path, self._written = path, []
        same = len(self._written)
        if list(ranked[:same]) != self._written:
            rows = (preference_pairs.as_json(as_text(tokenizer, one)) for one in ranked)
            files.write_text(Path(path), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        else:
            for one in ranked[same:]:
                preference_pairs.append(Path(path), as_text(tokenizer, one))
        self._written = list(ranked)


def card(open_model: OpenModel, name: str, ranked: Sequence[RankedPair], changes: Sequence[PairChange]) -> str:
    """The folder's README: the original model, the pairs, how they were learned, and the effect."""
    weights = open_model.weights()
    step = "" if weights.step is None else f" at step {weights.step:,}"
    pairs = [as_text(open_model.tokenizer, one) for one in ranked]
    texts = "\n".join(f"| {number} | {_cell(str(pair.prompt))} | {_cell(pair.chosen)} | {_cell(pair.rejected)} |" for number, pair in enumerate(pairs, 1))  # fmt: skip
    rows = "\n".join(
        f"| {number} | {one.recipe.dpo.beta:g} | {one.recipe.learning_rate:g} | {one.recipe.steps} | "
        f"{'yes' if one.recipe.dpo.length_normalized else 'no'} | {one.recipe.dpo.sft_weight:g} | {change.before.loss:.4f} → {change.after.loss:.4f} | "
        f"{change.before.margin:.4f} → {change.after.margin:.4f} | {change.kl:.4g} |"
        for number, (one, change) in enumerate(zip(ranked, changes, strict=True), 1)
    )
    return f"""# {visible(name)}

{visible(weights.name)}{step} after direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290) on {counted(len(ranked), "ranked pair")}:
an experiment of tui-llm's *Prefer*, not a model to rely on. Its licence and its training text are those of {visible(weights.name)}.

| pair | prompt | chosen | rejected |
|---|---|---|---|
{texts}

| pair | β | learning rate | steps | length-normalized | SFT weight | loss (nats) | margin | KL after (nats) |
|---|---|---|---|---|---|---|---|---|
{rows}

{_losses(ranked)}

A margin is the chosen answer's reward − the rejected one's; ln π and ln ref are sums over an answer's tokens, and the reference is
{visible(weights.name)}. KL(π ‖ ref) is that of the next token after the prompts ranked so far. AdamW, β 0.9
and 0.999, no weight decay, no warm-up, no clipping, one pair at a time.
"""


def _losses(ranked: Sequence[RankedPair]) -> str:
    """What the loss of each pair is, in a sentence for each kind."""
    kinds: dict[str, list[int]] = {}
    for number, one in enumerate(ranked, 1):
        dpo = one.recipe.dpo
        kinds.setdefault(f"{dpo.loss_formula}, a reward {dpo.reward_formula()}", []).append(number)
    if len(kinds) == 1:
        return f"The loss is {next(iter(kinds))}."
    return "\n".join(f"- pair {', '.join(map(str, numbers))}: the loss is {text}" for text, numbers in kinds.items())


def _cell(text: str) -> str:
    return visible(text).replace("|", "\\|")
