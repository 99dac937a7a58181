"""The open model, the models that can be opened, and the choices that a model's numbers depend on."""

from __future__ import annotations

from dataclasses import dataclass, field

# What each weight format (`weight_names.WEIGHTS`) that is not exact says of itself.
DTYPES = {"half": "half-precision weights", "int8": "int8 weights: results differ"}
# By how much, on the 48 held-out paragraphs that nano never saw: tests/llm/test_kernels.py, with the worse kernel.
INT8_AGREEMENT, INT8_KL = 0.98, 0.0003
INT8_ERROR = f"in nano the likeliest token is fp32's at {INT8_AGREEMENT:.0%} of positions or more, KL at most {INT8_KL:g}".replace(
    "%", " %"
)


def seen_words(fed: int, count: int) -> str:
    """How many of a text's `count` tokens the model sees, the last `fed`; empty if it sees all of them."""
    return f"sees the last {fed:,} of {count:,} tokens" if fed < count else ""


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """One choice, in a few words that may quote foreign text. `changes`: it is not the usual one."""

    text: str
    changes: bool = False


@dataclass(frozen=True, slots=True)
class ModelChoices:
    """What a model's numbers depend on beside its weights and the text. `lines` is the one statement of it.

    tied: whether the output head is the token embedding; None if unknown.
    stored: the dtype of the stored weights, such as bfloat16 (empty: unknown); computed: that of the computation.
    padding: rows of the embedding beyond the vocabulary, which the softmax leaves out.
    prefix_space: whether the vocabulary puts a space in front of a text.
    start: the token that can precede a text, as text (empty: there is none); starts: whether training texts mostly
        began with it.
    chat: whether the model has a chat template.
    longrope: (tokens that are fed, context in the config) of a model with LongRoPE, if they differ.
    switches: how its architecture differs from GPT-2's, beside the head (`llm/model/switches.py`).
    """

    tied: bool | None = None
    stored: str = ""
    computed: str = "float32"
    padding: int = 0
    prefix_space: bool = False
    start: str = "<|endoftext|>"
    starts: bool = False
    chat: bool = False
    longrope: tuple[int, int] | None = None
    switches: tuple[str, ...] = ()

    def lines(
        self, dtype: str = "fp32", *, start_token: bool = False, chat: bool = False, fed: int = 0, count: int = 0
    ) -> tuple[ModelChoice, ...]:
        """dtype: the weight format. start_token, chat: whether the text is fed with them. fed: how many of its `count`
        tokens fit into the context."""
        found = [self._dtype(dtype)]
        if dtype == "int8":
            found.append(ModelChoice(INT8_ERROR))
        if self.tied is not None:
            found.append(ModelChoice("tied head") if self.tied else ModelChoice("untied head", True))
        if self.switches:
            found.append(ModelChoice(", ".join(self.switches), True))
        if self.padding:
            rows = "1 padding row" if self.padding == 1 else f"{self.padding:,} padding rows"
            found.append(ModelChoice(f"{rows} left out of the softmax", True))
        if self.longrope is not None:
            fed_at_most, stated = self.longrope
            found.append(
                ModelChoice(f"context of {fed_at_most:,} tokens, not {stated:,}: without LongRoPE's long factors", True)
            )
        if self.prefix_space:
            found.append(ModelChoice("a space is put in front of the text", True))
        if start_token:
            found.append(ModelChoice(f"{self.start} in front", True))
        elif self.start:
            expected = ", which the model expects" if self.starts and not chat else ""
            found.append(ModelChoice(f"no {self.start} in front{expected}", bool(expected)))
        if chat or self.chat:
            found.append(ModelChoice("chat template applied" if chat else "chat template not applied", chat))
        if seen := seen_words(fed, count):
            found.append(ModelChoice(f"{seen}, its context", True))
        return tuple(found)

    def _dtype(self, dtype: str) -> ModelChoice:
        if dtype != "fp32":
            return ModelChoice(DTYPES.get(dtype, f"{dtype} weights"), True)
        if self.stored in ("", self.computed):
            return ModelChoice(f"{self.computed} weights", self.computed != "float32")
        return ModelChoice(f"{self.stored} weights, computed in {self.computed}", self.computed != "float32")


@dataclass(frozen=True, slots=True)
class Weights:
    """Identifies the weights that a reading was computed with: the model's name, its shape and, for a run's checkpoint,
    the training step."""

    name: str
    step: int | None
    parameters: int
    layers: int
    heads: int
    width: int
    context: int  # context length in tokens
    vocabulary: int  # number of token ids it can predict (padding rows not counted)
    device: str
    kind: str = "gpt2"  # the architecture; any other than gpt2 does not run in our own GPT-2
    choices: ModelChoices = field(default_factory=ModelChoices)
    note: str = ""  # newer checkpoints of the run that were skipped, and why; what was assumed to open the file
    dtype: str = "fp32"  # or half, int8: the weight format (`weight_names.WEIGHTS`)
    reader: str = field(default="torch", compare=False)  # or numpy, with equal results, or llama.cpp: what computes
    # What multiplies by the weights (`llm/model/kernels.py`); "": the usual kernel.
    kernel: str = field(default="", compare=False)

    @property
    def positions(self) -> bool:
        """Whether it embeds the tokens' positions. Of the models whose parts are known (`llm/adapters/parts.py`), only
        GPT-2 does; the others rotate queries and keys."""
        return self.kind == "gpt2"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that can be opened.

    kind: shipped, run, model (the user's own, or pulled), cache (in the Hugging Face Hub cache) or folder.
    size: bytes on disk.
    origin: where the model comes from; pulled: whether it can be pulled again.
    problem: why it can't be opened, or None; note: what is assumed to open it, or empty.
    rows: rows of the model's embedding, if they are more than the vocabulary's ids.
    """

    name: str
    kind: str
    path: str
    parameters: int | None
    context: int | None
    vocabulary: int | None
    step: int | None = None
    problem: str | None = None
    size: int | None = None
    origin: str = ""
    pulled: bool = False
    note: str = ""
    rows: int | None = None

    @property
    def vocabulary_text(self) -> str:
        """The vocabulary's size, and why the model has more rows than that."""
        size = "–" if self.vocabulary is None else f"{self.vocabulary:,}"
        if self.rows is None:
            return size
        return f"{size} ids; the model has {self.rows:,} rows, those without an id are left out of every softmax"
