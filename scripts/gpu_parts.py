"""The parts of gpu.py that check results: logits, instruments, decoding, a run, out of memory, compiling, gauges. Each uses what users
run, and writes its rows as it goes."""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpu_questions
import numpy as np
import torch
from gpu_report import PartReport

from tui_llm.facts.request import Request
from tui_llm.llm.data.corpus import Corpus
from tui_llm.llm.model import data_sheets, device, fast_decode, machine
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.training.plan import cost, launch
from tui_llm.training.run import metric_at
from tui_llm.training.run.run import Run
from tui_llm.training.run.settings import PRESETS, TrainingSettings
from tui_llm.training.worker import process, torch_compile, worker
from tui_llm.training.worker.distributed import Ranks, Torchrun
from tui_llm.training.worker.loop import Trainer

GPT2 = 50_257
SENTENCE = "the cat sat on the mat and slept, the dog sat on the rug and ate.\n"
# The runs learn characters, which need no tiktoken; all of ASCII is in the text, so that any prompt can be encoded.
TEXT = "".join(map(chr, range(32, 127))) + "\n" + SENTENCE * 400
PROMPT, OTHER = "the cat sat on", "the dog sat on"


@dataclass(frozen=True)
class PartOptions:
    """What every part is given. `folder` is scratch space; `small`: tiny shapes, to try the script on a CPU."""

    device: str
    small: bool
    nanogpt: str
    folder: Path

    @property
    def place(self) -> torch.device:
        return device.choose(self.device)

    @property
    def cuda(self) -> bool:
        return self.device.startswith("cuda")

    def shape(self) -> GPTConfig:
        """GPT-2 124M, or a tiny one."""
        return GPTConfig(97, 64, 2, 2, 32) if self.small else GPTConfig(GPT2, 1024, 12, 12, 768)


def largest(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference ÷ the largest value."""
    ours, theirs = ours.detach().double().cpu(), theirs.detach().double().cpu()
    return float((ours - theirs).abs().max() / theirs.abs().max())


def random_ids(vocabulary: int, count: int, seed: int = 1) -> torch.Tensor:
    """Ids (1, count)."""
    return torch.randint(vocabulary, (1, count), generator=torch.Generator().manual_seed(seed))


def made_model(config: GPTConfig) -> GPT:
    torch.manual_seed(1)
    return GPT(config).eval().requires_grad_(False)


# ── machine ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def machine_facts(report: PartReport, options: PartOptions) -> None:
    place = options.place
    name = machine.device_name(place)
    report.put(f"device: {name}")
    report.put(f"torch {torch.__version__}, CUDA {torch.version.cuda}, {torch.get_num_threads()} CPU threads")
    if place.type == "cuda":
        properties = torch.cuda.get_device_properties(place)
        report.put("memory of the device", properties.total_memory / 2**30, "GiB")
        report.put("compute capability", properties.major + properties.minor / 10)
        report.put(
            "fp32 products are exact, without TF32 (1 is yes)",
            float(torch.get_float32_matmul_precision() == "highest"),
            "",
            "=",
            1,
        )
        if (told := device.note("cuda", place, "auto")) != "":
            report.put(f"note: {told}")
    if options.small:
        return
    found = machine.measure(place)
    for precision in ("fp32", "bf16"):
        if (peak := found.peak(precision)) is not None:
            report.put(f"measured peak, {precision} products", peak / 1e12, "TFLOP/s")
    if (sheet := data_sheets.data_sheet(name)) is not None:
        report.put(f"peak of {sheet.card}, bf16 dense ({sheet.source})", sheet.flops / 1e12, "TFLOP/s")
    if found.read:
        report.put("measured memory bandwidth, reading", found.read / 1e9, "GB/s")


# ── logits ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def logits(report: PartReport, options: PartOptions) -> None:
    config, place = options.shape(), options.place
    ours = made_model(config)
    ids = random_ids(config.vocabulary, min(256, config.context))
    there = copy.deepcopy(ours).to(place)
    exact, wanted = there(ids.to(place)), ours(ids)
    report.put("logits in fp32, device − CPU ÷ largest", largest(exact, wanted), "", "≤", 1e-3)
    targets = ids.roll(-1, 1)
    losses = [float(one.loss(ids.to(at), targets.to(at))) for one, at in ((there, place), (ours, "cpu"))]
    report.put("loss in fp32, |device − CPU|", abs(losses[0] - losses[1]), "nats", "≤", 1e-3)
    with torch.autocast(place.type, torch.bfloat16):
        low = there(ids.to(place)).float()
    report.put("logits in bf16 (autocast), device − CPU in fp32 ÷ largest", largest(low, wanted))
    half = fast_decode.predictor(copy.deepcopy(ours).to(place), "half")
    found = half.head(half.run(ids[0].tolist()), config.vocabulary)
    report.put("logits with half weights, device − CPU in fp32 ÷ largest", largest(found, wanted[0]))


# ── decoding with the cache ──────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def decode(report: PartReport, options: PartOptions) -> None:
    config, place = options.shape(), options.place
    model = made_model(config)
    ids = random_ids(config.vocabulary, 48)[0].tolist()
    wanted = model(torch.tensor([ids]))[0]
    for weights, goal in (("fp32", 1e-3), ("half", 2e-2)):
        ours = fast_decode.predictor(copy.deepcopy(model).to(place), weights)
        rows = [ours.head(ours.run(ids[:16]), config.vocabulary)]
        rows += [ours.head(ours.run([id]), config.vocabulary) for id in ids[16:]]
        report.put(f"token by token with the cache, {weights}, ÷ one pass in fp32 on the CPU", largest(torch.cat(rows), wanted), "", "≤", goal)  # fmt: skip
        ours.crop(20)
        again = ours.head(ours.run([ids[20]]), config.vocabulary)
        report.put(f"the same token again after a crop, {weights}", largest(again, rows[5]), "", "≤", 1e-3)
        if options.cuda:
            report.put(f"a CUDA graph decodes, {weights} (1 is yes)", float(ours.static_step is not None), "", "=", 1)


# ── a small run, and every instrument on it ──────────────────────────────────────────────────────────────────────────


def settings_of_run(options: PartOptions, **fields: Any) -> TrainingSettings:
    small = TrainingSettings(
        tokenizer="char", layers=2, heads=2, width=32, block_size=64, batch_size=4, steps=12, eval_every=6, eval_batches=1,
        checkpoint_every=4, sample_tokens=2, warmup_steps=2, compile="off", sample_prompt="the",
    )  # fmt: skip
    if not options.small:
        large = {
            "layers": 6,
            "heads": 6,
            "width": 384,
            "block_size": 256,
            "batch_size": 32,
            "steps": 200,
            "eval_every": 100,
        }
        small = dataclasses.replace(small, **large, checkpoint_every=50)
    return dataclasses.replace(small, **fields)


def make_run(name: str, options: PartOptions, **fields: Any) -> Run:
    text = options.folder / "text.txt"
    text.write_text(TEXT, "utf-8")
    return launch.create(name, [str(text)], settings_of_run(options, **fields), preset="toy", device=options.device)


def instruments(report: PartReport, options: PartOptions) -> None:
    from tui_llm.engine import PipelineEngine

    run = make_run("instruments", options, steps=2)
    if process.work(worker.Worker(run)):
        raise RuntimeError(run.status().message)
    engine = PipelineEngine(options.device)
    engine.open(f"run:{run.name}")
    questions = gpu_questions.questions(PROMPT, OTHER, options.folder, engine.folder, f"run:{run.name}")
    answered, asked = 0, len(questions)

    def ask(name: str, question: Any) -> None:
        nonlocal asked
        try:
            engine.answer(question)
        except ImportError as error:  # tiktoken, where an instrument opens a second model with a BPE vocabulary
            asked -= 1
            report.skip(name, str(error))

    for name, question in questions.items():
        answered += report.attempt(name, functools.partial(ask, name, question))
    answered -= len(questions) - asked
    report.put(f"instruments that answered, of {asked}", answered, "", "=", asked)
    report.attempt("a reading", lambda: engine.read(Request(prompt=PROMPT, scores=True)))
    made = list(engine.generate(Request(prompt=PROMPT), seed=1, count=8, stop_at_end=False))
    report.put("tokens generated through the engine, of 8", len(made), "", "=", 8)


@contextmanager
def working(run: Run, options: PartOptions) -> Iterator[int]:
    """The process id of a worker of `run`: as `tui-llm train` starts it; with `small` a fork, which imports nothing anew."""
    if not options.small:
        launch.start(run)
        launch.wait_until_held(run)
        pid = int((run.path / "pid").read_text())
    elif not (pid := os.fork()):
        os._exit(process.main([str(run.path)]))
    try:
        yield pid
        if options.small:
            os.waitpid(pid, 0)
        while run.alive():
            time.sleep(0.1)
        launch.reap()
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise


def steps_of(run: Run) -> int:
    last = run.last_metric()
    return 0 if last is None else last.step


def losses_of(run: Run) -> dict[int, float]:
    return {step: metric.loss for step, metric in metric_at.of_steps(run.metrics_path, 1, steps_of(run)).items()}


def a_run(report: PartReport, options: PartOptions) -> None:
    """A run that is killed and resumed gives the losses of one that is not."""
    fields = {"steps": 60} if options.small else {}  # so many that it is not over before it is killed
    unbroken, killed = (make_run(name, options, **fields) for name in ("unbroken", "killed"))
    with working(unbroken, options):
        pass
    settings = killed.config().settings
    with working(killed, options) as pid:
        while steps_of(killed) <= settings.checkpoint_every and killed.status().state != "failed":
            time.sleep(0.005)
        os.kill(pid, signal.SIGKILL)
    at = steps_of(killed)
    report.put("steps before the worker was killed (SIGKILL)", at)
    with working(killed, options):
        pass
    status = killed.status()
    if status.state != "finished":
        raise RuntimeError(status.message)
    ours, theirs = losses_of(killed), losses_of(unbroken)
    if ours.keys() != theirs.keys():
        raise RuntimeError(f"the resumed run has {len(ours)} steps, the other {len(theirs)}")
    apart = max(abs(ours[step] - theirs[step]) / theirs[step] for step in ours)
    report.put("losses of the resumed run, largest difference ÷ loss", apart, "", "≤", 0 if options.small else 2e-2)
    report.put("loss of the last step ÷ that of the first", theirs[settings.steps] / theirs[1], "", "≤", 0.95)


def out_of_memory(report: PartReport, options: PartOptions) -> None:
    """A step that needs three times the device's memory ends the run with advice; with the batch that it names, it trains."""
    if not options.cuda:
        report.skip("out of memory", "only where memory is the device's own: a CPU's system would end some process")
        return
    total = torch.cuda.get_device_properties(options.place).total_memory
    small = settings_of_run(options, steps=2, width=768, heads=12, layers=12, block_size=1024, batch_size=1)
    one = cost.cost(small, cost.shape(small, 256))
    rows = 1
    while one.state_bytes + rows * one.activation_bytes < 3 * total:
        rows *= 2
    # The settings of `small`, but for the rows.
    fields = {"width": 768, "heads": 12, "layers": 12, "block_size": 1024, "steps": 2, "eval_every": 2, "batch_size": rows}  # fmt: skip
    run = make_run("memory", options, **fields)
    with working(run, options):
        pass
    status = run.status()
    report.put(
        f"{rows} rows: it says what to lower (1 is yes)",
        float(status.fits is not None),
        "",
        "=",
        1,
        message=status.message,
    )
    report.put("the message is one line about memory (1 is yes)", float(status.message.startswith("out of memory at batch")), "", "=", 1)  # fmt: skip
    if status.fits is not None:
        launch.change_batch_size(run, *status.fits)
        with working(run, options):
            pass
        report.put(
            f"steps trained with batch {status.fits[0]}, of 2", steps_of(run), "", "=", 2, message=run.status().message
        )


# ── compiling, one rank of DDP ───────────────────────────────────────────────────────────────────────────────────────


def random_corpus(vocabulary: int, count: int) -> Corpus:
    ids = np.random.default_rng(1).integers(0, vocabulary, count).astype(np.uint16)
    cut = int(0.95 * count)
    return Corpus(ids[:cut], ids[cut:], 1.0, 0.0, "")


def made_trainer(
    settings: TrainingSettings, vocabulary: int, place: torch.device, ranks: Ranks | None = None
) -> Trainer:
    torch.manual_seed(1)
    model = GPT(cost.shape(settings, vocabulary))
    rows = 40 * settings.batch_size
    return Trainer(model, random_corpus(vocabulary, rows * settings.block_size), settings, place, ranks)


def steps(trainer: Trainer, first: int, count: int) -> list[float]:
    """The losses of some steps, without evaluations."""
    return [trainer._update(number, 1e-3)[0] for number in range(first, first + count)]


def compiling(report: PartReport, options: PartOptions) -> None:
    settings, place = settings_of_run(options), options.place
    plain = steps(made_trainer(settings, 256, place), 1, 3)
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK"):  # port 0: any that is free
        os.environ[name] = {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "1"}.get(name, "0")

    def distributed() -> None:
        ranks = Torchrun(shard=False)
        ranks.connect(options.device)
        one = steps(made_trainer(settings, 256, ranks.choose(place.type), ranks), 1, 3)
        report.put("DDP with one rank: losses of 3 steps, difference ÷ loss", gap(one, plain), "", "≤", 1e-2)
        ranks.disconnect()

    def compiled() -> None:
        ours = made_trainer(settings, 256, place)
        began = time.perf_counter()
        if (problem := torch_compile.compile_step(ours, 1)) != "":
            raise RuntimeError(problem)
        report.put("torch.compile: seconds for a small shape", time.perf_counter() - began, "s")
        report.put("compiled: losses of 3 steps, difference ÷ loss", gap(steps(ours, 1, 3), plain), "", "≤", 1e-2)

    report.attempt("DDP with one rank", distributed)
    if options.small:
        report.skip(
            "torch.compile", "compiling takes longer than all other parts; tests/training/test_torch_compile.py has it"
        )
    else:
        report.attempt("torch.compile", compiled)


def gap(ours: list[float], theirs: list[float]) -> float:
    return max(abs(a - b) / b for a, b in zip(ours, theirs, strict=True))


# ── for several parts ────────────────────────────────────────────────────────────────────────────────────────────────


def scratch() -> Path:
    """A folder that also holds the runs; `TUI_LLM_HOME` is set to it."""
    folder = Path(tempfile.mkdtemp(prefix="tui-llm-gpu-"))
    os.environ["TUI_LLM_HOME"] = str(folder)
    return folder


def gpt2_settings(options: PartOptions, rows: int) -> TrainingSettings:
    """The preset gpt2 with one batch of `rows` rows in a step."""
    settings = dataclasses.replace(
        PRESETS["gpt2"], batch_size=rows, grad_accumulation_steps=1, dropout=0.0, compile="auto"
    )
    if options.small:
        settings = dataclasses.replace(settings, layers=2, heads=2, width=32, block_size=32)
    return settings
