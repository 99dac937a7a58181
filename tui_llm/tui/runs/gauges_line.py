"""The machine's gauges as lines of the Training pane: what a run's GPUs or CPU do, and what is wrong with them."""

from __future__ import annotations

from textual.content import Content

from tui_llm.common.display import visible
from tui_llm.common.numbers import memory_size
from tui_llm.facts.machine_reading import CpuReading, GpuReading
from tui_llm.training.run import gauges
from tui_llm.training.run.snapshot import RunSnapshot

Part = tuple[str, str]  # a name, which may be empty, and its value


def gauge_parts(snapshot: RunSnapshot) -> list[Part]:
    """The newest gauges of a live run, the important ones first; empty for a run that does not train, whose gauges are of the past.

    On a GPU run what could not be read is N/A; a CPU's frequency is left out then.
    """
    machine = snapshot.machine
    if machine is None or not snapshot.status.alive:
        return []
    if machine.gpus:
        use = ", ".join(gauges.share(gpu.use) for gpu in machine.gpus)
        return [("GPU" if len(machine.gpus) == 1 else "GPUs", use), *_gpu_parts(machine.gpus[0])]
    return _cpu_parts(machine.cpu) if machine.cpu is not None else []


def _gpu_parts(gpu: GpuReading) -> list[Part]:
    parts = [("allocated", gauges.size(gpu.allocated)), ("reserved", gauges.size(gpu.reserved))]
    if gpu.device == "mps":
        return [*parts, ("recommended", gauges.size(gpu.memory_total))]
    return [
        *parts,
        ("on the card", gauges.part(gpu.memory_used, gpu.memory_total, memory_size)),
        ("", gauges.NA if gpu.temperature is None else f"{gpu.temperature} °C"),
        ("power", gauges.part(gpu.power, gpu.power_limit, gauges.watts)),
        ("SM", gauges.megahertz(gpu.sm_clock)),
    ]


def _cpu_parts(cpu: CpuReading) -> list[Part]:
    parts = [("CPU", f"{gauges.share(cpu.use)} of {gauges.whole(cpu.cores)} cores")]
    if cpu.busy_cores is not None:
        parts.append(("this run", f"{cpu.busy_cores:.1f} cores"))
    if cpu.frequency is not None:
        parts.append(("", gauges.gigahertz(cpu.frequency)))
    return [
        *parts,
        ("memory", gauges.size(cpu.memory_process)),
        ("free", gauges.part(cpu.memory_free, cpu.memory_total, memory_size)),
    ]


def note_line(snapshot: RunSnapshot, width: int) -> Content:
    """What is wrong with the run's GPUs, the first in one line; empty if nothing is, or if the run does not train."""
    if snapshot.machine is None or not snapshot.status.alive:
        return Content()
    lines = gauges.notes(snapshot.machine)
    if not lines:
        return Content()
    more = f"  M: all {len(lines)}" if len(lines) > 1 else "  M: more"
    words = Content.styled(f"! {visible(lines[0])}", "bold $text-warning")
    return Content.assemble(words.truncate(max(1, width - len(more)), ellipsis=True), (more, "bold $text-accent"))
