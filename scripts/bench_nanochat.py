"""Compare training throughput with nanochat's d4 on a CPU, alternating in one process.

    git clone https://github.com/karpathy/nanochat
    python scripts/bench_nanochat.py --nanochat nanochat

d4 is nanochat's model of depth 4 as its runs/runcpu.sh scales it: 4 layers, 4 heads of 64, width 256, rows of 512 tokens,
vocabulary 32,768. Ours has the same shape. What differs, and can't be made equal: nanochat has rotary positions, RMSNorm
without parameters, ReLU², an output head of its own, value embeddings, a soft cap on the logits, no biases; Muon for the
blocks' matrices (ours: --optimizer muon), no clipping; float32 on a CPU by its own choice (--dtype bfloat16 sets
NANOCHAT_DTYPE). So the table also gives each side's parameters and FLOPs per token, by its own count.

It compiles its model and optimizer, which needs a C++ compiler; --eager turns that off. Both sides use this process's
allocator settings, which are those of our worker.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from tui_llm.common.errors import UserError
from tui_llm.training.plan.processes import ALLOCATOR


def nanochat(shape: Any, path: Path, *, compiled: bool) -> tuple[Any, Any]:
    """Returns a step of nanochat's base_train.py, and its model. Raises `UserError` if its code can't be used."""
    import numpy as np
    import torch

    from tui_llm.training.worker import versus

    if not (path / "nanochat" / "gpt.py").is_file():
        raise UserError(
            f"there is no nanochat/gpt.py in {path}; give the folder of a clone of github.com/karpathy/nanochat"
        )
    sys.path.insert(0, str(path))
    try:
        from nanochat.gpt import GPT, GPTConfig  # type: ignore[import-not-found]
    except ImportError as error:
        raise UserError(f"nanochat can't be imported: {error}; install what its pyproject.toml names") from error
    torch.manual_seed(1)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its padding and learning rates
        config = GPTConfig(sequence_len=shape.block_size, vocab_size=shape.vocabulary, n_layer=shape.layers, n_head=shape.heads,
                           n_kv_head=shape.heads, n_embd=shape.width, window_pattern="L")  # fmt: skip
        raw = GPT(config)
        raw.init_weights()
        optimizer = raw.setup_optimizer()
    model = torch.compile(raw, dynamic=False) if compiled else raw
    ids, T = torch.from_numpy(versus.text_ids(shape.vocabulary).astype(np.int64)), shape.block_size

    def step() -> float:
        rows = torch.stack([ids[i : i + T + 1] for i in torch.randint(len(ids) - T, (shape.batch_size,)).tolist()])
        loss = model(rows[:, :-1].contiguous(), rows[:, 1:].contiguous())
        loss.backward()
        optimizer.step()
        raw.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step, raw


def main(options: argparse.Namespace) -> None:
    """Prints the measurements, one line for each side and one for the ratio."""
    import torch

    from tui_llm.training.plan import cost
    from tui_llm.training.worker import versus

    torch.set_flush_denormal(True)
    if options.threads:
        torch.set_num_threads(options.threads)
    shape = versus.Shape(4, 4, 256, 512, options.rows, 32_768)
    step, model = nanochat(shape, Path(options.nanochat), compiled=not options.eager)
    trainer = versus.trainer(shape, versus.text_ids(shape.vocabulary), optimizer=options.optimizer)
    steps = trainer.steps()
    sides = {"ours": lambda: next(steps).loss, "nanochat": step}
    clock = time.process_time if options.cpu_time else time.perf_counter
    try:
        taken = list(versus.rounds(sides, options.rounds, options.steps, clock))
    except Exception as error:
        if type(error).__module__.split(".")[0] == "torch" and "_" in type(error).__module__:
            raise UserError(f"nanochat can't be compiled here ({type(error).__name__}); try --eager") from error
        raise
    config, tokens = trainer.model.config, shape.batch_size * shape.block_size
    facts = {
        "ours": (trainer.precision, config.parameters(), cost.flops_per_token(config, shape.block_size)),
        "nanochat": (options.dtype, sum(p.numel() for p in model.parameters()), model.estimate_flops()),
    }
    ratio = statistics.median(one["nanochat"] / one["ours"] for one in taken)
    if options.json:
        print(json.dumps({"ratio": ratio, "eager": options.eager, "threads": torch.get_num_threads()}))
        return
    for side, (precision, parameters, flops) in facts.items():
        speeds = [tokens / one[side] for one in taken]
        print(f"{side:9} {statistics.median(speeds):8,.0f} tokens/s ({min(speeds):,.0f} to {max(speeds):,.0f}), {precision}, "
              f"{parameters / 1e6:.1f} M parameters, {flops / 1e6:.0f} MFLOP per token")  # fmt: skip
    print(f"ours ÷ nanochat {ratio:.2f} ({options.rounds} rounds of {options.steps} steps of {tokens:,} tokens, "
          f"{torch.get_num_threads()} threads, {'cpu' if options.cpu_time else 'wall'} time"
          f"{', nanochat eager' if options.eager else ''})")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanochat", required=True, metavar="PATH", help="a clone of nanochat")
    parser.add_argument("--rows", type=int, default=4, help="rows of 512 tokens in a step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1, help="of each side in a round")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--cpu-time", action="store_true", help="count CPU seconds instead of the clock's")
    parser.add_argument("--eager", action="store_true", help="nanochat without torch.compile")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="nanochat's compute dtype")
    parser.add_argument("--optimizer", choices=("adamw", "muon"), default="adamw", help="ours")
    parser.add_argument("--json", action="store_true", help="print the median ratio as JSON")
    arguments = parser.parse_args()
    wanted = {name: value for name, value in ALLOCATOR.items() if name not in os.environ}
    wanted |= {"NANOCHAT_DTYPE": arguments.dtype, "TORCHDYNAMO_DISABLE": str(int(arguments.eager))}
    if any(os.environ.get(name) != value for name, value in wanted.items()):  # read at process start: start again
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **wanted})
    try:
        main(arguments)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
