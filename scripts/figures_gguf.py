"""Measure decoding of a quantized GGUF file in this package and in llama.cpp alone, in turn, in one process.

    pip install 'tui-llm[llama-cpp]'
    python scripts/figures_gguf.py FILE [--rounds 5] [--tokens 64] [--json]

llama.cpp alone is llama-cpp-python's `Llama.eval` and its greedy sampler; ours is the text window that the app feeds.
Both decode greedily after the same 64 random ids; the time is that of the decoded tokens.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from tui_llm.common.errors import UserError
from tui_llm.llm.adapters import llama_cpp_library
from tui_llm.llm.adapters.gguf_quantized import open_quantized
from tui_llm.llm.predict.window import Window

PROMPT = 64


def ours(path: Path, ids: list[int], count: int) -> Callable[[], float]:
    opened = open_quantized(path, path.stem)
    if isinstance(opened, str):
        raise UserError(f"{path} is not read through llama.cpp: {opened or 'it is not quantized'}")
    window = Window(opened[0], opened[0].vocabulary)

    def decode() -> float:
        window.crop(0)
        text = list(ids)
        window.feed(text)
        began = time.perf_counter()
        for _ in range(count):
            text.append(int(window.logits().argmax()))
            window.feed(text)
        return time.perf_counter() - began

    return decode


def alone(path: Path, ids: list[int], count: int) -> Callable[[], float]:
    library = llama_cpp_library.library()
    threads = llama_cpp_library.cores()
    model = library.Llama(str(path), n_ctx=1024, n_threads=threads, n_threads_batch=threads, verbose=False)

    def decode() -> float:
        model.reset()
        model.eval(ids)
        began = time.perf_counter()
        for _ in range(count):
            model.eval([model.sample(temp=0.0)])
        return time.perf_counter() - began

    return decode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE", help="a quantized GGUF file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    ids = random.Random(0).choices(range(256, 4096), k=PROMPT)
    try:
        sides = {name: make(options.file, ids, options.tokens) for name, make in (("ours", ours), ("llama.cpp", alone))}
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    for side in sides.values():
        side()
    taken = [{name: side() for name, side in sides.items()} for _ in range(options.rounds)]
    seconds = {name: statistics.median(one[name] for one in taken) for name in sides}
    ratio = statistics.median(one["llama.cpp"] / one["ours"] for one in taken)
    if options.json:
        print(json.dumps({"seconds": seconds, "tokens": options.tokens, "ratio": ratio}))
        return
    speeds = ", ".join(f"{name} {options.tokens / time_:.1f} tokens/s" for name, time_ in seconds.items())
    print(f"{options.file.name}: {speeds}; ours ÷ llama.cpp {ratio:.2f}")


if __name__ == "__main__":
    main()
