"""Compile and load native.c with what it includes, this package's own products for a CPU. Only used where a compiler is found.

The library is kept in `folder`, under a name made of the source and the flags, so that a newer version of the package
compiles its own. Its threads are those of torch's OpenMP: both ask for libgomp.so.1.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from tui_llm.common import paths, storage

FOLDER = "TUI_LLM_NATIVE_DIR"  # where what is compiled is kept, instead of the cache folder
_SOURCE, *_INCLUDED = (Path(__file__).with_name(name) for name in ("native.c", "gemm.c", "prompt.c"))
_FLAGS = ("-O3", "-march=x86-64-v3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC", "-shared")  # fmt: skip
_SECONDS = 600  # until the compiler is taken to hang: it takes some seconds, on a busy machine minutes
_P, _N, _I = ctypes.c_void_p, ctypes.c_long, ctypes.c_int
Signatures = Mapping[str, tuple[tuple[type, ...], type | None]]
"""By function: the types of its arguments, and of its result."""
_SIGNATURES: Signatures = {
    "linear_fp32": ((_P, _P, _P, _P, _N, _N, _N, _I), None),
    "linear_fp16": ((_P, _P, _P, _P, _N, _N, _N, _I), None),
    "linear_int8": ((_P, _P, _P, _P, _P, _P, _P, _N, _N, _N, _N, _I), None),
    "gemm_int8": ((_P, _P, _P, _P, _P, _P, _P, _N, _N, _N, _I, _I), None),
    "gemm_fp16": ((_P, _P, _P, _P, _N, _N, _N, _I, _I), None),
    "pack_int8": ((_P, _P, _P, _N, _N, _N, _I), None),
    "unpack_int8": ((_P, _P, _P, _N, _N, _N, _N, _I), None),
    "step": ((_P, _P, _P, _P, _N, _I), None),
    "prompt": ((_P, _P, _P, _P, _N, _N, _I, _I), None),
    "step_room": ((_P, _I), _N),
    "prompt_room": ((_P, _N, _N, _I), _N),
}


def compiler() -> str | None:
    """The path of a C compiler, or None."""
    return next((found for name in (os.environ.get("CC", ""), "gcc", "cc") if name and (found := shutil.which(name))), None)  # fmt: skip


def unsuitable() -> str:
    """Why this package's C code is not for this machine, whether compiled or not, in a few words; empty if it is."""
    if platform.machine() not in ("x86_64", "AMD64") or not sys.platform.startswith("linux"):
        return "it is for Linux on x86-64"
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return "this CPU lacks AVX2"
    return ""


def folder() -> Path:
    """Where the compiled libraries are kept."""
    return Path(os.environ.get(FOLDER) or paths.cache_dir() / "native")


_failures: dict[Path, str] = {}  # of `load`, by library


def problem(target: Path) -> str:
    """Why this machine can't use the library `target`, in a few words; empty if it can, as far as is known: whether it can be
    compiled and loaded is known after `load`."""
    if why := unsuitable():
        return why
    if not os.path.lexists(target) and compiler() is None:
        return "it has to be compiled, and there is no C compiler (install gcc)"
    return _failures.get(target, "")


def load(source: Path, flags: Sequence[str], target: Path, signatures: Signatures) -> ctypes.CDLL | None:
    """The library `target`, compiled if it is not there; None if that is impossible or fails: `problem` says why."""
    if problem(target):
        return None
    try:
        if not os.path.lexists(target):
            compile_source(source, flags, target)
    except subprocess.SubprocessError:
        _failures[target] = "its compiler failed"
        return None
    except OSError as error:
        why = error.strerror or str(error)
        _failures[target] = f"nothing can be compiled into {target.parent}: {why}; set {FOLDER} to another folder"
        return None
    try:
        loaded = ctypes.CDLL(str(target))
        for name, (types, result) in signatures.items():
            function = getattr(loaded, name)
            function.argtypes, function.restype = types, result
    except (OSError, AttributeError) as error:
        _failures[target] = f"what was compiled can't be loaded: {error}; delete {target}"
        return None
    return loaded


def why_not() -> str:
    """Why this machine can't use it, see `problem`."""
    return problem(_file())


@functools.cache
def _file() -> Path:
    source = b"".join(part.read_bytes() for part in (_SOURCE, *_INCLUDED))
    digest = hashlib.sha256(source + " ".join(_FLAGS).encode()).hexdigest()[:16]
    return folder() / f"{digest}.so"


@functools.cache
def library() -> ctypes.CDLL | None:
    """The loaded library, see `load`."""
    return load(_SOURCE, _FLAGS, _file(), _SIGNATURES)


def compile_source(source: Path, flags: Sequence[str], target: Path) -> None:
    """Compiles a C file to the shared library `target`, unless another process has done so by its turn. Raises `OSError` or
    `SubprocessError`."""
    found = compiler()
    if found is None:
        raise OSError("there is no C compiler")
    target.parent.mkdir(parents=True, exist_ok=True)
    with _turn(target), tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        if target.exists():
            return
        made = Path(scratch) / "native.so"
        subprocess.run(
            [found, *flags, str(source), "-o", str(made), "-lm"],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=True,
        )  # fmt: skip
        made.replace(target)  # at once: another process may load it


@contextmanager
def _turn(target: Path) -> Iterator[None]:
    """Lets one process after another make `target`: a worker and the app that has started it often begin at once. Where files
    can't be locked, each makes its own."""
    lock = storage.Lock(f"{target}.lock", timeout=_SECONDS)
    with suppress(OSError, NotImplementedError):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def uses_avx512() -> bool:
    """Whether gemm.c may use AVX-512, which it does if the CPU has VNNI too: as torch does, so ATEN_CPU_CAPABILITY limits
    both."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512"


_PAGE = 1 << 21  # a huge page
_ADVISE, _COLLAPSE = 14, 25  # Linux: MADV_HUGEPAGE, MADV_COLLAPSE


def use_huge_pages(tensor: torch.Tensor) -> None:
    """Move a large tensor's memory into huge pages, in place, where Linux can: reading 500 MB takes a sixth less
    without a look-up of each 4 KB page. What is refused is as slow as before, no more."""
    if not sys.platform.startswith("linux") or tensor.device.type != "cpu":
        return
    first = -(-tensor.data_ptr() // _PAGE) * _PAGE
    size = (tensor.data_ptr() + tensor.numel() * tensor.element_size() - first) // _PAGE * _PAGE
    if size <= 0:
        return
    with suppress(OSError, AttributeError):
        advise = ctypes.CDLL(None).madvise
        advise.argtypes = (_P, ctypes.c_size_t, _I)
        for advice in (_ADVISE, _COLLAPSE):
            advise(first, size, advice)
