"""The tests.

`HANG` is the only time limit: no test depends on time, and a busy machine must not fail one. Importing this package
gives this process and its children a neutral environment, without the variables of a terminal, a batch system or a
user's shell. Tests of those variables set them.
"""

import os
import tempfile
import tomllib
from pathlib import Path

_options = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]

HANG = float(_options["timeout"])
"""Seconds after which a wait is taken for a hang. pytest-timeout ends every test then; waits in other threads and processes,
which it can't end, have it as their limit."""

_OTHERS = {
    "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLORTERM", "COLUMNS", "LINES", "TMUX", "STY",
    "LANG", "LANGUAGE", "PYTHONIOENCODING", "PYTHONWARNINGS", "PAGER", "EDITOR", "VISUAL",
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT",
}  # fmt: skip
_FAMILIES = ("TEXTUAL", "TERM", "TUI_LLM_", "LC_", "HF_", "HUGGING", "TRANSFORMERS_", "TORCHELASTIC_")

for _name in list(os.environ):
    if _name in _OTHERS or _name.startswith(_FAMILIES) or _name.lower().endswith("_proxy"):
        del os.environ[_name]
os.environ |= {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "HF_HUB_OFFLINE": "1"}
os.environ.setdefault("OMP_NUM_THREADS", "1")
# On every machine the tests compute on the CPU; scripts/gpu*.py check a GPU. (ROCm's torch obeys both.)
os.environ |= {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
# The same kernel on every machine and in every fixture; tests/llm/test_kernels.py has the others.
os.environ["TUI_LLM_KERNEL"] = "torch"
# Compiling takes seconds, and each test has a cache folder of its own: the tests of a machine share what is compiled.
os.environ["TUI_LLM_NATIVE_DIR"] = str(Path(tempfile.gettempdir()) / f"tui-llm-tests-native-{os.getuid()}")
