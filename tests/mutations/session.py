"""Runs many cases: the original files are created once; each case gets a copy, mutates it and is run."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.mutations import causes, corpora, forked, models, runs, vocabularies
from tests.mutations.case import Case, fault

SHARES = {
    "models": 40,
    "vocabularies": 20,
    "runs": 18,
    "corpora": 14,
    "causes": 8,
}  # number of cases of each kind per hundred
_MODELLING = ("transformers.models.llama.modeling_llama", "transformers.models.gpt2.modeling_gpt2", "transformers.models.gpt2.tokenization_gpt2", "transformers.modeling_gguf_pytorch_utils", "gguf", "jinja2")  # fmt: skip


class Session:
    """A series of cases. `faults` are (kind, number, name, what is wrong). `work` is a folder of its own."""

    def __init__(self, work: Path, seed: int, log: Path | None = None) -> None:
        self.work, self.seed = work, seed
        self.bases, self.here = work / "bases", work / "case"
        self.faults: list[tuple[str, int, str, str]] = []
        self.unconfirmed: list[tuple[str, int, str, str]] = []
        self.endings: Counter[str] = Counter()
        self.worst_cpu: tuple[float, str] = (0.0, "")
        self.worst_memory: tuple[int, str] = (0, "")
        self._plain: dict[tuple[str, ...], forked.Ending] = {}
        self._log = log.open("w") if log else None
        self._home = Path(os.environ["TUI_LLM_HOME"])
        self._warm()

    def _warm(self) -> None:
        """Imports what the cases need, so that imports do not count towards a case's CPU time and memory."""
        import importlib

        import torch

        torch.set_num_threads(1)
        for name in ("tui_llm.engine", "tui_llm.llm.hub.open_model", "tui_llm.llm.adapters.foreign", "tui_llm.commands.shared.parser", "tui_llm.training.worker.process"):  # fmt: skip
            importlib.import_module(name)
        models.make_bases(self.bases)
        vocabularies.make_bases(self.bases)
        corpora.make_bases(self.bases)
        runs.make_bases(self.bases)
        causes.make_bases(self.bases)
        for name in _MODELLING:
            importlib.import_module(name)
        shutil.copytree(self._home, self.bases / "home", symlinks=True)

    def all(self, cases: int, kinds: Sequence[str] | None = None, first: int = 0) -> None:
        done = 0
        for kind in kinds or SHARES:
            upto = done + SHARES[kind]  # the shares of all kinds add up to `cases`
            for number in range(cases if kinds else round(cases * upto / 100) - round(cases * done / 100)):
                self.one(kind, first + number)
            done = upto

    def one(self, kind: str, number: int) -> None:
        self._clear()
        self.here.mkdir(parents=True)
        draw = random.Random(f"{self.seed} {kind} {number}")
        if kind == "runs":
            case = runs.make(draw, self._home, self.here)
        elif kind == "causes":
            case = causes.make(draw, self.bases, self.here, self._home)
        else:
            case = {"models": models, "vocabularies": vocabularies, "corpora": corpora}[kind].make(
                draw, self.bases, self.here
            )  # type: ignore[attr-defined]
        base = self._base(case)
        ending = forked.run(case.call or (lambda: corpora._main(list(case.words))))
        wrong = fault(case, ending, base)
        if (self.here / "EXECUTED").exists():
            wrong = f"something in the folder was executed; {wrong}"
        self._note(kind, number, case, ending, base, wrong)

    def _base(self, case: Case) -> forked.Ending | None:
        """Returns the outcome for the original files; without such, that of a call that does nothing."""
        if case.plain not in self._plain:
            kept = self._home.with_name("kept")
            if case.plain and case.plain == case.words:  # for a run, the case's own home contains the mutated one
                self._home.rename(kept)
                shutil.copytree(self.bases / "home", self._home, symlinks=True)
            call = case.call if case.plain == case.words else None
            made = (
                forked.run(call or (lambda: corpora._main(list(case.plain)))) if case.plain else forked.run(lambda: 0)
            )
            if case.plain and made.code != 0:
                raise AssertionError(f"{' '.join(case.plain)} fails with untouched files: {made.err[-500:]}")
            self._plain[case.plain] = made
            if kept.exists():
                shutil.rmtree(self._home)
                kept.rename(self._home)
            shutil.rmtree(self.here / "out", ignore_errors=True)
            shutil.rmtree(self.here / "logs", ignore_errors=True)
        return self._plain[case.plain]

    def _note(
        self, kind: str, number: int, case: Case, ending: forked.Ending, base: forked.Ending | None, wrong: str
    ) -> None:
        over = ending.memory - base.memory if base else 0
        where = f"{kind} {number} ({case.name})"
        self.worst_cpu = max(self.worst_cpu, (round(ending.cpu, 2), where))
        self.worst_memory = max(self.worst_memory, (over >> 20, where))
        self.endings[
            f"{kind} {'answered' if ending.code == 0 else 'refused' if ending.code == 2 else ending.code}"
        ] += 1
        if wrong.startswith("unconfirmed"):
            self.unconfirmed.append((kind, number, case.name, wrong))
        elif wrong:
            self.faults.append((kind, number, case.name, wrong))
            print(
                f"WRONG {where}: {wrong}".encode("ascii", "backslashreplace").decode().replace("\n", " | "),
                file=sys.stderr,
                flush=True,
            )
        if self._log:
            line = {
                "kind": kind,
                "case": number,
                "name": case.name,
                "code": ending.code,
                "cpu": round(ending.cpu, 2),
                "mb": over >> 20,
                "wrong": wrong,
                "err": ending.err[:500],
            }
            self._log.write(json.dumps(line) + "\n")
            self._log.flush()

    def report(self) -> dict[str, Any]:
        return {
            "seed": self.seed, "cases": sum(self.endings.values()), "endings": dict(sorted(self.endings.items())), "worst_cpu_seconds": self.worst_cpu,
            "worst_memory_mb": self.worst_memory, "faults": self.faults, "unconfirmed": self.unconfirmed,
        }  # fmt: skip

    def _clear(self) -> None:
        for folder in (self.here, self._home):
            if folder.exists():
                shutil.rmtree(folder)
        if (self.bases / "home").exists():
            shutil.copytree(self.bases / "home", self._home, symlinks=True)

    def close(self, keep: bool = False) -> None:
        if self._log:
            self._log.close()
        if not keep:
            shutil.rmtree(self.work, ignore_errors=True)
