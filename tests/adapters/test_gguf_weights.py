"""GGUF files' weights: what transformers leaves out is read here, or refused by name."""

from __future__ import annotations

from pathlib import Path

import foreign
import numpy as np
import pytest
import transformers

from tui_llm.common.errors import UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.request import Request

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16, "rope_theta": 10000.0}  # fmt: skip


def test_the_rotary_factors_of_llama_3_are_read(tmp_path: Path) -> None:
    """llama.cpp's converter stores Llama 3's scaling of positions as `rope_freqs.weight`: the frequencies' divisors."""
    plain = foreign.make("llama", tmp_path / "llama")
    scaled = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**{**plain.config.to_dict(), "rope_parameters": LLAMA3})
    )
    scaled.load_state_dict(plain.state_dict())
    factors = (plain.model.rotary_emb.inv_freq / scaled.model.rotary_emb.inv_freq).numpy()
    assert factors.max() > 7
    path = tmp_path / "tiny.gguf"
    foreign.write_gguf(plain, foreign.byte_level(), path, more={"rope_freqs.weight": factors.astype(np.float32)})
    engine = PipelineEngine("cpu")
    weights = engine.open(str(path))
    reading = engine.read(Request(prompt="The cat sat on the mat and the dog", top=weights.vocabulary))
    wanted = foreign.full_logits(scaled.eval(), list(reading.prompt_ids))[-1]
    unscaled = foreign.full_logits(plain, list(reading.prompt_ids))[-1]
    assert float((wanted - unscaled).abs().max()) > 1e-2
    assert reading.distribution is not None
    for row in reading.distribution.candidates:
        assert row.logit == pytest.approx(float(wanted[row.id]), abs=1e-4)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"rope_freqs.weight": np.ones(3, np.float32)}, "does not fit"),
        ({"rope_freqs.weight": np.zeros(4, np.float32)}, "not positive"),
        ({"blk.1.attn_q.bias": np.ones(32, np.float32)}, r"'blk\.1\.attn_q\.bias'"),
        ({"llama.rope.scaling.type": "yarn"}, r"llama\.rope\.scaling"),
    ],
    ids=["factors of another size", "a zero factor", "a bias", "yarn"],
)
def test_what_is_not_read_is_refused(more: dict[str, np.ndarray | str], message: str, tmp_path: Path) -> None:
    model = foreign.make("llama", tmp_path / "llama")
    path = tmp_path / "tiny.gguf"
    foreign.write_gguf(model, foreign.byte_level(), path, more=more)
    with pytest.raises(UserError, match=message) as caught:
        PipelineEngine("cpu").open(str(path))
    assert "\n" not in str(caught.value)


def test_no_scaling_opens(tmp_path: Path) -> None:
    model = foreign.make("llama", tmp_path / "llama")
    foreign.write_gguf(model, foreign.byte_level(), tmp_path / "a.gguf", more={"llama.rope.scaling.type": "none"})
    assert PipelineEngine("cpu").open(str(tmp_path / "a.gguf")).kind == "llama"
