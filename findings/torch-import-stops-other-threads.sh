#!/usr/bin/env bash
# torch 2.13.0 on Linux: `import torch` on a thread stops every other Python thread while its libraries are loaded.
#
# Expected: an import in the background leaves the rest of the program running, in turns of 5 ms. Seen: one stop of 0.2 to 0.5
# seconds. Python holds the GIL while it loads an extension module, and torch/_C needs libtorch_cpu.so, whose loading (relocation and
# static constructors) is most of the time. If ctypes loads libtorch.so first, which releases the GIL, the longest stop is 0.04 s.
# Here: tui_llm/llm/model/torch_import.py does so, and the app's screen goes on; tests/tui/test_warm_up.py.
#
# Output seen (warm file cache; the times vary with the machine):
#   import torch: longest stop of another thread 0.19 s
#   libtorch.so through ctypes first: longest stop of another thread 0.04 s
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy
cat > "$folder/stops.py" <<'PYTHON'
import ctypes
import importlib.util
import os
import sys
import threading
import time

import numpy  # noqa: F401: torch imports it; here its share is left out


def load() -> None:
    if sys.argv[1:] == ["first"]:
        folder = os.path.join(os.path.dirname(importlib.util.find_spec("torch").origin), "lib")
        dlopen = ctypes.CDLL(None).dlopen  # a foreign function: ctypes calls it without the GIL
        dlopen.restype, dlopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_int]
        for name in ("libtorch_global_deps.so", "libtorch.so"):
            assert dlopen(os.path.join(folder, name).encode(), os.RTLD_NOW | (os.RTLD_GLOBAL if "deps" in name else 0)), name
    import torch  # noqa: F401


thread = threading.Thread(target=load)
thread.start()
last, longest = time.perf_counter(), 0.0
while thread.is_alive():
    time.sleep(0.002)
    now = time.perf_counter()
    last, longest = now, max(longest, now - last)
print(longest)
PYTHON
stop() { for _ in 1 2 3 4; do "$folder/venv/bin/python" "$folder/stops.py" "$@"; done | sort -n | head -1; }
plain=$(stop)
first=$(stop first)
printf 'import torch: longest stop of another thread %.2f s\nlibtorch.so through ctypes first: longest stop of another thread %.2f s\n' "$plain" "$first"
python3 -c "raise SystemExit(not $plain > 2 * $first)"
