#!/usr/bin/env bash
# torch 2.13.0 on a CPU: nn.Linear in bfloat16 keeps about 0.6 MB for each number of rows that it has seen, up to 1,024 of them.
#
# Expected: inference on inputs of varied lengths needs the memory of the longest. Seen: three layers and 400 lengths grow the process
# by some 750 MB, and nothing frees it: torch (through oneDNN) caches each operation and its generated kernel by shape, 1,024 entries in
# each of two caches. LRU_CACHE_CAPACITY and ONEDNN_PRIMITIVE_CACHE_CAPACITY limit them; one alone does little.
# Here: tui_llm/common/onednn.py sets both to 64 for its own process; tests/test_onednn.py: 266 MB of growth become 25 MB on nano.
# Seen on x86-64 with AVX-512 and bfloat16; a CPU without them runs other kernels.
#
# Output seen:
#   as it comes: grew by 739 MB
#   both caches limited to 64 entries: grew by 156 MB
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy
cat > "$folder/grow.py" <<'PYTHON'
import random
import resource
from pathlib import Path

import torch


def resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


torch.set_num_threads(1)
layers = [torch.nn.Linear(256, rows, dtype=torch.bfloat16) for rows in (768, 1024, 4096)]
lengths = random.Random(1).sample(range(1, 1025), 400)
with torch.inference_mode():
    for layer in layers:
        layer(torch.zeros(1024, 256, dtype=torch.bfloat16))
    before = resident()
    for length in lengths:
        for layer in layers:
            layer(torch.zeros(length, 256, dtype=torch.bfloat16))
print(round(resident() - before))
PYTHON
unset LRU_CACHE_CAPACITY ONEDNN_PRIMITIVE_CACHE_CAPACITY
grown=$("$folder/venv/bin/python" "$folder/grow.py")
limited=$(LRU_CACHE_CAPACITY=64 ONEDNN_PRIMITIVE_CACHE_CAPACITY=64 "$folder/venv/bin/python" "$folder/grow.py")
echo "as it comes: grew by $grown MB"
echo "both caches limited to 64 entries: grew by $limited MB"
[ "$grown" -gt 400 ] && [ "$limited" -lt $((grown / 3)) ]
