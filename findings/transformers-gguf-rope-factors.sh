#!/usr/bin/env bash
# transformers 5.24.0: a Llama 3.1 GGUF file opens without its rotary scaling, and nothing is said.
#
# llama.cpp's converter stores Llama 3's scaling of positions as a tensor, rope_freqs.weight: the divisors of the rotary
# frequencies. Expected: transformers divides by them, or refuses the file. Seen: the tensor is skipped, the config says
# rope_type "default", and the frequencies are those of a model without scaling, so every logit is off.
# Here: the factors are applied (tui_llm/llm/adapters/gguf_weights.py; tests/adapters/test_gguf_weights.py); equal to
# llama.cpp v0.5.0 (node-llama-cpp 3.22.1) within 1e-6.
#
# Output seen:
#   rope_freqs.weight in the file: True, among the tensors that were read: False
#   rope_type: default, frequencies divided by the factors: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.24.0 gguf==0.19.0 torch==2.13.0 accelerate==1.15.0 numpy==2.2.6
cat > "$folder/scaling.py" <<'PYTHON'
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM

path = Path(sys.argv[1]) / "tiny.gguf"
width, heads, rows = 32, 4, 258
factors = np.array([1, 2, 5, 8], np.float32)
writer = gguf.GGUFWriter(path, "llama")
writer.add_context_length(64)
writer.add_embedding_length(width)
writer.add_block_count(1)
writer.add_feed_forward_length(width)
writer.add_head_count(heads)
writer.add_head_count_kv(heads)
writer.add_layer_norm_rms_eps(1e-5)
writer.add_rope_freq_base(10000.0)
writer.add_rope_dimension_count(width // heads)
writer.add_vocab_size(rows)
writer.add_tokenizer_model("llama")
writer.add_token_list([str(at) for at in range(rows)])
writer.add_token_scores([0.0] * rows)
random = np.random.default_rng(1)
for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
    writer.add_tensor(f"blk.0.{name}.weight", random.standard_normal((width, width), np.float32))
for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
    writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))
writer.add_tensor("token_embd.weight", random.standard_normal((rows, width), np.float32))
writer.add_tensor("rope_freqs.weight", factors)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

stored = [tensor.name for tensor in gguf.GGUFReader(path).tensors]
model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
read = any("rope_freqs" in name for name in model.state_dict())
print(f"rope_freqs.weight in the file: {'rope_freqs.weight' in stored}, among the tensors that were read: {read}")
plain = 10000.0 ** (-np.arange(0, 8, 2) / 8)
found = model.model.rotary_emb.inv_freq.numpy()
divided = not np.allclose(found, plain)
print(f"rope_type: {model.config.rope_parameters['rope_type']}, frequencies divided by the factors: {divided}")
sys.exit(0 if "rope_freqs.weight" in stored and not read and not divided else 1)
PYTHON
"$folder/venv/bin/python" "$folder/scaling.py" "$folder" 2> "$folder/err" || { tail -3 "$folder/err"; exit 1; }
