"""The part of gpu.py that compares the gauges with nvidia-smi."""

from __future__ import annotations

import os
import shutil
import subprocess
import time

import torch
from gpu_parts import PartOptions
from gpu_report import PartReport

from tui_llm.training.worker import measurements


def gauges(report: PartReport, options: PartOptions) -> None:
    place = options.place
    memory = measurements.memory_bytes(place)
    report.put("memory that a worker reports", (memory or 0) / 2**20, "MiB", "≥", 0)
    if not options.cuda:
        report.skip("use of the GPU beside nvidia-smi", "there is no GPU")
        return
    if shutil.which("nvidia-smi") is None:
        report.skip("use of the GPU beside nvidia-smi", "there is no nvidia-smi")
        return
    a = torch.randn(4096, 4096, device=place)
    began, ours, theirs, memories = time.monotonic(), list[float](), list[float](), list[float]()
    while time.monotonic() - began < 4:
        for _ in range(200):
            a = (a @ a).clamp_(-1, 1)
        torch.cuda.synchronize(place)
        if time.monotonic() - began > 2:  # the driver's mean is over about a second
            ours += [use for use in (measurements.gpu_use(place),) if use is not None]
            for cell, into in zip(nvidia_smi(place), (theirs, memories), strict=True):
                into += [] if cell is None else [cell]
    free, total = torch.cuda.mem_get_info(place)
    if memories:
        apart = abs((total - free) / 2**20 - memories[-1]) / max(1.0, memories[-1])
        report.put("memory in use, ours − nvidia-smi's ÷ it", apart, "", "≤", 0.1)
    if theirs:
        report.put("nvidia-smi: use of the GPU", max(theirs), "%")
    if ours and theirs:
        report.put("use, ours − nvidia-smi's", abs(100 * max(ours) - max(theirs)), "points", "≤", 15)
    else:
        report.skip(
            "use of the GPU", "the driver's library gives none: pip install nvidia-ml-py; slices (MIG) have none"
        )


def nvidia_smi(place: torch.device) -> list[float | None]:
    """Use in percent and used memory in MiB of the device; None for what a slice (MIG) does not have."""
    command = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[place.index or 0 :][:1]
    if visible and visible[0] and not visible[0].startswith("MIG"):
        command += ["-i", visible[0]]
    made = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()[0]
    return [float(cell) if cell.strip().replace(".", "").isdigit() else None for cell in made.split(",")]
