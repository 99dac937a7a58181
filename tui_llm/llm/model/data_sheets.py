"""The peak of NVIDIA's GPUs by their data sheets: dense products of bf16 with fp32 sums, without sparsity, at boost clock.

Published figures of model FLOPs utilization (MFU) are relative to these. A run's own MFU is relative to the peak that
`machine.py` measures, since a card may be limited in power or shared. Data sheets that state a rate "with sparsity" are
halved. A card without bf16 has its fp16 rate.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class DataSheet(NamedTuple):
    """`flops`: FLOP/s; `source`: the document that states it."""

    card: str
    flops: float
    source: str


_AMPERE, _ADA = "GA102 architecture whitepaper", "Ada architecture whitepaper"
_SHEETS = (  # pattern of the name that torch.cuda.get_device_name returns; the first that matches counts
    (r"GH200\b", DataSheet("GH200", 990e12, "GH200 data sheet, 1,979 with sparsity")),
    (r"H200 NVL\b", DataSheet("H200 NVL", 836e12, "H200 data sheet, 1,671 with sparsity")),
    (r"H200\b", DataSheet("H200 SXM", 989e12, "H200 data sheet, 1,979 with sparsity")),
    (r"H100 NVL\b", DataSheet("H100 NVL", 836e12, "H100 data sheet, 1,671 with sparsity")),
    (r"H100 PCIe\b", DataSheet("H100 PCIe", 756e12, "H100 data sheet, 1,513 with sparsity")),
    (r"H100\b", DataSheet("H100 SXM", 989e12, "H100 data sheet, 1,979 with sparsity")),
    (r"A100\b", DataSheet("A100", 312e12, "A100 data sheet")),
    (r"A30\b", DataSheet("A30", 165e12, "A30 data sheet")),
    (r"A10\b", DataSheet("A10", 125e12, "A10 data sheet")),
    (r"L40S\b", DataSheet("L40S", 362e12, "L40S data sheet")),
    (r"L40\b", DataSheet("L40", 181e12, "L40 data sheet")),
    (r"L4\b", DataSheet("L4", 121e12, "L4 data sheet, 242 with sparsity")),
    (r"RTX A6000\b", DataSheet("RTX A6000", 155e12, "RTX A6000 data sheet, 309.7 with sparsity")),
    (r"RTX 4090$", DataSheet("RTX 4090", 165e12, _ADA)),
    (r"RTX 3090$", DataSheet("RTX 3090", 71e12, _AMPERE)),
    (r"V100-SXM", DataSheet("V100 SXM2", 125e12, "V100 data sheet, fp16")),
    (r"V100-PCIE", DataSheet("V100 PCIe", 112e12, "V100 data sheet, fp16")),
    (r"T4$", DataSheet("T4", 65e12, "T4 data sheet, fp16")),
)


def data_sheet(name: str) -> DataSheet | None:
    """That of a card by torch's name for it; None if it is not listed, or is a slice of a card (MIG)."""
    if "MIG" in name or "Laptop" in name:
        return None
    return next((sheet for pattern, sheet in _SHEETS if re.search(pattern, name)), None)
