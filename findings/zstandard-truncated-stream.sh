#!/usr/bin/env bash
# zstandard 0.25.0: a .zst file that is cut short is read as if it were whole.
#
# Expected: an error at the end of the data, as gzip.open gives (EOFError) and Python 3.14's compression.zstd, here by its backport.
# Seen: stream_reader().read() and zstandard.open() return what there is and report the end of the file. A corpus of JSON lines whose
# download broke off loses its second half without a word (readers built on it, such as fsspec's, inherit that).
# Here: .zst is read by compression.zstd or backports.zstd; a cut file is refused with the number of the line
# (tui_llm/llm/data/packed.py; tests/llm/test_records.py).
#
# Output seen:
#   whole file: 200000 lines
#   zstandard.open: 97202 lines of the first half, no error
#   stream_reader: 2359296 of 4854041 bytes, no error
#   backports.zstd: EOFError
#   gzip: EOFError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q zstandard==0.25.0 backports.zstd==1.8.0
cat > "$folder/cut.py" <<'PYTHON'
import gzip
import io
import random
import sys

import zstandard
from backports import zstd

random.seed(1)
data = "".join(f"line {random.random()}\n" for _ in range(200_000)).encode()
packed = zstandard.ZstdCompressor().compress(data)
cut = packed[: len(packed) // 2]
print("whole file:", sum(1 for _ in zstandard.open(io.BytesIO(packed), "rt")), "lines")
lines = sum(1 for _ in zstandard.open(io.BytesIO(cut), "rt"))
print("zstandard.open:", lines, "lines of the first half, no error")
got = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(cut)).read()
print(f"stream_reader: {len(got)} of {len(data)} bytes, no error")


def ends(read) -> str:
    try:
        read()
    except EOFError:
        return "EOFError"
    return "no error"


others = [ends(lambda: zstd.ZstdFile(io.BytesIO(cut)).read())]
half = gzip.compress(data, 1)
others.append(ends(lambda: gzip.GzipFile(fileobj=io.BytesIO(half[: len(half) // 2])).read()))
print("backports.zstd:", others[0])
print("gzip:", others[1])
sys.exit(0 if len(got) < len(data) and 0 < lines < 200_000 and others == ["EOFError"] * 2 else 1)
PYTHON
"$folder/venv/bin/python" "$folder/cut.py" "$folder"
