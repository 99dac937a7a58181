"""Why a GPU is not used, or stopped working, in one line that says what to do: torch says it in several, with advice for its
own developers.

Sources of the texts: c10/cuda/CUDAFunctions.cpp and CUDAMiscFunctions.cpp of torch, and the error names of the CUDA runtime API.
"""

from __future__ import annotations

import re
import warnings

import torch

_CAUSES = (  # part of torch's message, what it means and what to do
    ("busy or unavailable", "another process uses it alone, or its MIG slices are not set up; see nvidia-smi, then try again"),
    ("no kernel image", "this torch has no code for a GPU of its age; install a torch built for it, or use --device cpu"),
    ("out of memory", "its memory is full; see nvidia-smi for who uses it"),
    ("not enough memory", "its memory is full; see nvidia-smi for who uses it"),
    ("alloc_failed", "its memory is full; see nvidia-smi for who uses it"),
    ("ecc", "its memory had an error that it can't correct; reset or replace it"),
    ("device-side assert", "a kernel met an index out of range, a bug: please report it"),
)  # fmt: skip
_LOST = "it was lost or reset; see nvidia-smi and dmesg"


def of_error(error: BaseException) -> str | None:
    """What a GPU's error means, "the GPU stopped working: …" in one line; None if it is none of a GPU. After such an error the
    process can't use the GPU any more, not even to read from it."""
    first = " ".join(str(error).split("\n", 1)[0].split())
    lower = first.lower()
    ours = type(error).__name__ == "AcceleratorError" or any(
        word in lower
        for word in ("cuda error", "cuda driver error", "cublas_status", "cudnn_status", "nvml", "hip error")
    )
    if not isinstance(error, RuntimeError) or not ours or isinstance(error, torch.OutOfMemoryError):
        return None
    advice = next((advice for part, advice in _CAUSES if part in lower), _LOST)
    return f"the GPU stopped working ({first[:120]}): {advice}"


def why_no_cuda() -> str:
    """Why torch can't use CUDA here, as torch's own first sentence says it; empty if it can."""
    from tui_llm.llm.model.device_gauges import unused_gpus  # NVML names the GPU and its driver; needed here only

    if found := unused_gpus():
        return found
    if torch.version.cuda is None and torch.version.hip is None:
        return f"this torch ({torch.__version__}) is built without CUDA; see docs/install.md"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return ""
    text = " ".join(str(told[0].message).split()) if told else ""
    if (old := re.search(r"driver on your system is too old(?: \(found version (\d+)\))?", text)) is not None:
        # The number is 1000 · major + 10 · minor of the newest CUDA that the driver can do.
        found = f" (it can do CUDA {int(old[1]) // 1000}.{int(old[1]) % 1000 // 10})" if old[1] else ""
        return f"the NVIDIA driver is too old{found} for this torch (CUDA {torch.version.cuda}); update it, or install a torch for an older CUDA"
    if text:
        return text.removeprefix("CUDA initialization: ").split(". ")[0][:200]
    return "torch finds no GPU; see nvidia-smi, and whether CUDA_VISIBLE_DEVICES hides it"
