"""Small random models of other architectures, from transformers' classes, with vocabularies from `tokenizers`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXT = [
    "The cat sat on the mat. The dog sat on the log, and the cat looked at the dog.",
    "Once upon a time there was a little girl. She opened the door and saw a garden.",
    "naïve café, 12 345 people; tabs\tand\nlines.  Two  spaces. user assistant",
] * 4
CONTEXT = 48
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
}


def byte_level(specials: tuple[str, ...] = ("<|begin|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>")) -> Tokenizer:
    """A byte-level tokenizer, as in Qwen, Llama 3, Pythia and SmolLM2."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(
            vocab_size=330,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            special_tokens=list(specials),
            show_progress=False,
        ),
    )
    made.add_tokens([AddedToken("  ", normalized=False, special=False)])  # like Pythia's tokens for runs of spaces
    return made


def sentence_piece(metaspace: bool = False) -> Tokenizer:
    """A tokenizer as in Llama 2 and Gemma: `▁` for a space, byte fallback, `<s>` at the start."""
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Replace(" ", "▁")
    learner.train_from_iterator([" " + text for text in TEXT], trainers.BpeTrainer(vocab_size=120, show_progress=False))
    learned = json.loads(learner.to_str())["model"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += [token for token in learned["vocab"] if token not in tokens]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in learned["merges"]]
    made = Tokenizer(
        models.BPE(
            vocab={t: i for i, t in enumerate(tokens)},
            merges=merges,
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    if metaspace:
        made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
        made.decoder = decoders.Sequence(
            [decoders.Metaspace(replacement="▁", prepend_scheme="first"), decoders.ByteFallback(), decoders.Fuse()]
        )
    else:
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        made.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return made


def make(kind: str, folder: Path, tokenizer: Tokenizer | None = None, **settings: Any) -> Any:
    """Writes a random model of `kind` and its vocabulary into `folder`; returns transformers' model."""
    tokenizer = tokenizer or byte_level()
    config = {
        "llama": lambda **s: transformers.LlamaConfig(num_key_value_heads=2, **SHAPE, **s),
        "qwen2": lambda **s: transformers.Qwen2Config(num_key_value_heads=2, **SHAPE, **s),
        "phi3": lambda **s: transformers.Phi3Config(num_key_value_heads=2, **SHAPE, **s),
        "gpt_neox": lambda **s: transformers.GPTNeoXConfig(**SHAPE, **s),
        "gemma2": lambda **s: transformers.Gemma2Config(
            num_key_value_heads=2,
            head_dim=8,
            sliding_window=6,
            final_logit_softcapping=2.0,
            attn_logit_softcapping=0.3,
            **SHAPE,
            **s,
        ),
        "gpt2": lambda **s: transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=CONTEXT, **s),
        "mamba": lambda **s: transformers.MambaConfig(hidden_size=32, num_hidden_layers=2, state_size=4, **s),
        "cohere": lambda **s: transformers.CohereConfig(num_key_value_heads=2, logit_scale=0.25, **SHAPE, **s),
        "bert": lambda **s: transformers.BertConfig(**SHAPE, **s),
    }[kind](vocab_size=tokenizer.get_vocab_size() + 5, bos_token_id=0, eos_token_id=1, pad_token_id=None, **settings)
    torch.manual_seed(4)
    model = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="eager" if kind == "gemma2" else None
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.eval().save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return model


def chatty(folder: Path, template: str = TEMPLATE) -> None:
    """Adds a chat template to the model in `folder`."""
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": "<|begin|>",
                "eos_token": {"content": "<|im_end|>", "__type": "AddedToken"},
                "chat_template": template,
            }
        )
    )


def full_logits(model: Any, ids: list[int]) -> torch.Tensor:
    """Returns logits (T, V) from one pass over the whole text."""
    with torch.no_grad():
        logits: torch.Tensor = model(torch.tensor([ids]), use_cache=False).logits[0].float()
    return logits


def write_gguf(
    model: Any,
    tokenizer: Tokenizer,
    path: Path,
    scores: bool = False,
    template: str = "",
    more: dict[str, Any] | None = None,
) -> None:
    """Writes transformers' Llama as a GGUF file in the format of llama.cpp's converter.

    `scores`: with a SentencePiece vocabulary. `more`: further tensors (arrays) and strings, by name.
    """
    import gguf

    config, state = model.config, model.state_dict()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    raw = json.loads(tokenizer.to_str())
    ids = tokenizer.get_vocab(with_added_tokens=True)
    tokens = [token for token, _ in sorted(ids.items(), key=lambda item: item[1])]
    tokens += [f"[PAD{at}]" for at in range(len(tokens), config.vocab_size)]
    special = {token["content"] for token in raw["added_tokens"] if token["special"]}
    writer.add_tokenizer_model("llama" if scores else "gpt2")
    if not scores:
        writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [
            gguf.TokenType.CONTROL
            if token in special
            else gguf.TokenType.BYTE
            if scores and token.startswith("<0x")
            else gguf.TokenType.NORMAL
            for token in tokens
        ]
    )
    if scores:
        writer.add_token_scores([-float(at) for at in range(len(tokens))])
    merges = [m if isinstance(m, str) else " ".join(m) for m in raw["model"]["merges"]]
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1 if scores else 0)
    writer.add_eos_token_id(2 if scores else 1)
    if template:
        writer.add_chat_template(template)

    def turned(weight: torch.Tensor, heads: int) -> torch.Tensor:
        """Permutes the weight to llama.cpp's order of the rotary dimensions."""
        return weight.reshape(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)

    names = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    parts = {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for layer in range(config.num_hidden_layers):
        names |= {f"model.layers.{layer}.{a}.weight": f"blk.{layer}.{b}.weight" for a, b in parts.items()}
    for theirs, name in names.items():
        weight = state[theirs].float()
        if name.endswith("attn_q.weight"):
            weight = turned(weight, config.num_attention_heads)
        elif name.endswith("attn_k.weight"):
            weight = turned(weight, config.num_key_value_heads)
        writer.add_tensor(name, weight.contiguous().numpy())
    for name, value in (more or {}).items():
        if isinstance(value, str):
            writer.add_string(name, value)
        else:
            writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
