"""Tiny random models of many architectures, each with a byte-level vocabulary, as transformers saves them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import foreign
import torch
import transformers as t
from tokenizers import Regex, normalizers, pre_tokenizers

ROWS = 331  # ids of the vocabulary: `foreign.byte_level` has 330 and one added token
CONTEXT = 64
COMMON: dict[str, Any] = {"vocab_size": ROWS, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
}
GROUPED = {**SHAPE, "num_key_value_heads": 2}
OLD = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}
ALTERNATING = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16}

CONFIGS: dict[str, Callable[..., Any]] = {
    "gpt2": lambda **c: t.GPT2Config(**OLD, **c),
    "gpt_bigcode": lambda **c: t.GPTBigCodeConfig(**OLD, **c),
    "gpt_neo": lambda **c: t.GPTNeoConfig(
        hidden_size=32, num_layers=2, num_heads=4, max_position_embeddings=CONTEXT, window_size=16,
        attention_types=[[["global", "local"], 1]], **c
    ),
    "gptj": lambda **c: t.GPTJConfig(rotary_dim=4, **OLD, **c),
    "codegen": lambda **c: t.CodeGenConfig(rotary_dim=4, **OLD, **c),
    "gpt_neox": lambda **c: t.GPTNeoXConfig(**SHAPE, **c),
    "gpt_neox_japanese": lambda **c: t.GPTNeoXJapaneseConfig(
        **{key: value for key, value in SHAPE.items() if key != "intermediate_size"}, **c
    ),
    "opt": lambda **c: t.OPTConfig(ffn_dim=48, word_embed_proj_dim=32, **{**SHAPE, **c, "pad_token_id": 1}),
    "bloom": lambda **c: t.BloomConfig(hidden_size=32, n_layer=2, n_head=4, **c),
    "falcon": lambda **c: t.FalconConfig(**SHAPE, **c),
    "mpt": lambda **c: t.MptConfig(d_model=32, n_heads=4, n_layers=2, max_seq_len=CONTEXT, **c),
    "xglm": lambda **c: t.XGLMConfig(
        d_model=32, ffn_dim=48, num_layers=2, attention_heads=4, max_position_embeddings=CONTEXT, **{**c, "pad_token_id": 1}
    ),
    "biogpt": lambda **c: t.BioGptConfig(**SHAPE, **{**c, "pad_token_id": 1}),
    "llama": lambda **c: t.LlamaConfig(**GROUPED, **c),
    "mistral": lambda **c: t.MistralConfig(sliding_window=16, **GROUPED, **c),
    "mixtral": lambda **c: t.MixtralConfig(num_local_experts=2, **GROUPED, **c),
    "qwen2": lambda **c: t.Qwen2Config(**GROUPED, **c),
    "qwen3": lambda **c: t.Qwen3Config(head_dim=8, **GROUPED, **c),
    "gemma": lambda **c: t.GemmaConfig(head_dim=8, **GROUPED, **c),
    "gemma2": lambda **c: t.Gemma2Config(head_dim=8, sliding_window=16, **GROUPED, **c),
    "gemma3_text": lambda **c: t.Gemma3TextConfig(head_dim=8, **ALTERNATING, **GROUPED, **c),
    "phi": lambda **c: t.PhiConfig(**SHAPE, **c),
    "phi3": lambda **c: t.Phi3Config(original_max_position_embeddings=CONTEXT, **GROUPED, **c),
    "stablelm": lambda **c: t.StableLmConfig(**GROUPED, **c),
    "olmo": lambda **c: t.OlmoConfig(**GROUPED, **c),
    "olmo2": lambda **c: t.Olmo2Config(**GROUPED, **c),
    "cohere": lambda **c: t.CohereConfig(logit_scale=0.25, **GROUPED, **c),
    "cohere2": lambda **c: t.Cohere2Config(logit_scale=0.25, **ALTERNATING, **GROUPED, **c),
    "starcoder2": lambda **c: t.Starcoder2Config(**GROUPED, **c),
    "smollm3": lambda **c: t.SmolLM3Config(**GROUPED, **c),
    "granite": lambda **c: t.GraniteConfig(logits_scaling=2.0, **GROUPED, **c),
    "glm": lambda **c: t.GlmConfig(head_dim=8, **GROUPED, **c),
    "glm4": lambda **c: t.Glm4Config(head_dim=8, **GROUPED, **c),
    "persimmon": lambda **c: t.PersimmonConfig(**SHAPE, **c),
    "nemotron": lambda **c: t.NemotronConfig(**GROUPED, **c),
    "helium": lambda **c: t.HeliumConfig(head_dim=8, **GROUPED, **c),
    "ernie4_5": lambda **c: t.Ernie4_5Config(head_dim=8, **GROUPED, **c),
    "exaone4": lambda **c: t.Exaone4Config(**ALTERNATING, **GROUPED, **c),
    "arcee": lambda **c: t.ArceeConfig(**GROUPED, **c),
    "nanochat": lambda **c: t.NanoChatConfig(**GROUPED, **c),
    "mamba": lambda **c: t.MambaConfig(hidden_size=32, num_hidden_layers=2, state_size=4, **c),
    "recurrent_gemma": lambda **c: t.RecurrentGemmaConfig(
        hidden_size=32, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, lru_width=32,
        attention_window_size=16, head_dim=8, **c
    ),
}  # fmt: skip


# AutoTokenizer takes a class with these rules for a Qwen2, whatever tokenizer.json says (transformers 5).
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def make(kind: str, folder: Path) -> Any:
    """Writes a random model of `kind` and its vocabulary into `folder`; returns transformers' model."""
    torch.manual_seed(4)
    model = t.AutoModelForCausalLM.from_config(CONFIGS[kind](**COMMON))
    model.eval().save_pretrained(folder)
    vocabulary = foreign.byte_level()
    if kind == "qwen2":
        vocabulary.normalizer = normalizers.NFC()
        vocabulary.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_QWEN2), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    tokenizer = t.PreTrainedTokenizerFast(tokenizer_object=vocabulary, bos_token="<|begin|>", eos_token="<|endoftext|>")
    assert len(tokenizer) == ROWS
    tokenizer.save_pretrained(folder)
    return model
