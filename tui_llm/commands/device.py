"""`tui-llm device`: the gauges of this machine's GPUs and CPU."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import json_option
from tui_llm.commands.shared.output import put, put_json

if TYPE_CHECKING:
    from tui_llm.facts.machine_reading import MachineReading

BETWEEN = 0.5  # seconds between the two readings that the CPU's use is computed from


def add(commands: Commands) -> None:
    commands.add(
        "device",
        "this machine's GPUs and CPU: use, memory, temperature, power, clocks",
        device,
        _add_options,
        more="Prints each gauge once with what it is: of NVIDIA's GPUs through NVML, as nvidia-smi has them (all that this user may see, with torch's "
        "name for those that torch uses); of Apple's through Metal; of the CPU from the system. What can't be read is N/A, in the JSON null. "
        "A GPU that is lost, full, used by other programs, or that torch can't use, has a line. A run's own gauges: `tui-llm runs --json`.",
        examples=("tui-llm device", "tui-llm device --json"),
    )


def _add_options(parser: Parser) -> None:
    json_option(parser)


def device(options: argparse.Namespace) -> None:
    from dataclasses import asdict

    from tui_llm.common.display import visible
    from tui_llm.facts import report
    from tui_llm.training.run import gauges

    used, read = _read()
    lines = [*gauges.notes(read), *gauges.old_gpus(read)]
    if options.json:
        put_json({"device": used, **asdict(read), "notes": lines})
        return
    parts = [f"torch computes on {used}"]
    parts += [f"driver {visible(read.driver)}"] if read.driver else []
    parts += [f"CUDA up to {visible(read.cuda)}"] if read.cuda else []
    put(", ".join(parts))
    for line in lines:
        put(f"! {visible(line)}")
    titled = [(gauges.gpu_title(gpu), gauges.gpu_gauges(gpu)) for gpu in read.gpus]
    titled += [(read.cpu.name or "CPU", gauges.cpu_gauges(read.cpu))] if read.cpu is not None else []
    for name, found in titled:
        put("")
        put(visible(name))
        put(
            report.table(
                ("gauge", "now", "which number"), [tuple(map(visible, gauge)) for gauge in found], left=(0, 1, 2)
            )
        )


def _read() -> tuple[str, MachineReading]:
    """The device that torch chooses by itself, and the gauges of this machine."""
    import contextlib
    import time

    import torch

    from tui_llm.llm.model import device, device_gauges
    from tui_llm.llm.model.device_names import is_cpu
    from tui_llm.llm.model.machine_reader import MachineReader
    from tui_llm.llm.model.nvml import Nvml

    chosen = device.choose()
    devices = device_gauges.cuda_devices(torch.cuda.device_count()) if chosen.type == "cuda" else []
    amd = chosen.type == "cuda" and device_gauges.is_amd()
    nvml: Any = Nvml() if not is_cpu("auto") and chosen.type != "mps" and not amd else None
    note = device_gauges.cuda_problem(nvml) if nvml is not None and chosen.type == "cpu" else ""
    note = device_gauges.AMD if amd else note
    with contextlib.closing(
        MachineReader(devices, every=nvml is not None, nvml=nvml, note=note, nvidia=nvml is not None)
    ) as reader:
        time.sleep(BETWEEN)
        read = device_gauges.with_allocator(reader.read(), chosen)
    return str(chosen), read
