"""A causal language model of the `transformers` library as a Predictor.

What a model supports is tested when it is opened, not inferred from its name: whether its logits are its output head
applied to the last hidden state (possibly scaled or soft-capped), and whether its KV cache can be cropped. If not,
logits are stored instead of hidden states, or the text is fed again: slower, with the same results.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tui_llm.common.errors import UserError
from tui_llm.llm.adapters.description import context_of
from tui_llm.llm.model import device

_PROBE = 8  # number of tokens for the tests

Cap = Callable[[Tensor], Tensor]


class CausalPredictor:
    """Implements `predictor.Predictor` for a model of `transformers.AutoModelForCausalLM`.

    Raises `UserError` if the model is not causal, that is, if a prediction depends on later tokens, or if its logits
    contain NaN or nothing finite. `unexpected`: names of stored tensors that the model doesn't use.
    """

    def __init__(self, model: Any, name: str, unexpected: Sequence[str] = ()) -> None:
        self.model, self.name, self.unexpected = model, name, tuple(unexpected)
        config = model.config.get_text_config(decoder=True)
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.layers = int(getattr(config, "num_hidden_layers", 0) or 0)
        self.heads = int(getattr(config, "num_attention_heads", 0) or 0)
        self.width = int(getattr(config, "hidden_size", 0) or 0)
        self.context = context_of(config)
        self._ids: list[int] = []
        self._cache: Any = None
        self._head: Any = None
        self._cap: Cap | None = None
        self._cached = False
        self.kept = 0
        self._try(config)

    # ── tests of what the model supports ──

    @torch.inference_mode()
    def _try(self, config: Any) -> None:
        rows = self.model.get_input_embeddings().weight.shape[0]
        ids = [at % rows for at in range(min(_PROBE, self.context))]
        wanted = self._logits(ids)  # (T, V)
        if bool(wanted.isnan().any()) or not bool(wanted.isfinite().any()):
            raise UserError(f"{self.name} predicts NaN or infinite logits: its weights are damaged")
        self.vocabulary = int(wanted.shape[1])
        self.kept = self.vocabulary
        half = max(1, len(ids) // 2)
        if not _same(self._logits(ids[:half]), wanted[:half], self._tolerance):
            raise UserError(
                f"{self.name} is not a causal language model: what it predicts depends on the tokens after it"
            )
        head = self.model.get_output_embeddings()
        hidden = _or_none(lambda: self._hidden(ids, None))
        for cap in _caps(config):
            if hidden is None or head is None:
                break
            made = _or_none(lambda cap=cap: cap(head(hidden.to(head.weight.dtype))))  # type: ignore[misc]
            if made is not None and _same(made.float(), wanted, self._tolerance):
                self._head, self._cap, self.kept = head, cap, int(hidden.shape[1])
                break
        self._cached = bool(_or_none(lambda: self._may_cut(ids, wanted, half)))
        self._cache, self._ids = None, []

    def _may_cut(self, ids: list[int], wanted: Tensor, half: int) -> bool:
        """Whether running tokens after cropping the cache gives the same logits as without cropping."""
        self._cached = True
        whole, rows = self.vocabulary, len(ids)
        first = self.head(self.run(ids), whole)
        self.crop(half)
        again = self.head(self.run(ids[half:]), whole)
        self.crop(rows - 1)
        last = self.head(self.run(ids[rows - 1 :]), whole)
        return all(
            _same(one, rest, self._tolerance)
            for one, rest in ((first, wanted), (again, wanted[half:]), (last, wanted[-1:]))
        )

    @property
    def _tolerance(self) -> float:
        return 1e-4 if next(self.model.parameters()).dtype == torch.float32 else 5e-2

    def _tensor(self, ids: Sequence[int]) -> Tensor:
        return torch.tensor([list(ids)], device=self.model.device)

    def _logits(self, ids: Sequence[int], cache: Any = None) -> Tensor:
        """Logits (T, V), from the whole model."""
        made = self.model(input_ids=self._tensor(ids), **_cache_words(self.model, cache))
        logits: Tensor = made.logits[0].float()
        return logits

    def _hidden(self, ids: Sequence[int], cache: Any) -> Tensor:
        """Hidden states (T, C), from the model without its output head."""
        made = self.model.base_model(input_ids=self._tensor(ids), **_cache_words(self.model.base_model, cache))
        hidden: Tensor = made.last_hidden_state[0]
        return hidden

    # ── the predictor ──

    def fresh(self) -> CausalPredictor:
        """A predictor for the same model, with an empty cache of its own."""
        made = copy.copy(self)
        made._ids, made._cache = [], None
        return made

    @torch.inference_mode()
    def run(self, ids: Sequence[int]) -> Tensor:
        pass_over = self._logits if self._head is None else self._hidden
        with device.threads(self.parameters * len(ids)):
            fed = list(ids) if self._cache is not None else [*self._ids, *ids]
            cache, self._cache = self._cache, None  # a failed pass leaves the cache half updated
            if cache is None and self._cached:
                cache = _new_cache()
            made = pass_over(fed, cache)[-len(ids) :]
            self._cache = cache
        self._ids += ids
        return made.float().cpu()

    def crop(self, length: int) -> None:
        gone = len(self._ids) - length
        if gone <= 0:
            return
        if length <= 0:
            self._cache = None
        elif self._cache is not None:
            self._cache.crop(-gone)
        del self._ids[max(0, length) :]

    @torch.inference_mode()
    def head(self, features: Any, size: int) -> Tensor:
        return self.logits_of(torch.as_tensor(features), size)

    def logits_of(self, features: Tensor, size: int) -> Tensor:
        """As `head`, with a gradient."""
        if self._head is None or self._cap is None:
            return features[:, :size]
        with device.threads(features.numel() * size):
            weight = self._head.weight
            logits = self._cap(self._head(features.to(weight.device, weight.dtype)))
            return logits[:, :size].float().cpu()

    @torch.inference_mode()
    def attentions(self, ids: Sequence[int]) -> list[Tensor]:
        """The attention weights of every layer for `ids`, each (H, T, T) in float32 on the CPU. Computed by transformers'
        eager attention, the only one that returns them. Raises `UserError` if the model has none."""
        used = getattr(self.model.config, "_attn_implementation", None)
        try:
            with device.threads(self.parameters * len(ids)):
                self.model.set_attn_implementation("eager")
                made = self.model(input_ids=self._tensor(ids), output_attentions=True, use_cache=False)
            layers = getattr(made, "attentions", None) or ()
            shapes = {tuple(one.shape[2:]) if isinstance(one, Tensor) and one.dim() == 4 else () for one in layers}
        except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
            raise UserError(self._no_attention) from error
        finally:
            if used:
                self.model.set_attn_implementation(used)
        if shapes != {(len(ids), len(ids))} or len({one.shape[1] for one in layers}) > 1:
            raise UserError(self._no_attention)
        return [one[0].float().cpu() for one in layers]

    @property
    def _no_attention(self) -> str:
        kind = getattr(self.model.config, "model_type", "")
        return (
            f"{self.name} is a {kind!r} model: transformers gives no attention weights of all its layers; open another"
        )

    def embedding(self) -> Tensor:
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight


def _cache_words(model: Any, cache: Any) -> dict[str, Any]:
    """The keyword arguments that pass `cache` to `model`: newer versions of transformers name it `cache`."""
    if cache is None:
        return {"use_cache": False}
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    return {name: cache, "use_cache": True}


def _new_cache() -> Any:
    from transformers import DynamicCache

    # Without a config every layer stores all tokens, also those with sliding-window attention, so that cropping is
    # possible.
    return DynamicCache()


def _caps(config: Any) -> list[Cap]:
    """What models apply to the head's output: nothing, a soft cap (Gemma 2), a factor (Cohere) or a divisor
    (Granite)."""

    def number(name: str) -> float | None:
        value = getattr(config, name, None)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value else None

    caps: list[Cap] = [lambda logits: logits]
    if (cap := number("final_logit_softcapping")) is not None:
        caps.append(lambda logits: torch.tanh(logits / cap) * cap)
    if (scale := number("logit_scale")) is not None:
        caps.append(lambda logits: logits * scale)
    if (scaling := number("logits_scaling")) is not None:
        caps.append(lambda logits: logits / scaling)
    return caps


def _same(made: Tensor, wanted: Tensor, loose: float) -> bool:
    made, wanted = made.cpu(), wanted.cpu()
    if made.shape != wanted.shape:
        return False
    # Tolerance relative to the largest logit: those of a random model are small.
    scale = float(wanted[wanted.isfinite()].abs().amax()) if bool(wanted.isfinite().any()) else 0.0
    return bool(torch.allclose(made, wanted, rtol=0, atol=loose * max(scale, 1e-6), equal_nan=True))


def _or_none(make: Callable[[], Any]) -> Any:
    """The result of `make`, or None if it raises anything: the caller only tests whether it works."""
    try:
        return make()
    except Exception:
        return None
