#!/usr/bin/env bash
# transformers 5.24.0: a NanoChat model made from its default config never trains the embedding of token 1.
#
# Expected: NanoChat's vocabulary has no padding token (its ids begin with the 256 bytes, so that 1 is the byte 0x01), and
# LlamaConfig and Starcoder2Config, whose code it shares, have none by default, so every token that is in the text gets a
# gradient. Seen: NanoChatConfig's default pad_token_id is 1, the embedding is built with padding_idx=1, and torch gives that
# row no gradient: it keeps what it began with (zero) through all of the training. With an untied head, as is the default, nothing else
# moves it. The loss says nothing, as the token still is predicted.
# Here: llm/model/layouts.py writes "pad_token_id": null into the folders of this layout.
#
# Output seen:
#   NanoChat: pad_token_id 1, gradient of token 1's embedding 0, of token 2's > 0
#   Llama: pad_token_id None, gradient of token 1's embedding > 0, of token 2's > 0
#   Starcoder2: pad_token_id None, gradient of token 1's embedding > 0, of token 2's > 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.24.0 numpy
cat > "$folder/gradient.py" <<'PYTHON'
import torch
import transformers as t

SHAPE = dict(vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
             num_key_value_heads=2, max_position_embeddings=32)
ids = torch.tensor([[5, 1, 7, 2, 9, 1, 2, 3]])
found = {}
for name in ("NanoChat", "Llama", "Starcoder2"):
    torch.manual_seed(0)
    config = getattr(t, f"{name}Config")(**SHAPE)
    model = getattr(t, f"{name}ForCausalLM")(config)
    model(input_ids=ids, labels=ids).loss.backward()
    rows = model.get_input_embeddings().weight.grad.norm(dim=1)
    found[name] = config.pad_token_id, bool(rows[1] > 0), bool(rows[2] > 0)
    pad, first, second = found[name]
    print(f"{name}: pad_token_id {pad}, gradient of token 1's embedding {'> 0' if first else 0}, of token 2's {'> 0' if second else 0}")
raise SystemExit(found != {"NanoChat": (1, False, True), "Llama": (None, True, True), "Starcoder2": (None, True, True)})
PYTHON
"$folder/venv/bin/python" "$folder/gradient.py"
