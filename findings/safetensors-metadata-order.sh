#!/usr/bin/env bash
# safetensors 0.8.0: the same tensors with the same metadata become different files, from call to call.
#
# Expected: the same bytes, as tensors are sorted by name and offset: checksums, caches by content and reproducible builds rely on it.
# Seen: with three metadata entries or more, their order in the header changes from call to call within one process.
# Here: the steering file's header is written by hand (tui_llm/llm/model/steering_file.py; tests/test_overwrite.py notices).
#
# Output seen:
#   without metadata: 1 file, one entry: 1 file, six entries: more than 1 file
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q safetensors==0.8.0 numpy==2.2.6
cat > "$folder/order.py" <<'PYTHON'
import sys

import numpy
from safetensors.numpy import save

tensors = {"weight": numpy.zeros(3, dtype=numpy.float32)}


def files(entries: int) -> int:
    metadata = {f"key{number}": "value" for number in range(entries)} or None
    return len({save(tensors, metadata) for _ in range(50)})


none, one, six = files(0), files(1), files(6)
words = lambda count: "1 file" if count == 1 else "more than 1 file"
print(f"without metadata: {words(none)}, one entry: {words(one)}, six entries: {words(six)}")
sys.exit(0 if none == one == 1 < six else 1)
PYTHON
"$folder/venv/bin/python" "$folder/order.py"
