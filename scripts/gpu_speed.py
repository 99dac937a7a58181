"""The parts of gpu.py that measure speed beside transformers and nanoGPT, in turn in one process."""

from __future__ import annotations

import contextlib
import io
import statistics
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gpu_parts import GPT2, PartOptions, gpt2_settings, made_model, made_trainer, random_ids
from gpu_report import PartReport

from tui_llm.llm.learn import speed
from tui_llm.llm.model import checkpoint, data_sheets, machine
from tui_llm.training.plan import cost
from tui_llm.training.run import gauges
from tui_llm.training.run.settings import TrainingSettings
from tui_llm.training.worker import torch_compile, versus

Steps = Callable[[int], None]  # runs so many training steps; the caller waits for the device
SIDES = ("ours", "transformers", "nanoGPT")
GOALS = {"transformers": 1.3, "nanoGPT": 1.1}
# GiB of memory from which so many rows of 1,024 tokens fit three times, with the models.
ROWS = ((70, 32), (35, 16), (20, 8), (14, 4), (0, 2))
PADDED = 50_304  # nanoGPT's vocabulary: GPT-2's, padded to a multiple of 64


def wait(place: torch.device) -> None:
    if place.type == "cuda":
        torch.cuda.synchronize(place)


# ── training ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def ours(settings: TrainingSettings, options: PartOptions) -> tuple[Steps, Any]:
    """Steps as a worker takes them, each of which reads its loss."""
    trainer = made_trainer(settings, 256 if options.small else GPT2, options.place)
    if torch_compile.wanted(settings.compile, trainer.device) and (problem := torch_compile.compile_step(trainer, 1)):
        raise RuntimeError(problem)
    number = 0

    def work(count: int) -> None:
        nonlocal number
        for _ in range(count):
            number += 1
            trainer._update(number, 1e-4)

    return work, trainer


def peer_steps(model: Any, optimizer: torch.optim.Optimizer, loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
               vocabulary: int, settings: TrainingSettings, place: torch.device) -> Steps:  # fmt: skip
    """Steps of a peer: bf16 autocast where ours are, gradients clipped at 1, the loss never read."""
    B, T = settings.batch_size, settings.block_size
    low = place.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)

    def work(count: int) -> None:
        for _ in range(count):
            both = torch.randint(vocabulary, (B, T + 1))
            x, y = both[:, :-1].contiguous(), both[:, 1:].contiguous()
            if place.type == "cuda":
                x, y = (side.pin_memory().to(place, non_blocking=True) for side in (x, y))
            with torch.autocast(place.type, torch.bfloat16, enabled=low):
                loss = loss_of(x, y)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return work


def transformers_side(settings: TrainingSettings, options: PartOptions) -> Steps:
    """transformers' GPT-2 with SDPA, compiled on CUDA, fused AdamW."""
    import transformers

    torch.manual_seed(1)
    config = transformers.GPT2Config(
        vocab_size=256 if options.small else GPT2, n_positions=settings.block_size, n_embd=settings.width,
        n_layer=settings.layers, n_head=settings.heads, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config).to(options.place).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    run = torch.compile(model, dynamic=False) if options.cuda else model

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        logits = run(x).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), y.flatten())

    return peer_steps(model, optimizer, loss_of, config.vocab_size, settings, options.place)


def nanogpt_side(settings: TrainingSettings, options: PartOptions) -> Steps:
    """nanoGPT as its train.py runs it: no bias, no dropout, padded vocabulary, fused AdamW, compiled on CUDA."""
    module = versus.load(Path(options.nanogpt))
    torch.manual_seed(1)
    with contextlib.redirect_stdout(io.StringIO()):
        model = module.GPT(module.GPTConfig(
            block_size=settings.block_size, vocab_size=256 if options.small else PADDED, n_layer=settings.layers,
            n_head=settings.heads, n_embd=settings.width, dropout=0.0, bias=False,
        )).to(options.place)  # fmt: skip
        optimizer = model.configure_optimizers(0.1, 6e-4, (0.9, 0.95), options.place.type)
    run = torch.compile(model) if options.cuda else model
    vocabulary = 256 if options.small else GPT2
    return peer_steps(model, optimizer, lambda x, y: run(x, y)[1], vocabulary, settings, options.place)


def training(report: PartReport, options: PartOptions) -> None:
    place = options.place
    rows = 2
    if options.cuda:
        memory = torch.cuda.get_device_properties(place).total_memory / 2**30
        rows = next(rows for least, rows in ROWS if memory >= least)
    settings = gpt2_settings(options, rows)
    tokens = settings.batch_size * settings.block_size
    began = time.perf_counter()
    mine, trainer = ours(settings, options)
    sides: dict[str, Steps] = {"ours": mine}
    mine(2)
    wait(place)
    report.put("seconds until ours is compiled and warm", time.perf_counter() - began, "s")
    # Ours alone first: if a peer takes the rest of the time, or all memory, this is known.
    rate = throughput(mine, tokens, 1 if options.small else 20, place)
    shape = "a tiny shape" if options.small else f"gpt2 124M, {rows} × 1,024 tokens"
    goal = ("≥", 500_000.0) if not options.small else ("", None)
    report.put(f"training, {shape}, {trainer.precision}", rate, "tokens/s", *goal)
    flops = cost.flops_per_token(trainer.model.config, settings.block_size)
    sheet = data_sheets.data_sheet(machine.device_name(place))
    if sheet is not None:
        report.put(
            f"MFU of {sheet.card}'s {sheet.flops / 1e12:.0f} TFLOP/s", 100 * rate * flops / sheet.flops, "%", "≥", 45
        )
    known = machine.known(place)
    peak = known.peak("bf16" if trainer.bfloat16 else "fp32") if known is not None else None
    if (share := gauges.mfu({"flops_per_token": flops, "peak_flops": peak}, rate)) is not None:
        report.put("MFU of the measured peak", 100 * share, "%")
    if options.cuda:
        report.put("peak memory of ours", torch.cuda.max_memory_allocated(place) / 2**30, "GiB")
    makers = {"transformers": transformers_side, "nanoGPT": nanogpt_side}
    if not options.nanogpt:
        report.skip("÷ nanoGPT, compiled", "give a clone of github.com/karpathy/nanoGPT as --nanogpt PATH")
        del makers["nanoGPT"]
    for name, make in makers.items():
        beside(report, name, make, sides, settings, options)


def beside(report: PartReport, name: str, make: Callable[[TrainingSettings, PartOptions], Steps], sides: dict[str, Steps],
           settings: TrainingSettings, options: PartOptions) -> None:  # fmt: skip
    """A peer's tokens/s, and ours ÷ it in turn."""
    place, each = options.place, 1 if options.small else 10
    tokens = settings.batch_size * settings.block_size
    try:
        theirs = make(settings, options)
        theirs(2)
        wait(place)
    except Exception as error:  # a peer that is not installed, or fails to compile here
        traceback.print_exc()
        report.skip(f"÷ {name}", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        return
    pairs = []
    for _ in range(1 if options.small else 5):
        pairs.append([throughput(side, tokens, each, place) for side in (sides["ours"], theirs)])
    how = ", compiled" if options.cuda else ""
    report.put(f"{name}{how}, in turn", statistics.median(pair[1] for pair in pairs), "tokens/s")
    goal = ("≥", GOALS[name]) if options.cuda and not options.small else ("", None)
    report.put(f"ours ÷ {name}{how}", statistics.median(a / b for a, b in pairs), "×", *goal)


def throughput(work: Steps, tokens: int, count: int, place: torch.device) -> float:
    """Tokens/s of `count` steps."""
    wait(place)
    began = time.perf_counter()
    work(count)
    wait(place)
    return tokens * count / (time.perf_counter() - began)


# ── decoding ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def decoding(report: PartReport, options: PartOptions) -> None:
    config, place = options.shape(), options.place
    folder = options.folder / "random"
    folder.mkdir(exist_ok=True)
    checkpoint.save(made_model(config), folder)
    ids = random_ids(config.vocabulary, config.context + 1)[0].tolist()
    amounts = speed.Amounts.of(config.context, written=8 if options.small else 128)
    clock = time.perf_counter
    for weights, dtype in (("fp32", torch.float32), ("half", torch.float16)):
        mine = speed.OwnBackend(folder, place, weights)
        works = {"ours": speed.works(mine, ids, amounts, "decode", clock)["decode"]}
        try:
            peer = speed.Transformers(folder, place, dtype if options.cuda else torch.float32)
            works["transformers"] = speed.works(peer, ids, amounts, "decode", clock)["decode"]
        except Exception as error:
            report.skip(f"decode, {weights} ÷ transformers", str(error))
        taken = list(speed.in_turn(works, 1 if options.small else 5))
        rates = {name: 1 / seconds for name, seconds in speed.medians(taken).items()}
        measured = options.cuda and not options.small
        report.put(f"decode, {weights}, {amounts.prompt} + {amounts.written} tokens", rates["ours"], "tokens/s", *(("≥", 1000.0) if measured else ("", None)))  # fmt: skip
        if "transformers" in rates:
            report.put(f"decode of transformers, {weights}", rates["transformers"], "tokens/s")
            report.put(f"decode, {weights} ÷ transformers", speed.ratio(taken, "ours", "transformers"), "×", *(("≥", 4.0) if measured else ("", None)))  # fmt: skip
