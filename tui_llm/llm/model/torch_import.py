"""Import torch in the background of a screen. No torch at the top."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from pathlib import Path

from tui_llm.common import address_space


def import_torch() -> None:
    """As `import torch`, but other threads can run meanwhile: Python holds its lock (GIL) while it loads a library, half
    a second for torch's largest."""
    if "torch" not in sys.modules and sys.platform == "linux" and not address_space.is_limited():
        _load_library()
    import torch  # noqa: F401


def _load_library() -> bool:
    """Whether it is loaded; if not, the import is to say why. Calls of foreign functions hold no lock."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return False
    load = ctypes.CDLL(None).dlopen
    load.restype, load.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_int)
    libraries = Path(found.origin).parent / "lib"
    # In torch's own order and modes.
    load(os.fsencode(libraries / "libtorch_global_deps.so"), os.RTLD_GLOBAL | os.RTLD_LAZY)
    return bool(load(os.fsencode(libraries / "libtorch.so"), os.RTLD_NOW))
