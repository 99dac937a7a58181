"""A class: the lesson's tabs by name, and how far each learner is, as the pages of `serve --lesson` show it. No web framework."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from html import escape

from tui_llm.common.display import visible
from tui_llm.common.errors import UserError
from tui_llm.common.foreign_files import read_json
from tui_llm.tour.learner_name import MOST, checked
from tui_llm.tour.step import Lesson
from tui_llm.tour.tour import MOST_PROGRESS, Tour, learners_dir

MOST_LEARNERS = 500  # rows of the page; progress files beyond are not read
REFRESH = 3  # seconds

PAGE = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">{head}
<title>{title}</title><style>
body {{ background: #0c181f; color: #e8eef1; font: 16px/1.5 system-ui, sans-serif; margin: 2rem; }}
a {{ color: #7fc8ff; }} table {{ border-collapse: collapse; }} th, td {{ text-align: left; padding: .3rem 1rem .3rem 0; border-bottom: 1px solid #33444d; }}
td.n {{ text-align: right; }} input, button {{ font: inherit; padding: .3rem .6rem; }} .wrong {{ color: #ffb36b; }} .away {{ color: #9fb0b8; }}
</style></head><body><h1>{title}</h1>
{body}
</body></html>"""


@dataclass(frozen=True, slots=True)
class LearnerRow:
    """A learner's line on the teacher's page. `age` is the time since the last change, in seconds; None: not started."""

    name: str
    open: bool
    where: str
    done: int
    age: float | None


@dataclass(slots=True)
class Classroom:
    """The open tabs of a lesson. `close` of a name ends its tab."""

    lesson: Lesson
    most_tabs: int
    tabs: dict[str, Callable[[], object]] = field(default_factory=dict)

    @property
    def parts(self) -> int:
        return sum(len(step.parts) for step in self.lesson.steps)

    def is_open(self, name: str) -> bool:
        return any(one.casefold() == name.casefold() for one in list(self.tabs))

    @property
    def full(self) -> bool:
        return len(self.tabs) >= self.most_tabs

    def enter(self, name: str, close: Callable[[], object]) -> list[Callable[[], object]]:
        """Notes an open tab. Returns what ends the older tabs of that name."""
        older = [one for one in self.tabs if one.casefold() == name.casefold()]
        ends = [self.tabs.pop(one) for one in older]
        self.tabs[name] = close
        return ends

    def leave(self, name: str, close: Callable[[], object]) -> None:
        if self.tabs.get(name) == close:
            del self.tabs[name]

    # ── the teacher's page ───────────────────────────────────────────────────────────────────────────────────────

    def rows(self, now: float | None = None) -> list[LearnerRow]:
        """The learners whose tabs are open, or who were here before: those who are, first; then by name."""
        now = time.time() if now is None else now
        names = {name.casefold(): name for name in [*self._kept(), *self.tabs]}
        found = [self._row(name, now) for name in names.values()]
        return sorted(found, key=lambda row: (not row.open, row.name.casefold()))

    def _row(self, name: str, now: float) -> LearnerRow:
        tour = Tour(self.lesson, name)
        tour.load()
        try:
            age = max(0.0, now - tour.path.stat().st_mtime)
        except OSError:
            age = None
        if tour.finished:
            where = "has finished"
        else:
            step = tour.steps[tour.step]
            where = f"step {tour.step + 1} of {len(tour.steps)}, {step.title} ({tour.part + 1} of {len(step.parts)})"
        return LearnerRow(name, self.is_open(name), where, len(tour.done), age)

    def _kept(self) -> Iterable[str]:
        """The names in the progress files. A damaged file, or one with a name that is not its own, is left out."""
        folder = learners_dir(self.lesson.name)
        try:
            files = sorted(folder.glob("*.json"))[:MOST_LEARNERS]
        except OSError:
            return
        for file in files:
            try:
                name = checked(read_json(file, MOST_PROGRESS)["learner"])
            except (UserError, KeyError, TypeError, AttributeError):
                continue
            if Tour(self.lesson, name).path == file:
                yield name

    def teachers_page(self) -> str:
        rows = self.rows()
        lines = [
            f"<tr{'' if row.open else ' class=away'}><td>{_shown(row.name)}</td><td>{'open' if row.open else 'closed'}</td>"
            f"<td>{_shown(row.where)}</td><td class=n>{row.done} of {self.parts}</td><td>{_age(row.age)}</td></tr>"
            for row in rows
        ]
        head = "<tr><th>name</th><th>tab</th><th>is at</th><th>parts done</th><th>last change</th></tr>"
        here = sum(row.open for row in rows)
        body = f"<p>{here} of at most {self.most_tabs} tabs open. This page updates itself.</p><table>{head}{''.join(lines)}</table>"
        if not rows:
            body += "<p>Nobody has opened the lesson yet.</p>"
        return PAGE.format(
            head=f'<meta http-equiv="refresh" content="{REFRESH}">', title=_shown(self.lesson.title), body=body
        )

    # ── the page that asks for a name ────────────────────────────────────────────────────────────────────────────

    def name_page(self, wrong: str = "", name: str = "", taken: bool = False) -> str:
        """`taken`: a tab with this name is open; it may be the learner's own."""
        said = f"<p class=wrong>{_shown(wrong)}</p>" if wrong else ""
        mine = (
            "<p><label><input type=checkbox name=mine value=1> That is me: close my other tab.</label></p>"
            if taken
            else ""
        )
        body = (
            f"<p>{_shown(self.lesson.about)}</p>{said}<form method=get action=/><p><label>Your name "
            f'<input name=name value="{_shown(name[:MOST])}" maxlength={MOST} autofocus required autocomplete=off></label> '
            f"<button>Begin</button></p>{mine}</form><p>Your teacher sees this name, and at which step you are.</p>"
        )
        return PAGE.format(head="", title=_shown(self.lesson.title), body=body)


def _shown(text: str) -> str:
    return escape(visible(text))


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "not yet"
    if seconds < 60:
        return "less than a minute ago"
    minutes = int(seconds // 60)
    return f"{minutes} min ago" if minutes < 120 else f"{minutes // 60} h ago"
