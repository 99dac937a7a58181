"""`tui-llm ladder`: from GPT-2's recipe to today's, one run a rung, at one budget."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import CORPUS, device_option, force_option, json_option, number, whole
from tui_llm.commands.shared.output import out_path, put, put_json
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from tui_llm.training.plan.ladder import Ladder
    from tui_llm.training.plan.ladder_results import LadderResults
    from tui_llm.training.run.run import Run

NAME, PRESET = "ladder", "small"
WIDE = 120  # columns of a terminal for all columns of the table


def add(commands: Commands) -> None:
    commands.add(
        "ladder",
        "what each idea since GPT-2 buys: one run a rung, at one budget",
        climb_ladder,
        _add_options,
        more="Trains one run a rung: GPT-2's recipe with AdamW, then each idea on top of those before it. Prints a table of loss, tokens and "
        "time, and what each rung needs to the first rung's final loss. The runs are in the list of runs, as NAME-0-gpt2. A ladder that "
        "was stopped or killed goes on with the same command, or with --name alone; finished rungs are skipped. Ctrl+C saves and ends.",
        examples=(
            "tui-llm ladder stories --steps 300",
            "tui-llm ladder book.txt --minutes 5 --name book --out book.svg",
            "tui-llm ladder --name book",
            "tui-llm ladder --name book --show --target 4.5 --by time --out time.svg",
            "tui-llm ladder --name book --delete",
            "tui-llm ladder --list",
        ),
    )


def _add_options(parser: Parser) -> None:
    parser.add_argument("corpus", nargs="*", metavar="CORPUS", help=CORPUS)
    parser.add_argument("--name", default=NAME, metavar="NAME", help=f"the ladder's name, and the beginning of its runs' names (default {NAME})")  # fmt: skip
    parser.add_argument("--steps", type=whole, metavar="N", help="budget of each rung: optimizer steps")
    parser.add_argument("--minutes", type=number, metavar="M", help="budget of each rung: minutes of training, by a few measured steps of it")  # fmt: skip
    parser.add_argument("--flops", type=number, metavar="F", help="budget of each rung: floating-point operations, such as 1e14")  # fmt: skip
    parser.add_argument("--rungs", metavar="A,B", help="only these rungs, with commas between them (--list names them)")
    parser.add_argument("--preset", metavar="P", help=f"settings of all rungs, as of `train` (default {PRESET})")
    parser.add_argument("--set", action="append", metavar="NAME=VALUE", help="another setting of all rungs, as of `train`: --set width=64; can be given several times")  # fmt: skip
    device_option(parser, default=None)
    parser.add_argument("--target", type=number, metavar="LOSS", help="compare tokens and time at this validation loss, in nats per token (default: the first rung's last)")  # fmt: skip
    parser.add_argument("--out", metavar="FILE", help="write all curves to FILE.svg, .png or .csv")
    parser.add_argument("--by", choices=("step", "tokens", "time", "flops"), help="with --out: the chart's x axis; time in seconds of the steps (default tokens)")  # fmt: skip
    force_option(parser)
    parser.add_argument("--show", action="store_true", help="only show what the ladder has reached")
    parser.add_argument("--list", action="store_true", help="only list the rungs: what each does, and its source")
    parser.add_argument("--detach", action="store_true", help="return at once; the ladder continues in the background")
    parser.add_argument("--delete", action="store_true", help="delete the ladder with all its runs and their checkpoints; asks first")  # fmt: skip
    parser.add_argument("--yes", action="store_true", help="with --delete: don't ask")
    json_option(parser)


def climb_ladder(options: argparse.Namespace) -> int:
    from tui_llm.training.plan import climb, ladder_results
    from tui_llm.training.plan import ladder as ladders

    _check_options(options)
    if options.list:
        _list(as_json=options.json)
        return 0
    if options.delete:
        _delete(options)
        return 0
    ladder = _ladder(options)
    path = _chart_path(options, ladder)
    if options.show:
        _show(ladder_results.read(ladder, options.target), options, path)
        return 0
    if options.detach:
        climb.detach(ladder)
        if options.json:
            put_json({"ladder": ladder.name, "runs": [ladder.run(at).name for at in range(len(ladder.rungs))]})
        else:
            put(f"ladder {ladder.name} continues in the background: tui-llm ladder --name {ladder.name} --show")
        return 0
    ladders.keep(ladder)
    status = _climb(ladder, quiet=options.json)
    if status == 130:
        return status
    _show(ladder_results.read(ladder, options.target), options, path)
    return status


def _check_options(options: argparse.Namespace) -> None:
    """Raises `UserError` for options that have no effect together."""
    ways = [name for name in ("list", "show", "detach", "delete") if getattr(options, name)]
    if len(ways) > 1:
        raise UserError(f"--{ways[0]} and --{ways[1]} are two things to do; give one of them")
    results = [name for name in ("target", "out") if getattr(options, name) is not None]
    if results and ways not in ([], ["show"]):
        raise UserError(f"--{results[0]} is for the results, which --{ways[0]} does not print; give it with --show")
    if options.by is not None and options.out is None:
        raise UserError("--by is the x axis of a chart; name its file: --out FILE.svg")
    if options.yes and not options.delete:
        raise UserError("--yes answers what --delete asks; give both, or neither")
    if options.target is not None and not 0 < options.target < 1e6:
        raise UserError(f"--target is {options.target:g}; give a loss above 0, in nats per token")
    if ways in (["list"], ["delete"]) and _described(options):
        raise UserError(f"--{ways[0]} takes no text, budget or settings; leave them out")


def _described(options: argparse.Namespace) -> bool:
    """Whether the options describe a ladder, and don't only name one."""
    names = ("corpus", "steps", "minutes", "flops", "rungs", "preset", "set", "device")
    return any(getattr(options, name) not in (None, []) for name in names)


def _delete(options: argparse.Namespace) -> None:
    """Asks on a terminal; without one, only --yes deletes."""
    import sys

    from tui_llm.common.numbers import counted, file_size
    from tui_llm.training.plan import ladder as ladders

    name = options.name
    try:
        runs = ladders.runs_of(ladders.find(name))
    except ladders.DamagedLadder:
        runs = []
    what = (
        f"ladder {name} and its {counted(len(runs), 'run')} with all checkpoints"
        if runs
        else f"ladder {name}, which has no runs"
    )
    if not options.yes:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UserError(f"this deletes {what}; add --yes to confirm")
        size = file_size(sum(run.size() for run in runs))
        print(f"Delete {what}, {size}? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise UserError(f"ladder {name} is not deleted")
    count = ladders.delete(name)
    if options.json:
        put_json({"ladder": name, "deleted": True, "runs": [run.name for run in runs]})
    else:
        put(f"ladder {name} is deleted, and {counted(count, 'run')}")


def _climb(ladder: Ladder, *, quiet: bool) -> int:
    from tui_llm.common.display import visible
    from tui_llm.training.plan import climb, ladder_rungs
    from tui_llm.training.plan.follow import follow

    def begin(at: int, run: Run) -> None:
        if not quiet:
            rung = ladder_rungs.find(ladder.rungs[at])
            put(f"rung {at + 1} of {len(ladder.rungs)}, {rung.name} (run {visible(run.name)}): {rung.sentence}")

    def measure(at: int) -> None:
        if not quiet:
            put(f"rung {at + 1} of {len(ladder.rungs)}, {ladder.rungs[at]}: timing some steps of it …")

    return climb.climb(ladder, begin, lambda run: follow(run, quiet=quiet), measure)


def _chart_path(options: argparse.Namespace, ladder: Ladder) -> Path | None:
    if options.out is None:
        return None
    from tui_llm.training.run import curve_charts

    path = out_path(options.out, "--out")
    curve_charts.check_export(path, force=options.force, inputs=_inputs(ladder))
    return path


def _inputs(ladder: Ladder) -> list[Path]:
    """What a chart must not replace."""
    from contextlib import suppress
    from pathlib import Path

    from tui_llm.llm.data import texts
    from tui_llm.training.plan.ladder import path_of

    found = [path_of(ladder.name), *(ladder.run(at).path for at in range(len(ladder.rungs)))]
    for place in filter(Path.exists, map(Path, ladder.corpus)):
        with suppress(UserError):  # the texts of an old ladder may be gone
            found += texts.files([place])
    return found


def _ladder(options: argparse.Namespace) -> Ladder:
    """The ladder that the options name or describe. Raises `UserError`."""
    from tui_llm.llm.data import corpora
    from tui_llm.training.plan import ladder as ladders
    from tui_llm.training.plan import ladder_rungs, ladder_text

    budgets = {unit: value for unit in ladders.UNITS if (value := getattr(options, unit)) is not None}
    described = _described(options)
    if options.show or not described:
        if described:
            raise UserError("--show shows a ladder that was started: give --name alone")
        return ladders.find(options.name)
    if len(budgets) != 1:
        raise UserError("give one budget for each rung: --steps N, --minutes M or --flops F")
    ((unit, amount),) = budgets.items()
    given = {}
    for part in options.set or ():
        name, equals, value = part.partition("=")
        if not equals:
            raise UserError(f"--set is {part[:60]!r}; give NAME=VALUE, such as width=64")
        given[name.strip().replace("-", "_")] = value.strip()
    made = ladders.Ladder(
        options.name,
        tuple(map(corpora.place, options.corpus)),
        options.preset or PRESET,
        unit,
        float(amount),
        ladder_rungs.DEFAULT if options.rungs is None else ladder_text.parse_rungs(options.rungs),
        ladder_text.shared_settings(given),
        options.device or "auto",
    )
    ladders.check(made)
    return made


def _show(results: LadderResults, options: argparse.Namespace, path: Path | None) -> None:
    import shutil
    import sys

    from tui_llm.common.display import visible
    from tui_llm.facts import report
    from tui_llm.training.plan import ladder as ladders
    from tui_llm.training.plan import ladder_results
    from tui_llm.training.run import curve_charts

    maker = ""
    if path is not None:
        maker = curve_charts.export(
            ladder_results.chart(results, options.by or "tokens"),
            path,
            force=options.force,
            inputs=_inputs(results.ladder),
        )
    if options.json:
        put_json({
            "ladder": results.ladder.name, "asked": ladders.as_json(results.ladder), "target": results.target,
            "rungs": ladder_results.as_json(results), "chart": None if path is None else str(path), "converter": maker or None,
        })  # fmt: skip
        return
    rows = ladder_results.table(results)
    if sys.stdout.isatty() and shutil.get_terminal_size().columns < WIDE:
        rows = [tuple(row[at] for at in ladder_results.NARROW) for row in rows]
    head, *cells = [[visible(cell) for cell in row] for row in rows]
    put(report.table(head, cells, left=(0, 1)))
    for one in results.rungs:
        if one.state in ("failed", "died"):
            put(f"{one.run} {one.state}: {visible(one.message)}")
    if results.rungs[0].state and any(one.state != "finished" for one in results.rungs) and not options.show:
        put(f"go on with it: tui-llm ladder --name {results.ladder.name}")
    put("loss: held out, nats per token; time: of the steps, without evaluations")
    if results.target is not None:
        whose = "" if options.target is not None else f", {results.targets_run}"
        put(f"×: needed to loss {results.target:.4f}{whose}, as a multiple of what the first rung needs")
    if path is not None:
        put(f"chart written to {visible(str(path))}{f' ({maker})' if maker else ''}")


def _list(*, as_json: bool) -> None:
    from tui_llm.training.plan import ladder_rungs

    if as_json:
        put_json({
            "rungs": [{"rung": one.name, "does": one.sentence, "source": one.source, "default": one.name in ladder_rungs.DEFAULT}
                      for one in ladder_rungs.RUNGS]
        })  # fmt: skip
        return
    for one in ladder_rungs.RUNGS:
        put(f"{one.name}{'' if one.name in ladder_rungs.DEFAULT else ' (only with --rungs)'}")
        put(f"    {one.sentence}")
        put(f"    {one.source}")
