#!/usr/bin/env bash
# wandb 0.31.0: an offline run leaves no file in which its curves or last values can be read as text.
#
# Expected: a text file with the last values (files/wandb-summary.json) beside the binary log. Seen: after finish(), files/ has requirements.txt at most; all
# values are in run-ID.wandb alone, a LevelDB log of protocol buffers. A NaN is stored there as JSON's non-standard NaN.
# Here: tui_llm/training/run/foreign/wandb_files.py reads the binary log.
#
# Output seen:
#   run.summary in the process: 2.5
#   text files with the key: none; run-*.wandb has it: True, NaN as text: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q wandb==0.31.0
cat > "$folder/offline.py" <<'PYTHON'
import sys
from pathlib import Path

import wandb

top = Path(sys.argv[1])
settings = wandb.Settings(mode="offline", silent=True, console="off", x_disable_stats=True)
run = wandb.init(project="p", dir=str(top), settings=settings)
run.log({"train/loss": 3.5})
run.log({"train/loss": float("nan")})
run.log({"train/loss": 2.5})
last = run.summary["train/loss"]
run.finish()
data = next(top.glob("wandb/offline-run-*/run-*.wandb")).read_bytes()
others = [p for p in top.glob("wandb/offline-run-*/files/**/*") if p.is_file() and b"train/loss" in p.read_bytes()]
print(f"run.summary in the process: {last}")
print(f"text files with the key: {others or 'none'}; run-*.wandb has it: {b'train/loss' in data}, NaN as text: {b'NaN' in data}")
sys.exit(0 if not others and b"train/loss" in data and b"NaN" in data else 1)
PYTHON
cd "$folder"
venv/bin/python offline.py "$folder"
