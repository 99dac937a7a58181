#!/usr/bin/env bash
# tokenizers 0.23.3: a tokenizer.json that lists an added token twice, with two ids, opens without a word, and the result is neither entry.
#
# Expected: an error, or one of the two entries. Seen: the token keeps the id of the first entry and takes the rules of the second (here
# `lstrip`: it now takes the space in front of it, and it is no longer special).
# Here: `check_numbers` of tui_llm/llm/tokens/folder_files.py refuses such a file; tests/llm/test_tokenizer_layouts.py.
#
# Output seen:
#   listed: 3 <e> (special), 4 <e> (lstrip), 5 <f>
#   ids: {'a': 0, 'b': 1, 'c': 2, '<e>': 3, '<f>': 4}
#   <e>: special False, lstrip True
#   'a <e>b': ['a', ' <e>', 'b'] [0, 3, 1]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tokenizers==0.23.3
cat > "$folder/twice.py" <<'PYTHON'
import json

from tokenizers import Tokenizer


def entry(id: int, text: str, **rules: bool) -> dict[str, object]:
    return {"id": id, "content": text, "special": False, "normalized": False, "lstrip": False, "rstrip": False, "single_word": False} | rules


model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
         "fuse_unk": False, "byte_fallback": False, "vocab": {"a": 0, "b": 1, "c": 2}, "merges": []}  # fmt: skip
added = [entry(3, "<e>", special=True), entry(4, "<e>", lstrip=True), entry(5, "<f>")]
parts = ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")
made = Tokenizer.from_str(json.dumps({"version": "1.0", **dict.fromkeys(parts), "added_tokens": added, "model": model}))
print("listed: 3 <e> (special), 4 <e> (lstrip), 5 <f>")
print("ids:", dict(sorted(made.get_vocab().items(), key=lambda item: item[1])))
kept = made.get_added_tokens_decoder()[3]
print(f"{kept.content}: special {kept.special}, lstrip {kept.lstrip}")
read = made.encode("a <e>b")
print("'a <e>b':", read.tokens, read.ids)
PYTHON
"$folder/venv/bin/python" "$folder/twice.py" | tee "$folder/out"
diff "$folder/out" - <<'SEEN'
listed: 3 <e> (special), 4 <e> (lstrip), 5 <f>
ids: {'a': 0, 'b': 1, 'c': 2, '<e>': 3, '<f>': 4}
<e>: special False, lstrip True
'a <e>b': ['a', ' <e>', 'b'] [0, 3, 1]
SEEN
