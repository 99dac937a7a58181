#!/usr/bin/env bash
# torch 2.13.0: constructing an optimizer, or an embedding on the meta device, imports torch's compiler.
#
# Expected: an eager AdamW needs nothing of torch.compile. Seen: `torch.optim.AdamW([parameter])` imports torch._dynamo, torch._inductor
# and sympy (Optimizer.__init__ is wrapped by a decorator that imports them when it is first called), and so does
# `torch.nn.Embedding(2, 2)` under `torch.device("meta")`, where normal_ runs a decomposition written in Python. On a CPU the same layer
# imports none of them. The imports cost about as much CPU time as `import torch` itself.
# Here: tui_llm/llm/model/torch_private.py reaches the optimizers without the decorators, and models on the meta device are built
# without initialization; tests/test_walls.py looks at sys.modules, tests/llm/test_torch_private.py compares the steps bit for bit.
#
# Output seen (the ratio varies with the machine):
#   import torch: none
#   torch.nn.Embedding on the CPU: none
#   torch.nn.Embedding on meta: sympy torch._dynamo torch._inductor
#   torch.optim.AdamW: sympy torch._dynamo torch._inductor
#   CPU time of import torch and AdamW ÷ of import torch: 2.02
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy
cat > "$folder/imports.py" <<'PYTHON'
import subprocess
import sys
import time

SEEN = "print(*sorted({'torch._dynamo', 'torch._inductor', 'sympy'} & set(sys.modules)) or ['none'])"
CASES = {
    "import torch": "",
    "torch.nn.Embedding on the CPU": "torch.nn.Embedding(2, 2)",
    "torch.nn.Embedding on meta": "torch.nn.Embedding(2, 2, device='meta')",
    "torch.optim.AdamW": "torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))])",
}


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", f"import sys, torch\n{code}\n{SEEN}"], capture_output=True, text=True, check=True).stdout.strip()


def seconds(code: str) -> float:
    code = f"import time, torch\n{code}\nprint(time.process_time())"
    return min(float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout) for _ in range(3))


found = {name: run(code) for name, code in CASES.items()}
for name, modules in found.items():
    print(f"{name}: {modules}")
ratio = seconds(CASES["torch.optim.AdamW"]) / seconds("")
print(f"CPU time of import torch and AdamW ÷ of import torch: {ratio:.2f}")
whole = "sympy torch._dynamo torch._inductor"
raise SystemExit(not (list(found.values()) == ["none", "none", whole, whole] and ratio > 1.3))
PYTHON
"$folder/venv/bin/python" "$folder/imports.py"
