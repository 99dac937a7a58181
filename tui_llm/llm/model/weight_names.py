"""Names of the weight formats for inference, and of the kernels that multiply by them; no torch here.
`fast_decode.py` and `kernels.py` implement them."""

from __future__ import annotations

from tui_llm.common.errors import UserError

WEIGHTS = {
    "fp32": "as they are: the exact numbers",
    "half": "16 bits a weight: half the memory, logits within about 0.01",
    "int8": "8 bits a weight: a quarter of the memory; results differ",
}

KERNEL_VARIABLE = "TUI_LLM_KERNEL"
KERNELS = {
    "torch": "torch's own products: for every weight format, on every device",
    "native": "this package's own, compiled with the C compiler found: every weight format, Linux on x86-64",
    "fbgemm": "fbgemm's, which comes with torch: half only",
}


def check_kernel(name: str) -> str:
    """Return `name` if it is in `KERNELS`. Raises `UserError` otherwise."""
    if name not in KERNELS:
        raise UserError(f"there is no kernel {name!r}; choose one of: {', '.join(KERNELS)}")
    return name


def check_weights(name: str) -> str:
    """Return `name` if it is in `WEIGHTS`. Raises `UserError` otherwise."""
    if name not in WEIGHTS:
        raise UserError(f"there are no weights {name!r}; choose one of: {', '.join(WEIGHTS)}")
    return name
