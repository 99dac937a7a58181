"""`python -m tests`: runs every check of this project, and stops at the first one that fails.

`python -m tests --quick` runs the checks that need no tests, the walls, and the tests that the working tree's change
touches, in less than 45 s (tests/quick.py). `python -m tests ARGUMENTS` passes the arguments to pytest and skips the
second run of the numeric tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests import quick

HERE = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
PYTEST = (sys.executable, "-m", "pytest", "-n", "2")

STATIC = (
    (BIN / "ruff", "check", "."),
    (BIN / "ruff", "format", "--check", "."),
    (BIN / "mypy",),
    (BIN / "lint-imports",),
)

NUMERIC = (
    "tests/llm",
    "tests/instruments",
    "tests/adapters",
    "tests/formats",
    "tests/test_engine.py",
    "tests/test_api.py",
    "tests/test_cli.py",
    "tests/test_learn_command.py",
    "tests/test_tree.py",
    "tests/training/test_batch.py",
    "tests/training/test_loop.py",
    "tests/training/test_pin_readings.py",
    "tests/training/test_resume.py",
)
"""The tests of what the model computes. They run a second time with the kernels of a CPU that has AVX2 and no more."""

NO_KERNELS = (
    "tests/llm/test_tokenizer_layouts.py",
    "tests/llm/test_tokenizer.py",
    "tests/llm/test_foreign_files.py",
    "tests/llm/test_records.py",
    "tests/llm/test_vocabularies.py",
    "tests/llm/test_stories.py",
    "tests/llm/test_bpe.py",
    "tests/adapters/test_gguf_vocabulary.py",
    "tests/formats/test_hostile_checkpoints.py",
)
"""Files among these that compute with no kernel, only with text and files: once is enough."""

AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


def run(check: Sequence[str | Path], variables: Mapping[str, str] | None = None) -> None:
    said = [*(f"{name}={value}" for name, value in (variables or {}).items()), Path(check[0]).name, *check[1:]]
    print("$", *said, flush=True)
    code = subprocess.run(check, cwd=HERE, env={**os.environ, **(variables or {})}).returncode
    if code:
        sys.exit(code)


def capability(variables: Mapping[str, str] | None = None) -> str:
    """Returns the instruction set of torch's CPU kernels, as torch names it: AVX512, AVX2, DEFAULT, …."""
    code = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    environment = {**os.environ, **(variables or {})}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def run_quick() -> None:
    choice = quick.choose(HERE)
    run((*PYTEST, quick.ALWAYS, *choice.run))
    if choice.left_out:
        files = textwrap.fill(", ".join(choice.left_out), 110, break_long_words=False, break_on_hyphens=False)
        print(f"Left out, to stay within {quick.BUDGET:g} s of tests; `python -m tests` runs them:\n{files}")


def main() -> None:
    arguments = sys.argv[1:]
    for check in STATIC:
        run(check)
    if arguments == ["--quick"]:
        run_quick()
        return
    run((*PYTEST, "--durations=10", *arguments))
    if arguments:
        return
    if (own := capability()) == "AVX512":
        run((*PYTEST, *NUMERIC, *(f"--ignore={path}" for path in NO_KERNELS)), AVX2 | {"HYPOTHESIS_PROFILE": "few"})
    else:
        print(
            f"The numeric tests run once: torch's kernels are {own} here; those of AVX2 are chosen where it has AVX512."
        )


if __name__ == "__main__":
    main()
