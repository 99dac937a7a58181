"""`python -m tests`: runs every check of this project, and stops at the first one that fails.

`python -m tests --quick` runs the checks that need no tests, the walls, and the tests that the working tree's change
touches, in less than 45 s (tests/quick.py). `python -m tests ARGUMENTS` passes the arguments to pytest and skips the
second run of the numeric tests.

That run goes on beside the first one, costs hardly any time, and is only shown when the first has ended. Four processes
keep two cores busy: tests wait for screens, processes and the disk, and three left a fifth of the time idle.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests import quick

HERE = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
PYTEST = (sys.executable, "-m", "pytest", "-n", "4")
BESIDE = (sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider")  # the other run's cache is in use
COMPILE = (*BESIDE, "--collect-only")  # in a new checkout, this compiles the tests and the package

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
    "tests/training/test_answer_runs.py",
    "tests/training/test_batch.py",
    "tests/training/test_gpu_step.py",
    "tests/training/test_loop.py",
    "tests/training/test_matrix_statistics.py",
    "tests/training/test_optimizer_switches.py",
    "tests/training/test_outlier_rows.py",
    "tests/training/test_pin_readings.py",
    "tests/training/test_resume.py",
)
"""The tests of what the model computes. They run a second time with the kernels of a CPU that has AVX2 and no more."""

NO_KERNELS = (
    "tests/llm/test_answer_rows.py",
    "tests/llm/test_bigrams.py",
    "tests/llm/test_bpe.py",
    "tests/llm/test_checkpoint.py",
    "tests/llm/test_closed.py",
    "tests/llm/test_corpora.py",
    "tests/llm/test_corpus.py",
    "tests/llm/test_cpu_reader.py",
    "tests/llm/test_downloads.py",
    "tests/llm/test_examples.py",
    "tests/llm/test_foreign_files.py",
    "tests/llm/test_generate.py",
    "tests/llm/test_gpu_problems.py",
    "tests/llm/test_headers_once.py",
    "tests/llm/test_hub.py",
    "tests/llm/test_letters.py",
    "tests/llm/test_machine.py",
    "tests/llm/test_nvml.py",
    "tests/llm/test_parquet.py",
    "tests/llm/test_preference_pairs.py",
    "tests/llm/test_records.py",
    "tests/llm/test_reward_rules.py",
    "tests/llm/test_stories.py",
    "tests/llm/test_token_bytes.py",
    "tests/llm/test_token_places.py",
    "tests/llm/test_tokenizer.py",
    "tests/llm/test_tokenizer_layouts.py",
    "tests/llm/test_torch_private.py",
    "tests/llm/test_vocabularies.py",
    "tests/instruments/test_answers.py",
    "tests/instruments/test_fake_cuda.py",
    "tests/adapters/test_gguf_vocabulary.py",
    "tests/adapters/test_json_vocabulary.py",
    "tests/adapters/test_llama_app.py",
    "tests/formats/test_hostile_checkpoints.py",
    "tests/llm/test_native_switches.py::test_the_number_of_threads_changes_no_bit",
    "tests/training/test_batch.py::test_writing_the_batch_does_not_change_the_training",
    "tests/training/test_pin_readings.py::test_pins_survive_a_round_trip",
    "tests/test_api.py::test_fine_tuning_and_comparing_are_the_command_lines",
    "tests/training/test_resume.py::test_a_run_that_goes_on_with_the_other_step_says_so",
    "tests/training/test_resume.py::test_settings_of_another_model_do_not_go_on",
    "tests/adapters/test_causal.py::test_an_encoder_decoder_is_refused_in_a_short_line",
    "tests/adapters/test_open_foreign.py::test_a_missing_extra_is_named",
    "tests/instruments/test_token_questions.py::test_vocabularies_side_by_side",
    "tests/test_api.py::test_importing_the_package_is_free_and_typed",
)
"""Files and tests among these that ask what is opened, said, drawn or measured, or whether two passes through the same
kernels are the same bits: once is enough."""

AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


def announce(check: Sequence[str | Path], variables: Mapping[str, str] | None = None) -> None:
    said = [*(f"{name}={value}" for name, value in (variables or {}).items()), Path(check[0]).name, *check[1:]]
    print("$", *said, flush=True)


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns this process's variables and `variables`.

    Compiled modules are kept, whatever the user's shell says: otherwise each of some hundred processes that tests start
    compiles the package anew, and pytest rewrites the assertions of all tests in each of its processes (5 s).
    """
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "", **(variables or {})}


def run(check: Sequence[str | Path]) -> None:
    announce(check)
    if code := subprocess.run(check, cwd=HERE, env=environment()).returncode:
        sys.exit(code)


@contextmanager
def beside(
    check: Sequence[str | Path], output: IO[bytes] | int, variables: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a check until the block ends."""
    process = subprocess.Popen(check, cwd=HERE, env=environment(variables), stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def run_all() -> None:
    """Runs all tests, and beside them the numeric ones again under `AVX2`. What the second run prints follows the first's."""
    first = (*PYTEST, "--durations=10")
    if (own := capability()) != "AVX512":
        run(first)
        print(
            f"The numeric tests run once: torch's kernels are {own} here; those of AVX2 are chosen where it has AVX512."
        )
        return
    again = (*BESIDE, *NUMERIC, *(f"--{'deselect' if '::' in place else 'ignore'}={place}" for place in NO_KERNELS))
    variables = AVX2 | {"HYPOTHESIS_PROFILE": "few"}
    with tempfile.TemporaryFile() as output, beside(again, output, variables) as numeric:
        run(first)
        code = numeric.wait()
        announce(again, variables)
        output.seek(0)
        print(output.read().decode(errors="replace"), flush=True)
    if code:
        sys.exit(code)


def capability(variables: Mapping[str, str] | None = None) -> str:
    """Returns the instruction set of torch's CPU kernels, as torch names it: AVX512, AVX2, DEFAULT, …."""
    code = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(variables), capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def run_quick() -> None:
    choice = quick.choose(HERE)
    run((*PYTEST, quick.ALWAYS, *choice.run))
    if choice.left_out:
        files = textwrap.fill(", ".join(choice.left_out), 110, break_long_words=False, break_on_hyphens=False)
        print(f"Left out, to stay within {quick.BUDGET:g} s of tests; `python -m tests` runs them:\n{files}")


def run_static() -> None:
    for check in STATIC:
        run(check)


def main() -> None:
    arguments = sys.argv[1:]
    if arguments == ["--quick"]:
        run_static()
        run_quick()
    elif arguments:
        run_static()
        run((*PYTEST, "--durations=10", *arguments))
    else:
        with beside(COMPILE, subprocess.DEVNULL):  # mypy uses one core
            run_static()
        run_all()


if __name__ == "__main__":
    main()
