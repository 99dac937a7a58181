"""The kinds of alarms, what people do about each, and one alarm as plain data."""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.facts.token_place import TokenPlace

SPIKE, DIVERGENCE, PLATEAU, OVERFITTING, LOW_LOSS, DEAD_GRADIENT, OUTLIER_ROW = KINDS = (
    "spike", "divergence", "plateau", "overfitting", "low loss", "dead gradient", "outlier row",
)  # fmt: skip

ADVICE = {
    SPIKE: "Look at the rows of that step: noise, another encoding or one long repetition give such losses. A loss that returns"
    " within some steps did no harm. If spikes come again: lower the learning rate, lengthen the warm-up, keep the gradient"
    " clipped at 1. PaLM went back to a checkpoint some 100 steps earlier and skipped those batches (Chowdhery et al. 2022,"
    " section 5.1).",
    DIVERGENCE: "Stop it, and start again from the checkpoint before that step with a peak learning rate 3 to 10 times lower; a"
    " longer warm-up and gradient clipping at 1 help too (Wortsman et al. 2023, arXiv 2309.14322).",
    PLATEAU: "If the loss is near the text's entropy, nothing is left to learn: stop, or take a larger model or more text."
    " Otherwise the learning rate is too low (or so high that it can't settle): change it by a factor of 3 and watch the next"
    " hundred steps. Loss equal to the entropy of single tokens means that the model uses no context yet.",
    OVERFITTING: "Open the checkpoint with the lowest validation loss: while that loss rises, more steps make the model worse. More text helps"
    " most; up to some four epochs, repeated text is about as good as new text (Muennighoff et al. 2023, arXiv 2305.16264). Else:"
    " dropout, more weight decay, a smaller model.",
    LOW_LOSS: "No fault by itself: the text is easy to predict, or was read so often that the model knows it by heart. While the"
    " validation loss falls, more steps help, unless the held-out part repeats the training text: it then says little"
    " about other text. Try the model on a text of your own.",
    DEAD_GRADIENT: "Nothing is learned: weights are frozen, the output does not depend on them (a head of zeros), or the numbers are too"
    " small for their precision (fp16 needs loss scaling: Micikevicius et al. 2018, arXiv 1710.03740). Look at the norms of each"
    " matrix; begin again from a checkpoint before that step.",
    OUTLIER_ROW: "Look at the row: Enter on the chart at that step, or `tui-llm replay RUN --step K`. Noise, another encoding, markup or numbers"
    " give such rows, and they take a share of each gradient and of the model. Clean the file, or leave it out: a new run, or a"
    " branch from before that step (`tui-llm train --branch RUN --step K-1 --exclude FILE`). A row of text that is only rare does"
    " no harm.",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Alarm:
    """Losses are in nats per token.

    step: the step that completed the evidence. since: the step at which it begins.
    evidence: one line with its numbers, and perhaps the name of a file: foreign text. advice: what people do about it.
    row: of an outlier row, the row of that step, from 0. place: where it begins in the corpus, if that is known.
    count: how many steps have had such a row of that file.
    """

    kind: str
    step: int
    since: int
    evidence: str
    row: int | None = None
    place: TokenPlace | None = None
    count: int = 1

    @property
    def key(self) -> tuple[str, int]:
        """Equal for two states of one alarm: a later one may count more steps."""
        return self.kind, self.step

    @property
    def advice(self) -> str:
        return ADVICE[self.kind]
