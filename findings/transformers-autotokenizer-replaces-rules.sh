#!/usr/bin/env bash
# transformers 5.24.0: AutoTokenizer takes a class with rules of its own for a folder whose model_type is qwen2, although tokenizer.json
# and tokenizer_config.json beside it, written by save_pretrained, say otherwise.
#
# Expected: save_pretrained and from_pretrained give the same ids, as the folder holds every rule (tokenizer.json) and names the class
# without rules of its own ("tokenizer_class": "TokenizersBackend"). Seen: AutoTokenizer gives a Qwen2Tokenizer, which has NFC, Qwen2's
# regular expression and single digits instead of the file's rules: other ids, no warning. Without config.json, or with another
# model_type such as llama or qwen3, the file's rules hold.
# Here: the ids are those of tokenizer.json; `tui-llm check` says where AutoTokenizer gives others
# (tests/adapters/test_check.py).
#
# Of 196 types of causal models: qwen2, qwen3_5, qwen3_5_moe, qwen3_5_moe_text and qwen4_exp.
#
# Output seen:
#   llama: TokenizersBackend, normalizer None, the same ids: True
#   qwen3: TokenizersBackend, normalizer None, the same ids: True
#   qwen2: Qwen2Tokenizer, normalizer {'type': 'NFC'}, the same ids: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.24.0 tokenizers==0.23.3
cat > "$folder/rules.py" <<'PYTHON'
import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

made = Tokenizer(models.BPE())
made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
made.decoder = decoders.ByteLevel()
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
made.train_from_iterator(["cafe\u0301 123 123 123 and 456 456"] * 8, trainer)
text = "cafe\u0301 123 and 456"
same = {}
for kind in ("llama", "qwen3", "qwen2"):
    folder = Path(sys.argv[1]) / kind
    saved = PreTrainedTokenizerFast(tokenizer_object=made)
    saved.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    loaded = AutoTokenizer.from_pretrained(folder)
    normalizer = json.loads(loaded.backend_tokenizer.to_str())["normalizer"]
    same[kind] = saved.encode(text) == loaded.encode(text)
    print(f"{kind}: {type(loaded).__name__}, normalizer {normalizer}, the same ids: {same[kind]}")
sys.exit(0 if same == {"llama": True, "qwen3": True, "qwen2": False} else 1)
PYTHON
"$folder/venv/bin/python" "$folder/rules.py" "$folder"
