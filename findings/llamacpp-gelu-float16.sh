#!/usr/bin/env bash
# llama.cpp v0.5.0 (node-llama-cpp 3.22.1): a float32 GPT-2 file's GELU is computed in float16 on a CPU.
#
# Expected: with float32 weights and a float32 KV cache, the CPU's logits are exact within float32 rounding. Seen: an
# input of GELU between -10 and 10 is rounded to float16 and looked up in a table of float16 results (ggml-cpu/vec.h,
# GGML_GELU_FP16), so the log-probabilities are off by hundreds of times float32 rounding. Zeroing the MLP's output
# weights brings them back to it. Rounding GELU's input and output in the reference too leaves a fiftieth.
# Here: docs/models.md says it beside the figures of `tui-llm export --gguf`. This script needs Linux x64.
#
# Output seen:
#   largest difference of log-probabilities, exact GELU: 9.4e-04, GELU in float16: 1.7e-05
#   with the MLP's output weights zeroed, exact GELU: 1.6e-06
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q gguf==0.19.0 numpy==2.2.6
npm install --prefix "$folder" --loglevel=error --ignore-scripts --omit=optional \
    node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1 > /dev/null
cat > "$folder/probabilities.mjs" <<'JAVASCRIPT'
// The next token's probabilities after each token, in the vocabulary's order.
import { getLlama } from "node-llama-cpp";
const [path, ...tokens] = process.argv.slice(2);
const llama = await getLlama({ gpu: false, build: "never", logLevel: "error" });
const model = await llama.loadModel({ modelPath: path });
const context = await model.createContext({
    contextSize: 64, flashAttention: false, experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32",
});
const input = tokens.map((token) => [Number(token), { generateNext: { probabilities: true } }]);
const output = await context.getSequence().controlledEvaluate(input);
console.log(JSON.stringify(output.map(({ next }) => [...next.probabilities].sort((a, b) => a[0] - b[0]))));
JAVASCRIPT
cat > "$folder/gelu.py" <<'PYTHON'
import json
import subprocess
import sys

import gguf
import numpy as np

width, heads, rows, context = 32, 4, 256, 64
tokens, random = [3, 14, 15, 92, 65, 35, 89, 79], np.random.default_rng(1)
shapes = {"token_embd": (rows, width), "position_embd": (context, width), "output": (rows, width)}
shapes |= {"blk.0.attn_qkv": (3 * width, width), "blk.0.attn_output": (width, width)}
shapes |= {"blk.0.ffn_up": (4 * width, width), "blk.0.ffn_down": (width, 4 * width)}
weights = {name: random.standard_normal(shape, np.float32) / np.float32(width**0.5) for name, shape in shapes.items()}
norms = {name: np.ones(width, np.float32) for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm")}


def norm(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def gelu_float16(x):
    assert np.abs(x).max() < 10
    return gelu(x.astype(np.float16).astype(np.float64)).astype(np.float16).astype(np.float64)


def reference(weights, activation):
    w = {name.removeprefix("blk.0."): values.astype(np.float64).T for name, values in weights.items()}
    x = w["token_embd"].T[tokens] + w["position_embd"].T[: len(tokens)]
    q, k, v = (norm(x) @ w["attn_qkv"]).reshape(len(tokens), 3, heads, -1).transpose(1, 2, 0, 3)
    scores = q @ k.transpose(0, 2, 1) / np.sqrt(width // heads)
    scores[:, np.triu(np.ones((len(tokens), len(tokens)), bool), 1)] = -np.inf
    x = x + (np.exp(log_softmax(scores)) @ v).transpose(1, 0, 2).reshape(len(tokens), width) @ w["attn_output"]
    x = x + activation(norm(x) @ w["ffn_up"]) @ w["ffn_down"]
    return log_softmax(norm(x) @ w["output"])


def llamacpp(weights):
    writer = gguf.GGUFWriter("tiny.gguf", "gpt2")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(4 * width)
    writer.add_head_count(heads)
    writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"<0x{at:02X}>" for at in range(rows)])
    writer.add_token_scores([0.0] * rows)
    for name, values in (weights | norms).items():
        writer.add_tensor(f"{name}.weight", values)
        if name.startswith("blk") or name in norms:
            writer.add_tensor(f"{name}.bias", np.zeros(len(values), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    command = ["node", "probabilities.mjs", "tiny.gguf", *map(str, tokens)]
    return np.log(np.array(json.loads(subprocess.check_output(command)))[:, :, 1])


found, without = llamacpp(weights), weights | {"blk.0.ffn_down": np.zeros((width, 4 * width), np.float32)}
exact, rounded = (np.abs(found - reference(weights, activation)).max() for activation in (gelu, gelu_float16))
zeroed = np.abs(llamacpp(without) - reference(without, gelu)).max()
print(f"largest difference of log-probabilities, exact GELU: {exact:.1e}, GELU in float16: {rounded:.1e}")
print(f"with the MLP's output weights zeroed, exact GELU: {zeroed:.1e}")
sys.exit(0 if exact > 10 * zeroed and exact > 3 * rounded else 1)
PYTHON
cd "$folder"
venv/bin/python gelu.py
