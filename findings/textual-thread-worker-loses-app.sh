#!/usr/bin/env bash
# textual 8.2.8: in a thread worker, `self.app` raises NoActiveAppError once the worker's screen has been dismissed; nothing reports it.
#
# Expected: `self.app.call_from_thread(…)`, the documented way to hand over a result, works as long as the app runs, or its failure is
# reported as that of any worker. Seen: a thread does not inherit the context in which the app is active, so `app` is found through
# the parents, and a dismissed screen has none. The worker's error ends nowhere: the app goes on with exit code 0, without the result.
# Here: a form that starts a run takes the app's `call_later` before its thread starts (tui_llm/tui/runs/new_run.py), and so do exports,
# renames and deletions (tests/tui/test_new_run_form.py, test_run_actions.py).
#
# Output seen:
#   while the screen is open: Lab
#   after it was dismissed: NoActiveAppError
#   results handed over: 0, return code of the app: 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q textual==8.2.8
cat > "$folder/worker.py" <<'PYTHON'
import asyncio
import sys
import threading

from textual import work
from textual.app import App
from textual.screen import ModalScreen

started, released, ended = threading.Event(), threading.Event(), threading.Event()
seen: list[str] = []
results: list[str] = []


class Form(ModalScreen[None]):
    def on_mount(self) -> None:
        self.save()

    @work(thread=True)
    def save(self) -> None:
        seen.append(type(self.app).__name__)
        started.set()
        released.wait()
        try:
            self.app.call_from_thread(results.append, "saved")
        except BaseException as error:
            seen.append(type(error).__name__)
            raise
        finally:
            ended.set()


class Lab(App[None]):
    pass


async def main() -> int:
    app = Lab()
    async with app.run_test() as pilot:
        form = Form()
        app.push_screen(form)
        while not started.is_set():
            await pilot.pause()
        app.screen.dismiss()
        while form.parent is not None:  # until it has been removed
            await pilot.pause()
        released.set()
        while not ended.is_set():
            await pilot.pause()
        await pilot.pause()
    print("while the screen is open:", seen[0])
    print("after it was dismissed:", seen[1] if len(seen) > 1 else type(app).__name__)
    print(f"results handed over: {len(results)}, return code of the app: {app.return_code or 0}")
    return 0 if seen[1:] == ["NoActiveAppError"] and not results and not app.return_code else 1


sys.exit(asyncio.run(main()))
PYTHON
"$folder/venv/bin/python" "$folder/worker.py"
