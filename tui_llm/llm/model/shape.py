"""GPTConfig: a GPT-2's shape and its number of parameters. No torch here, so that the cost of a run can be computed
without importing it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GPTConfig:
    """A GPT-2's shape. The defaults are GPT-2 124M's."""

    vocabulary: int = 50257  # V: rows of the embedding, padding included
    context: int = 1024  # maximum number of positions
    layers: int = 12
    heads: int = 12
    width: int = 768  # C
    inner: int = 0  # width of the MLP's hidden layer; 0 means 4 × C
    epsilon: float = 1e-5  # of the LayerNorms
    dropout: float = 0.0  # in training mode only
    tied: bool = True  # the output head shares the token embedding's weight
    exact_gelu: bool = False  # the MLP's GELU is computed with erf (Hugging Face's "gelu"), not approximated with tanh

    def __post_init__(self) -> None:
        for name in ("vocabulary", "context", "layers", "heads", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, not 1 or more")
        if self.inner < 0:
            raise ValueError(f"inner is {self.inner}, not 0 or more")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")

    @property
    def hidden(self) -> int:
        return self.inner or 4 * self.width

    def parameters(self) -> int:
        """Number of trainable parameters (a tied head counted once)."""
        block = 4 * self.width**2 + 2 * self.width * self.hidden + 9 * self.width + self.hidden
        embeddings = (self.vocabulary * (1 if self.tied else 2) + self.context) * self.width
        return embeddings + self.layers * block + 2 * self.width

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Every parameter's name and shape, as in `model.GPT`, generated lazily and without building a model."""
        C, inner = self.width, self.hidden
        yield "tokens.weight", (self.vocabulary, C)
        yield "positions.weight", (self.context, C)
        for layer in range(self.layers):
            for name, shape in (
                ("norm1", (C,)), ("attention.qkv", (3 * C, C)), ("attention.out", (C, C)),
                ("norm2", (C,)), ("mlp.up", (inner, C)), ("mlp.down", (C, inner)),
            ):  # fmt: skip
                yield f"blocks.{layer}.{name}.weight", shape
                yield f"blocks.{layer}.{name}.bias", shape[:1]
        yield "norm.weight", (C,)
        yield "norm.bias", (C,)
        if not self.tied:
            yield "head.weight", (self.vocabulary, C)
