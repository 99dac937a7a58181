#!/usr/bin/env bash
# transformers 5.24.0: under the class GPT2Tokenizer, AutoTokenizer ignores the pre-tokenizer of tokenizer.json.
#
# Expected: a folder with a tokenizer.json is tokenized by it, as in transformers 4, whatever tokenizer_class says.
# Seen: GPT2Tokenizer takes vocabulary and merges from the file and builds a plain ByteLevel pre-tokenizer. A file that splits
# digits (as StarCoder's and SmolLM's do) gives one token for "12"; with the class PreTrainedTokenizerFast, or with the tokenizers
# library alone, it gives two. A prefix space in the file is ignored in the same way. Nothing is said.
# Here: tokenizer.json holds (tests/llm/test_tokenizer_layouts.py, docs/models.md).
#
# Output seen:
#   tokenizers library       [' ', '1', '2']
#   PreTrainedTokenizerFast  [' ', '1', '2']
#   GPT2Tokenizer            [' 12']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.24.0 tokenizers==0.23.3
cat > "$folder/show.py" <<'PYTHON'
import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer

folder = Path(sys.argv[1])
letters = sorted(pre_tokenizers.ByteLevel.alphabet())
vocab = {token: id for id, token in enumerate([*letters, "12", "\u012012"])}
made = Tokenizer(models.BPE(vocab=vocab, merges=[("1", "2"), ("\u0120", "12")]))
made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
made.decoder = decoders.ByteLevel()
made.save(str(folder / "tokenizer.json"))
(folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))


def words(ids: list[int]) -> list[str]:
    return [made.decode([id]) for id in ids]


found = {"tokenizers library": words(made.encode(" 12").ids)}
for name in ("PreTrainedTokenizerFast", "GPT2Tokenizer"):
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    found[name] = words(AutoTokenizer.from_pretrained(folder).encode(" 12"))
for name, tokens in found.items():
    print(f"{name:24} {tokens}")
sys.exit(found["tokenizers library"] != [" ", "1", "2"] or found["GPT2Tokenizer"] != [" 12"])
PYTHON
mkdir "$folder/model"
"$folder/venv/bin/python" "$folder/show.py" "$folder/model"
