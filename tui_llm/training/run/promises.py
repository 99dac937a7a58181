"""What text to expect of a run of each preset, said before it starts. Does not import torch.

Each sentence is true of samples that such runs wrote; docs/training.md shows some.
"""

from __future__ import annotations

from typing import NamedTuple

from tui_llm.training.run.settings import BUDGET, PRESETS, TrainingSettings


class Promise(NamedTuple):
    """What text to expect after a preset's run. `corpus` is the text that the preset is made for; empty: any text."""

    text: str
    corpus: str = ""


PROMISES: dict[str, Promise] = {
    "toy": Promise("letters and line lengths like the text's, a few short words right, most words invented"),
    "induction": Promise("no sentences: it learns to repeat letters that it has just seen", "repeats"),
    "small": Promise("mostly real words in short phrases of the text's style; sentences rarely make sense"),
    "shakespeare": Promise("speakers, verse lines and Shakespeare's English, from nano's weights; phrases hold, the sense does not",
                           "tinyshakespeare"),
    BUDGET: Promise("what fits the time: the estimate says how good, in bits per byte of held-out text"),
    "nano": Promise("simple correct sentences, whole paragraphs of stories; who did what is lost after a few sentences"),
    "modern": Promise("simple correct sentences of stories after a tenth of its steps; the whole run was not made here"),
    "gpt2": Promise("not run here: nanoGPT reached GPT-2's loss with this schedule (300 billion tokens); days on several GPUs"),
    "gpt2-medium": Promise("not run here: longer coherent paragraphs than gpt2's; weeks of GPUs"),
    "gpt2-large": Promise("not run here: longer coherent paragraphs than gpt2-medium's; weeks of many GPUs"),
    "gpt2-xl": Promise("not run here: GPT-2's best pages; months of GPUs"),
}  # fmt: skip


def promise(preset: str) -> str:
    """The preset's sentence, with the text that it is made for; empty for a preset of another version."""
    found = PROMISES.get(preset)
    if found is None:
        return ""
    return f"on {found.corpus}: {found.text}" if found.corpus else found.text


def promise_of(preset: str, settings: TrainingSettings) -> str:
    """The preset's sentence for a run with these settings; where they are of another size or length, it says so."""
    text, own = promise(preset), PRESETS.get(preset)
    sizes = ("layers", "width", "tokenizer", "from_model", "steps")
    if not text or own is None or own.minutes or all(getattr(own, name) == getattr(settings, name) for name in sizes):
        return text
    return f"{text} (with the preset's own size and {own.steps:,} steps)"


def usual_corpus(preset: str) -> str:
    """The text that the preset is made for; empty: any text."""
    return PROMISES[preset].corpus if preset in PROMISES else ""


USUAL_CORPORA = tuple(one.corpus for one in PROMISES.values() if one.corpus)


def expected_text(bits_per_byte: float) -> str:
    """What text to expect of a model with such a held-out loss on English."""
    return next(text for most, text in _BY_LOSS if bits_per_byte < most)


_BY_LOSS = (
    (1.5, "correct sentences in the text's style; the sense is lost from one to the next"),
    (1.8, "real words and short phrases of the text's style; most sentences make no sense"),
    (2.6, "real words, names and lines like the text's; hardly a phrase makes sense"),
    (float("inf"), "words and line lengths like the text's, many words invented, no sense"),
)
"""Upper limits in bits per byte; from samples on Shakespeare and Python's reference."""
