"""Tiny checkpoints in the formats of other training programs, and the logits that the programs' own code gives for them.

The weights are integers modulo 1009, so that no generator and no rounding is involved. The logits and hashes are the
output of the published sources, run once on these weights with torch 2.13 (CPU, float32); no code of theirs is here:

    nanoGPT    karpathy/nanoGPT@3adf61e (12 November 2025)    model.py
    llm.c      karpathy/llm.c@f1e2ace (10 May 2025)           train_gpt2.py: GPT, write_model (without its assertion of 50,257 rows)
    llama2.c   karpathy/llama2.c@350e04f (29 May 2024)        model.py, export.py; ids: run.c's encode, gcc
    nanochat   karpathy/nanochat@2c4473d (11 January 2026)    nanochat/gpt.py, its rotary tables and embedding in float32
               karpathy/nanochat@92d63d4 (3 July 2026)        nanochat/gpt.py in float32; the same since a825e63 (14 March 2026)
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

IDS = [3, 1, 4, 1, 5, 9, 2, 6]
ROWS = (7, 3)  # the positions whose logits are listed

NANOGPT = {
    True: (
        [-0.023511, -0.051666, -0.027174, 0.069331, 0.022529, 0.326312, 0.429287, 0.110623, 0.332845, -0.036204, -0.151383, 0.153114],
        [0.324515, 0.956972, 0.954177, 0.222175, -0.447692, 0.87952, -0.299173, 0.229031, -0.364755, 0.108052, -0.253753, 0.925786],
    ),
    False: (
        [-0.173143, -0.026484, -0.266629, -0.346731, 0.370172, 0.060315, 0.304326, 0.178596, 0.104421, -0.023684, -0.075828, 0.030811],
        [0.315665, 1.001585, 0.774658, -0.117321, -0.181833, 0.647703, -0.027902, 0.335851, -0.552439, -0.190165, -0.162226, 0.558135],
    ),
}  # by whether it has biases  # fmt: skip
LLM_C = {
    3: (
        [-0.023536, -0.051695, -0.027213, 0.069306, 0.022594, 0.326344, 0.429271, 0.11062, 0.332862, -0.036178, -0.151331, 0.153088],
        [0.324484, 0.957086, 0.954146, 0.222159, -0.447555, 0.879527, -0.299219, 0.229006, -0.364757, 0.10807, -0.253622, 0.925795],
    ),
    5: (
        [-0.023602, -0.05086, -0.027193, 0.066533, 0.02348, 0.325833, 0.427876, 0.111362, 0.330305, -0.034891, -0.15153, 0.153859],
        [0.322357, 0.957668, 0.953346, 0.219761, -0.443713, 0.877447, -0.301549, 0.229084, -0.366292, 0.109154, -0.252325, 0.92443],
    ),
}  # by version  # fmt: skip
LLAMA2_C = {
    True: (
        [-0.965727, 0.388978, 0.121359, 0.335212, 0.710287, 0.762531, 0.836793, -0.043513, -0.612433, 0.505185, -0.176103, -0.176051],
        [-0.793217, 0.929638, 0.295868, 0.330551, 0.841637, 0.481968, -0.191837, 0.608272, -0.30878, 0.330166, 0.352117, 0.447813],
    ),
    False: (
        [-0.599915, 1.024191, -0.417158, -0.199538, 0.920638, 0.588711, -0.307648, -0.458605, 0.155286, 0.780785, 0.486255, -0.165169],
        [-0.86051, 1.082289, -0.812168, 0.349987, 1.042082, 0.332981, 0.33307, -0.06886, 0.460534, 0.680771, 0.867815, 0.360897],
    ),
}  # by whether the head is the embedding  # fmt: skip
NANOCHAT = {
    4: (
        [-0.372071, 0.277281, 0.255464, 0.040121, -0.767869, -0.223897, 0.105082, 0.314238, 0.643926, -1.380185, -1.009078, 0.506355],
        [0.787253, 0.081383, -0.337688, 0.08623, 0.694713, 0.123643, -0.249005, 0.315488, 0.603571, 0.532132, 0.374086, 0.570083],
    ),
    2: (
        [-0.182494, 0.244051, -0.082807, 0.470651, -0.822897, -0.285799, 0.016296, 0.028596, 0.648107, -1.363096, -0.953232, 0.42369],
        [0.787212, -0.100615, -0.662315, 0.624577, 0.446586, 0.045778, -0.365434, 0.01901, 0.592861, 0.232721, 0.493817, 0.438272],
    ),
}  # by number of key/value heads; the first 12 of 60 logits  # fmt: skip
# Of 2026, by number of key/value heads: layers, window pattern, and the first 12 of 60 logits after 200 and after 4 of
# the tokens `LONG`; short windows have 128 tokens.
NANOCHAT_2026 = {
    4: (3, "SL", (
        [-0.17005, -0.231961, 1.392677, 0.488817, 1.366002, 0.349237, -0.295584, -0.334837, 0.203571, -1.171369, 1.450684, 0.84093],
        [-1.571978, -0.302615, -0.685856, -0.315468, 0.592171, 0.306927, -1.093399, -0.283642, -0.875187, 0.588352, 0.438622, 1.185837],
    )),
    2: (5, "SSSL", (
        [-0.733865, 0.005378, 1.006465, 0.663906, 1.778172, 0.954708, 0.50602, -0.676381, 0.093387, -1.163604, 1.184847, 0.467217],
        [-0.72248, -0.11984, 0.384875, 0.639612, -0.441785, 0.55979, -0.637581, -0.312752, -0.48253, 0.30322, 0.835446, 0.234423],
    )),
}  # fmt: skip
LONG = [(7 * at + at * at) % 60 for at in range(200)]
# SHA-256 of the files that the programs' own writers make of these weights.
HASHES = {
    ("llm.c", 3): "ec919957469e5ebeac4ae965215536a7ae1da2a3b197b893c064f71e0bad593d",
    ("llm.c", 5): "029ed999fd78b404571d56666d33a59d1ec42f75e078a52d7903f9eb9999c6cd",
    ("llama2.c", True): "e39a7b61c2547f66297172bf43df6ad021a9129a575b9885f09ae1951fe2628c",
    ("llama2.c", False): "d29c8d7a17d0b679d5a79beb976cc357d257e1e641141ad60b8185d9cbda0b35",
}

C, LAYERS, HEADS, CONTEXT, VOCABULARY = 8, 2, 2, 8, 12  # of the two GPT-2s


def values(name: str, shape: tuple[int, ...], scale: float = 0.25) -> Tensor:
    k = (torch.arange(math.prod(shape), dtype=torch.int64) * 617 + zlib.crc32(name.encode()) % 1009) % 1009
    k = (k * k + 31 * k) % 1009
    return ((k.to(torch.float64) / 1009 - 0.5) * 2 * scale).to(torch.float32).view(*shape)


def gpt2_tensors(biases: bool = True) -> dict[str, Tensor]:
    """Names as in nanoGPT and llm.c, in the order of llm.c's file."""
    kinds = {"ln_1": (C,), "attn.c_attn": (3 * C, C), "attn.c_proj": (C, C), "ln_2": (C,), "mlp.c_fc": (4 * C, C), "mlp.c_proj": (C, 4 * C)}  # fmt: skip
    shapes = {"transformer.wte.weight": (VOCABULARY, C), "transformer.wpe.weight": (CONTEXT, C)}
    for kind, shape in kinds.items():
        shapes |= {f"transformer.h.{layer}.{kind}.weight": shape for layer in range(LAYERS)}
        shapes |= {f"transformer.h.{layer}.{kind}.bias": shape[:1] for layer in range(LAYERS)}
    shapes |= {"transformer.ln_f.weight": (C,), "transformer.ln_f.bias": (C,)}
    return {
        name: values(name, shape) + (1.0 if "ln_" in name and name.endswith("weight") else 0.0)
        for name, shape in shapes.items()
        if biases or not name.endswith("bias")
    }


def nanogpt(path: Path, *, biases: bool = True, prefix: str = "", args: dict[str, Any] | None = None,
            more: dict[str, Any] | None = None) -> Path:  # fmt: skip
    """As nanoGPT's train.py saves it: the head shares its storage with the embedding; optimizer state and settings."""
    state = gpt2_tensors(biases)
    state["lm_head.weight"] = state["transformer.wte.weight"]
    parameters = [torch.nn.Parameter(tensor.clone()) for tensor in state.values()]
    optimizer = torch.optim.AdamW(parameters)
    sum((parameter.sum() for parameter in parameters), torch.zeros(())).backward()
    optimizer.step()
    model_args = {"n_layer": LAYERS, "n_head": HEADS, "n_embd": C, "block_size": CONTEXT, "bias": biases, "vocab_size": VOCABULARY, "dropout": 0.0}  # fmt: skip
    torch.save(
        {
            "model": {prefix + name: tensor for name, tensor in state.items()} | (more or {}),
            "optimizer": optimizer.state_dict(),
            "model_args": {**model_args, **(args or {})},
            "iter_num": 2000,
            "best_val_loss": torch.tensor(1.5),
            "config": {"dataset": "shakespeare_char", "learning_rate": 1e-3, "compile": False},
        },
        path,
    )
    return path


def llm_c(path: Path, version: int = 3) -> Path:
    padded = 128
    header = struct.pack("<8i", 20240326, version, CONTEXT, VOCABULARY, LAYERS, HEADS, C, padded)
    tensors = gpt2_tensors()
    wte = "transformer.wte.weight"
    tensors[wte] = torch.cat((tensors[wte], torch.zeros(padded - VOCABULARY, C)))
    number = torch.float32 if version == 3 else torch.bfloat16
    data = b"".join(tensor.to(number).view(torch.int32 if version == 3 else torch.int16).numpy().tobytes() for tensor in tensors.values())  # fmt: skip
    path.write_bytes(header.ljust(1024, b"\0") + data)
    return path


def llama2_c(path: Path, version: int = 1, shared: bool = True, vocabulary: int = VOCABULARY, base: float = 10000.0) -> Path:  # fmt: skip
    width, hidden, layers, heads, kv_heads, context = 16, 24, 2, 4, 2, 8
    kv = width // heads * kv_heads

    def each(name: str, *shape: int) -> list[Tensor]:
        extra = 1.0 if "norm" in name else 0.0
        return [values(f"layers.{layer}.{name}.weight", shape) + extra for layer in range(layers)]

    norms = each("attention_norm", width), each("ffn_norm", width)
    attention = [
        *each("attention.wq", width, width), *each("attention.wk", kv, width),
        *each("attention.wv", kv, width), *each("attention.wo", width, width),
    ]  # fmt: skip
    mlp = [*each("feed_forward.w1", hidden, width), *each("feed_forward.w2", width, hidden), *each("feed_forward.w3", hidden, width)]  # fmt: skip
    last = values("norm.weight", (width,)) + 1.0
    # Tied parameters were filled once, under the embedding's name.
    embedding, head = (values(f"{name}.weight", (vocabulary, width)) for name in ("tok_embeddings", "output"))
    if version == 0:
        sizes = struct.pack("<7i", width, hidden, layers, heads, kv_heads, vocabulary if shared else -vocabulary, context)  # fmt: skip
        angles = torch.outer(torch.arange(context), base ** (-torch.arange(0, width // heads, 2) / (width // heads)))
        tensors = [embedding, *norms[0], *attention, *norms[1], *mlp, last, angles.cos(), angles.sin()]
    else:
        sizes = struct.pack("<Ii7iB", 0x616B3432, version, width, hidden, layers, heads, kv_heads, vocabulary, context, shared)  # fmt: skip
        sizes = sizes.ljust(256, b"\0")
        tensors = [*norms[0], *norms[1], last, embedding, *attention, *mlp]
    tensors += [] if shared else [head]
    path.write_bytes(sizes + b"".join(tensor.numpy().tobytes() for tensor in tensors))
    return path


def nanochat(folder: Path, kv_heads: int = 4, *, prefix: str = "", settings: dict[str, Any] | None = None,
             more: dict[str, Tensor] | None = None) -> Path:  # fmt: skip
    width, heads, rows = 16, 4, 64  # rows: padded
    kv = width // heads * kv_heads
    shapes = {"attn.c_q": (width, width), "attn.c_k": (kv, width), "attn.c_v": (kv, width), "attn.c_proj": (width, width),
              "mlp.c_fc": (4 * width, width), "mlp.c_proj": (width, 4 * width)}  # fmt: skip
    state = {name: values(name, (rows, width)) for name in ("transformer.wte.weight", "lm_head.weight")}
    for layer in range(2):
        for kind, shape in shapes.items():
            name = f"transformer.h.{layer}.{kind}.weight"
            state[name] = values(name, shape)
    torch.save(
        {prefix + name: tensor for name, tensor in {**state, **(more or {})}.items()}, folder / "model_000100.pt"
    )
    nanochat_meta(folder, kv_heads, settings)
    return folder / "model_000100.pt"


def nanochat_2026(folder: Path, kv_heads: int = 4, *, layers: int | None = None) -> Path:
    count, pattern, _ = NANOCHAT_2026[kv_heads]
    count = layers or count
    width, rows = 32, 64
    kv = width // 4 * kv_heads
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (rows, width),
        "lm_head.weight": (rows, width),
        "smear_gate.weight": (1, 24),
        "smear_lambda": (1,),
        "backout_lambda": (1,),
        "resid_lambdas": (count,),
        "x0_lambdas": (count,),
    }
    for layer in range(count):
        kinds = {
            "attn.c_q": (width, width),
            "attn.c_k": (kv, width),
            "attn.c_v": (kv, width),
            "attn.c_proj": (width, width),
            "mlp.c_fc": (4 * width, width),
            "mlp.c_proj": (width, 4 * width),
        }
        shapes |= {f"transformer.h.{layer}.{kind}.weight": shape for kind, shape in kinds.items()}
        if layer % 2 == (count - 1) % 2:
            shapes |= {
                f"transformer.h.{layer}.attn.ve_gate.weight": (kv_heads, 12),
                f"value_embeds.{layer}.weight": (rows, kv),
            }
    state = {name: values(name, shape) + (0.9 if name == "resid_lambdas" else 0.0) for name, shape in shapes.items()}
    torch.save(state, folder / "model_000100.pt")
    nanochat_meta(folder, kv_heads, {"sequence_len": 256, "n_layer": count, "n_embd": width, "window_pattern": pattern})
    return folder / "model_000100.pt"


def nanochat_meta(folder: Path, kv_heads: int = 4, settings: dict[str, Any] | None = None) -> None:
    config = {
        "sequence_len": 8,
        "vocab_size": 60,
        "n_layer": 2,
        "n_head": 4,
        "n_kv_head": kv_heads,
        "n_embd": 16,
    }
    (folder / "meta_000100.json").write_text(
        json.dumps({"step": 100, "val_bpb": 1.0, "model_config": {**config, **(settings or {})}})
    )


# ── llama2.c's tokenizer.bin ──

MERGES = (" t", "he", " a", "in", " the", "er", "ll", " s", "aa", "aaa", "nd", " and", "or", " w", "ing", "ll a", "ab", "aab", "  ", "    ", "é ", "日本")  # fmt: skip
CHARACTERS = (" ", "t", "h", "e", "a", "i", "n", "r", "l", "s", "d", "o", "w", "g", "b", "c", "\n", "é", "日", "本", "語", ".", ",")  # fmt: skip
SCORED = {  # text → ids by run.c's encode
    "the thing and all": [263, 259, 283, 273, 270, 261, 265],
    "aaaa aaab aab": [261, 268, 261, 276, 261, 275],
    "日本語 é x😀\n\t2": [281, 280, 301, 281, 279, 123, 243, 162, 155, 131, 297, 12, 53],
    "    four  spaces   ": [278, 281, 105, 292, 120, 288, 281, 266, 115, 285, 296, 284, 290, 277, 281],
    " ": [277],
    "herring.": [281, 260, 288, 288, 273, 302],
    "ll a ll a": [281, 274, 281, 274],
}


def pieces() -> list[tuple[str, float]]:
    found = [("<unk>", 0.0), ("\n<s>\n", 0.0), ("\n</s>\n", 0.0), *((f"<0x{byte:02X}>", 0.0) for byte in range(256))]
    return found + [(piece, -float(number)) for number, piece in enumerate((*MERGES, *CHARACTERS))]


def tokenizer_bin(path: Path) -> Path:
    rows = [(piece.encode(), score) for piece, score in pieces()]
    data = b"".join(struct.pack("<fI", score, len(piece)) + piece for piece, score in rows)
    path.write_bytes(struct.pack("<I", max(len(piece) for piece, _ in rows)) + data)
    return path
