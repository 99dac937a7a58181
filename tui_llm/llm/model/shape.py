"""GPTConfig: a model's shape, its architecture switches, and its number of parameters. No torch here, so that the cost of
a run can be computed without importing it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GPTConfig:
    """A model's shape. The defaults are GPT-2 124M's; the fields from `kv_heads` on are the switches (`switches.py`), of
    which a model can have those that one layout of `layouts.py` holds together."""

    vocabulary: int = 50257  # V: rows of the embedding, padding included
    context: int = 1024  # maximum number of positions
    layers: int = 12
    heads: int = 12
    width: int = 768  # C
    inner: int = 0  # width of the MLP's hidden layer; 0 means 4 × C
    epsilon: float = 1e-5  # of the norms
    dropout: float = 0.0  # in training mode only
    tied: bool = True  # the output head shares the token embedding's weight
    exact_gelu: bool = False  # the MLP's GELU is computed with erf (Hugging Face's "gelu"), not approximated with tanh
    kv_heads: int = 0  # key and value heads, each shared by heads ÷ kv_heads query heads; 0 means as many as heads
    rope: float = 0.0  # base θ of the rotary positions; 0 means learned position embeddings
    rmsnorm: bool = False  # RMSNorm instead of LayerNorm, and no biases
    qk_norm: bool = False  # RMSNorm of queries and keys
    relu2: bool = False  # ReLU² instead of GELU
    softcap: float = 0.0  # logits are softcap · tanh(logit ÷ softcap); 0 means as they are
    window: int = 0  # number of tokens that a token attends to, itself included; 0 means all

    def __post_init__(self) -> None:
        for name in ("vocabulary", "context", "layers", "heads", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, not 1 or more")
        for name in ("inner", "kv_heads", "rope", "softcap", "window"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, not 0 or more")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")
        if self.heads % self.key_heads:
            raise ValueError(f"{self.heads} heads can't share {self.key_heads} key and value heads evenly")
        if self.rope and self.size % 2:
            raise ValueError(f"rotary positions need heads of an even width, not {self.size}")

    @property
    def hidden(self) -> int:
        """Width of the MLP's hidden layer."""
        return self.inner or 4 * self.width

    @property
    def size(self) -> int:
        """D, the width of a head."""
        return self.width // self.heads

    @property
    def key_heads(self) -> int:
        """Number of key and value heads."""
        return self.kv_heads or self.heads

    @property
    def projected(self) -> int:
        """Rows of the matrix that makes queries, keys and values: C, and twice the key and value heads'."""
        return self.width + 2 * self.key_heads * self.size

    @property
    def biased(self) -> bool:
        """Whether linear layers and norms have biases."""
        return not self.rmsnorm

    @property
    def gains(self) -> bool:
        """Whether norms have weights: NanoChat's have none."""
        return not self.qk_norm

    @property
    def model_type(self) -> str:
        """The layout that holds these switches, by transformers' name of it."""
        if not self.rope:
            return "gpt2"
        return "nanochat" if self.qk_norm else "arcee" if self.rmsnorm else "starcoder2"

    @property
    def plain(self) -> bool:
        """Whether it computes what GPT-2 does, except that the head may be untied and the GELU exact."""
        return not (self.rope or self.rmsnorm or self.qk_norm or self.relu2 or self.softcap or self.window) and (
            self.key_heads == self.heads
        )

    @property
    def position_weights(self) -> int:
        """Number of weights in the position embedding, which a model with rotary positions does not have."""
        return 0 if self.rope else self.context * self.width

    def parameters(self) -> int:
        """Number of trainable parameters (a tied head counted once)."""
        norms = self.width * (self.gains + self.biased)
        biases = (self.projected + 2 * self.width + self.hidden) * self.biased
        embeddings = self.vocabulary * (1 if self.tied else 2) * self.width + self.position_weights
        return embeddings + self.layers * (self.block_matrices() + biases + 2 * norms) + norms

    def block_matrices(self) -> int:
        """Number of weights in the matrices of one block."""
        return self.width * (self.projected + self.width + 2 * self.hidden)

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Every parameter's name and shape, as in `model.GPT`, generated lazily and without building a model."""
        C, inner = self.width, self.hidden
        yield "tokens.weight", (self.vocabulary, C)
        if not self.rope:
            yield "positions.weight", (self.context, C)
        for layer in range(self.layers):
            for name, shape in (
                ("norm1", (C,)), ("attention.qkv", (self.projected, C)), ("attention.out", (C, C)),
                ("norm2", (C,)), ("mlp.up", (inner, C)), ("mlp.down", (C, inner)),
            ):  # fmt: skip
                yield from self._both(f"blocks.{layer}.{name}", shape)
        yield from self._both("norm", (C,))
        if not self.tied:
            yield "head.weight", (self.vocabulary, C)

    def _both(self, name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
        """A module's weight and bias, as far as it has them."""
        if self.gains or len(shape) > 1:
            yield f"{name}.weight", shape
        if self.biased:
            yield f"{name}.bias", shape[:1]
