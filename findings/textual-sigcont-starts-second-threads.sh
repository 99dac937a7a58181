#!/usr/bin/env bash
# textual 8.2.8: each SIGCONT without a SIGTSTP before it starts another input thread and another output thread, beside the first ones.
#
# Expected: a process that goes on (`kill -STOP` and `kill -CONT`; a debugger; a container that was paused) has one thread that reads the
# keys. Seen: the driver's handler of SIGCONT starts application mode again whether it was left or not, so that two threads read the same
# terminal, each with its own parser and decoder; the driver keeps and joins the last one only. Linux sends SIGCONT after SIGHUP to the
# session whose terminal closes, so that this happens at the end of every such session.
# Here: `SafeDriver.resume_application_mode` of tui_llm/tui/input.py; tests/tui/test_saved_state_process.py.
#
# Output seen:
#   before: 1 for input, 1 for output
#   after one SIGCONT: 2 for input, 2 for output
#   after two: 3 for input, 3 for output
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q textual==8.2.8 rich==15.0.0
cat > "$folder/app.py" <<'PYTHON'
import os
import signal
import sys
import threading

from textual.app import App


class Counts(App):
    def on_ready(self) -> None:
        self.lines = [self.count("before")]
        os.kill(os.getpid(), signal.SIGCONT)
        self.call_after_refresh(self.once)

    def once(self) -> None:
        self.lines.append(self.count("after one SIGCONT"))
        os.kill(os.getpid(), signal.SIGCONT)
        self.call_after_refresh(self.twice)

    def twice(self) -> None:
        self.exit([*self.lines, self.count("after two")])

    def count(self, when: str) -> str:
        names = [thread.name for thread in threading.enumerate()]
        return f"{when}: {names.count('textual-input')} for input, {names.count('textual-output')} for output"


lines = Counts().run()
with open(sys.argv[1], "w") as file:
    file.write("\n".join(lines) + "\n")
os._exit(0)
PYTHON
cat > "$folder/in_terminal.py" <<'PYTHON'
import os
import pty
import sys

child, master = pty.fork()
if child == 0:
    os.execv(sys.argv[1], sys.argv[1:])
while True:
    try:
        if not os.read(master, 65536):
            break
    except OSError:
        break
os.waitpid(child, 0)
PYTHON
TERM=xterm-256color python3 "$folder/in_terminal.py" "$folder/venv/bin/python" "$folder/app.py" "$folder/out"
cat "$folder/out"
diff "$folder/out" - <<'SEEN'
before: 1 for input, 1 for output
after one SIGCONT: 2 for input, 2 for output
after two: 3 for input, 3 for output
SEEN
