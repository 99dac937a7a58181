#!/usr/bin/env bash
# tokenizers 0.23.3: an added token whose id in tokenizer.json leaves a gap gets another id, and nothing is said.
#
# added_tokens in tokenizer.json states an id for each token. Expected: the token has that id (the embedding's row of that
# number was trained for it), or the file is refused. Seen: the token gets the next free id, and the gap closes.
# Here: such a file is refused by name (tui_llm/llm/tokens/folder_files.py; tests/llm/test_tokenizer_layouts.py).
#
# Output seen:
#   vocabulary of 2 tokens, <|user|> stated as 7
#   id in the file: 7, id in the tokenizer: 2, saved again as 2
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tokenizers==0.23.3
cat > "$folder/gap.py" <<'PYTHON'
import json
import sys

from tokenizers import Tokenizer

token = {"content": "<|user|>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
stated = 7
file = {
    "version": "1.0",
    "added_tokens": [{"id": stated, **token}],
    "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"},
}
for rule in ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"):
    file[rule] = None
print(f"vocabulary of {len(file['model']['vocab'])} tokens, <|user|> stated as {stated}")
found = Tokenizer.from_str(json.dumps(file))
saved = json.loads(found.to_str())["added_tokens"][0]["id"]
print(f"id in the file: {stated}, id in the tokenizer: {found.token_to_id('<|user|>')}, saved again as {saved}")
sys.exit(0 if found.token_to_id("<|user|>") == 2 == saved else 1)
PYTHON
"$folder/venv/bin/python" "$folder/gap.py"
