#!/usr/bin/env bash
# safetensors 0.8.0: save_file makes a file that only its owner can read (mode 0600), whatever the umask.
#
# Expected: the umask decides, as for `open(path, "wb")`, torch.save and config.json beside it; and a file that exists keeps its
# mode. Seen: 0600 under umask 022, also over a file of mode 0644, which is replaced by another inode (a hard link to it keeps the
# old tensors). On a shared machine a colleague can read a model's config and vocabulary and not its weights.
# Here: a file written by a library gets the umask's mode (tui_llm's storage.by_library; tests/test_storage.py).
#
# Output seen:
#   open(): 0o644, save_file: 0o600
#   over a file of 0o644: 0o600, another inode: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q safetensors==0.8.0 numpy==2.2.6
cat > "$folder/modes.py" <<'PYTHON'
import os
import sys
from pathlib import Path

import numpy
from safetensors.numpy import save_file

folder = Path(sys.argv[1])
tensors = {"weight": numpy.zeros((2, 3), dtype=numpy.float32)}
os.umask(0o022)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


plain, weights = folder / "plain.bin", folder / "model.safetensors"
plain.write_bytes(b"bytes")
save_file(tensors, weights)
print(f"open(): {mode(plain):#o}, save_file: {mode(weights):#o}")
first = mode(weights)
weights.chmod(0o644)
inode = weights.stat().st_ino
save_file(tensors, weights)
replaced = weights.stat().st_ino != inode
print(f"over a file of 0o644: {mode(weights):#o}, another inode: {replaced}")
sys.exit(0 if (mode(plain), first, mode(weights), replaced) == (0o644, 0o600, 0o600, True) else 1)
PYTHON
"$folder/venv/bin/python" "$folder/modes.py" "$folder"
