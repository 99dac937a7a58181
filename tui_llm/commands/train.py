"""`tui-llm train`: start, resume or estimate a training run."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.branch import branch_options, branch_run, check_options
from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import CORPUS, PIN, device_option, json_option, whole
from tui_llm.commands.shared.output import put, put_json
from tui_llm.commands.shared.run_cost import show_cost
from tui_llm.commands.shared.training_text import check_files, check_text
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.facts.pin import Pin
    from tui_llm.llm.model.shape import GPTConfig
    from tui_llm.training.run.run import Run
    from tui_llm.training.run.settings import TrainingSettings

PRESET = "small"


def add(commands: Commands) -> None:
    commands.add(
        "train",
        "train a model on text, in a separate process",
        train,
        _add_options,
        more="Makes a run and trains it in a separate process, which continues after the terminal is closed. Prints progress until it is "
        "done; Ctrl+C asks it to save and end, a second Ctrl+C leaves it running. With --cost nothing is trained. A resumed run and a branch keep the "
        "settings that are not given.",
        examples=(
            "tui-llm train book.txt --run first --preset toy --steps 60",
            "tui-llm train stories --preset small --detach --run tales",
            "tui-llm train book.txt --minutes 5 --run five",
            "tui-llm train --preset shakespeare --run bard",
            "tui-llm train --resume --run first",
            "tui-llm train --branch first --step 40 --learning-rate 1e-3",
            "tui-llm train stories --preset small --cost --measure",
            "tui-llm train stories --preset small --arch rope,rmsnorm,relu2 --run today",
            "tui-llm train pairs.tsv --from nano --instruct --run tim",
            "tui-llm train pairs.jsonl --from tim --preference --run liked",
            "tui-llm train --from nano --reward contains:happy --run glad",
        ),
    )


def _add_options(parser: Parser) -> None:
    from tui_llm.training.run.pins import LONGEST, MOST

    parser.add_argument("corpus", nargs="*", metavar="CORPUS", help=CORPUS)
    parser.add_argument("--run", metavar="NAME", help="the run's name")
    settings_options(parser)
    device_option(parser, default=None)
    parser.add_argument("--tensorboard", action="store_true", help="also write TensorBoard's event files into the run's folder")  # fmt: skip
    parser.add_argument("--nproc", type=whole, metavar="N", help="set the number of worker processes that share each batch, one GPU each (default 1; a resumed run keeps its number)")  # fmt: skip
    parser.add_argument("--shard", action=argparse.BooleanOptionalAction, help="with several processes: shard weights and optimizer state between them, for models that don't fit (FSDP)")  # fmt: skip
    parser.add_argument("--no-start", action="store_true", help="only make the run and print its folder, to start it with torchrun yourself")  # fmt: skip
    parser.add_argument("--detach", action="store_true", help="return at once; the run continues in the background")
    parser.add_argument("--resume", action="store_true", help="continue from the run's last checkpoint")
    branch_options(parser)
    parser.add_argument("--pin", action="append", metavar="PIN", help=f"read this at every evaluation: {PIN}; can be given several times, at most {MOST} pins of {LONGEST:,} characters")  # fmt: skip
    parser.add_argument("--cost", action="store_true", help="only print what it would cost: parameters, memory, tokens, operations")  # fmt: skip
    parser.add_argument("--measure", action="store_true", help="with --cost: also begin the run for some seconds, and print the time of all of it with a band")  # fmt: skip
    json_option(parser)


def settings_options(parser: Parser, *, text_only: bool = False) -> None:
    """An option for each field of `TrainingSettings`, which says what it means, and the preset that gives the defaults; with
    `text_only`, for those of runs on text."""
    from tui_llm.llm.model import switches
    from tui_llm.training.run.settings import PRESETS, PRETRAINING, RENAMED, SETTINGS

    parser.add_argument("--preset", metavar="P", help=f"{_or(PRESETS)} (default {PRESET})")
    parser.add_argument("--from", dest="from_model", metavar="M", help=f"{SETTINGS['from_model'].help}: a shipped model, a run, or a model folder")  # fmt: skip
    parser.add_argument("--minutes", metavar="M", help=f"{SETTINGS['minutes'].help}. Measuring and evaluations count; without --preset and --from it picks what is best in that time on this machine: model, vocabulary, schedule")  # fmt: skip
    if not text_only:
        from tui_llm.llm.data.instruction_pairs import MOST

        parser.add_argument("--instruct", action="store_true", help=f"fine-tune the model named by --from on at most {MOST} question–answer pairs (CORPUS: a .jsonl or .tsv), with the loss on the answers only, in this process; --run names the new model")  # fmt: skip
        parser.add_argument("--preference", action="store_true", help="learn preferences instead of text, from the model named by --from (DPO); CORPUS is a .jsonl with lines of prompt, chosen, rejected")  # fmt: skip
        parser.add_argument("--reward", metavar="SPEC", help=f"learn a reward instead of text, from the model named by --from (policy gradient): SPEC {SETTINGS['reward'].help}; CORPUS is a file of prompts, one a line (default: --sample-prompt)")  # fmt: skip
    parser.add_argument("--arch", metavar="LIST", help=f"architecture {SETTINGS['arch'].help} ({switches.SETS[switches.MODERN]}), or {switches.GPT2} (none); of {switches.NAMED}; help prints what each does and needs (default: the preset's)")  # fmt: skip
    for name, setting in SETTINGS.items():
        if text_only and (name == "objective" or (setting.objectives and PRETRAINING not in setting.objectives)):
            continue
        if name not in ("from_model", "minutes", "reward", "arch"):
            choices = f"{_or(setting.choices)}; " if setting.choices else ""
            learns = " and ".join(f"--{name}" for name in setting.objectives if name != PRETRAINING)
            about = f"{f'with {learns}: ' if learns else ''}{choices}{setting.help}"
            about += "" if learns else f" (default: {_default(name, text_only=text_only)})"
            parser.add_argument(f"--{name.replace('_', '-')}", metavar=setting.metavar, help=about)
    for name, now in RENAMED.items():
        parser.add_argument(f"--{name}", dest=now, help=argparse.SUPPRESS)


def _default(name: str, *, text_only: bool) -> str:
    """What a setting is that is not given: the rules of `fields.adapted`."""
    from tui_llm.training.run.settings import MOST_WARM_UP, OBJECTIVE_DEFAULTS

    words = "the preset's"
    if name in MOST_WARM_UP:
        words += f", at most 1/{MOST_WARM_UP[name]} of the steps"
    if name == "momentum_warmup_steps":
        words += "; 0 with another optimizer than the preset's"
    objectives: dict[str, list[str]] = {}  # value → the options that bring it
    if not text_only:
        for objective, defaults in OBJECTIVE_DEFAULTS.items():
            if name in defaults:
                value = defaults[name]
                objectives.setdefault(f"{value:g}" if isinstance(value, float) else str(value), []).append(f"--{objective}")  # fmt: skip
    return "; ".join([words, *(f"{value} with {_or(options)}" for value, options in objectives.items())])


def _or(names: Collection[str]) -> str:
    """`a, b or c`."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def train(options: argparse.Namespace) -> int:
    from tui_llm.commands.shared import budget, spaces
    from tui_llm.llm.hub.lookup import find as find_model
    from tui_llm.training.plan import launch, start
    from tui_llm.training.run import pins
    from tui_llm.training.run.run import find
    from tui_llm.training.run.settings import SETTINGS, from_fields

    if options.arch == "help":
        return explain_switches(options)
    if options.instruct:
        from tui_llm.commands.shared.instruct import instruct

        return instruct(options)
    given = {name: value for name in SETTINGS if (value := getattr(options, name, None)) is not None}
    given |= _objective(options)
    if options.measure:
        options.cost = True
    check_options(options)
    if options.cost and not options.resume:
        name, settings, shape = _settings(options, given)
        folder = find_model(settings.from_model).folder if settings.from_model else None
        if not settings.minutes:
            show_cost(settings, shape, options, options.corpus, folder, name)
            return 0
        plan = budget.plan_run(options, given, name, settings, shape)
        show_cost(plan.settings, plan.picked.shape, options, options.corpus, folder, name, plan)
        return 0
    if options.run is None and options.branch is None:
        raise UserError(_name_it(options))
    pinned = list(map(pins.parse, options.pin or ()))
    if options.tensorboard:
        from tui_llm.training.plan import extras

        extras.check_tensorboard()
    if options.resume:
        run = find(options.run)
        if options.cost:
            settings = from_fields(given, run.config().settings)
            start_folder = run.path / start.FOLDER if settings.from_model else None
            config = run.config()
            show_cost(settings, _shape(settings, run), options, config.corpus, start_folder, config.preset)
            return 0
        _prepare_resume(run, options, given)
        pins.change(run.pins_path, pinned)
        if options.tensorboard and not run.config().tensorboard:
            launch.enable_tensorboard(run)
    else:
        run = _new_run(options, given, pinned) if options.branch is None else branch_run(options, given, pinned)
    if options.no_start:
        put_json({"run": run.name, "path": str(run.path)}) if options.json else put(str(run.path))
    else:
        launch.start(run)
        if options.detach:
            _report_detached(run, options)
    spaces.note_pins(pinned)  # once nothing can fail: an error is one line
    if options.no_start or options.detach:
        return 0
    return _follow(run, options)


def _follow(run: Run, options: argparse.Namespace) -> int:
    """Follows the run to its end, then prints the commands that go on from there."""
    from tui_llm.common.display import visible
    from tui_llm.llm.hub.lookup import name_of_run
    from tui_llm.training.plan.follow import follow

    code = follow(run, as_json=options.json)
    if code or options.json:
        return code
    if run.status().state != "finished":
        put(f"continue it: tui-llm train --resume --run {visible(run.name)}")
    if run.checkpoints():
        model = visible(name_of_run(run.name))
        put(f"open it: tui-llm --model {model}")
        samples = run.samples()
        prompt = samples[-1].prompt if samples else run.config().settings.sample_prompt
        if prompt.strip() and prompt == visible(prompt) and not prompt.startswith("-"):
            put(f"let it write: tui-llm generate --model {model} {shlex.quote(prompt)}")
    return code


def explain_switches(options: argparse.Namespace) -> int:
    """Prints the table of architecture switches."""
    from tui_llm.llm.model import switches

    if options.json:
        put_json([one._asdict() | {"needs": switches.needs(one.name)} for one in switches.SWITCHES])
    else:
        put("\n".join(switches.lines()))
    return 0


def _objective(options: argparse.Namespace) -> dict[str, str]:
    """The objective among the given settings, if an option names it. Raises `UserError` where two do."""
    from tui_llm.training.run.settings import PREFERENCE, REWARD

    shorthand = PREFERENCE if options.preference else None if options.reward is None else REWARD
    both = options.preference and options.reward is not None
    if both or (shorthand and options.objective not in (None, shorthand)):
        named = "--preference and --reward" if both else f"--{shorthand} and --objective {options.objective}"
        raise UserError(f"{named} are two objectives; give one of them")
    objective = options.objective or shorthand
    if objective == PREFERENCE and not options.corpus and not options.resume:
        raise UserError('--preference needs a file of pairs: a .jsonl with lines of {"prompt": …, "chosen": …, "rejected": …}')  # fmt: skip
    return {"objective": objective} if objective else {}


def _name_it(options: argparse.Namespace) -> str:
    """What to do without --run: with a name that is free."""
    from tui_llm.training.run.run import free_name

    if options.resume:
        return "name the run to continue: --run NAME; `tui-llm runs` lists them"
    corpus = options.corpus[0] if options.corpus else ""
    return f"name the run, for example: --run {free_name(corpus, options.preset or PRESET)}"


def _report_detached(run: Run, options: argparse.Namespace) -> None:
    """Waits until the worker holds the run. Raises `UserError` where it fails to start."""
    from tui_llm.training.plan import launch

    held = launch.wait_until_held(run)
    status = run.status()
    if status.state in ("failed", "died"):
        raise UserError(f"run {run.name} {status.state}: {status.message}")
    if options.json:
        put_json({"run": run.name, "path": str(run.path), "state": status.state, "alive": held})
    else:
        put(f"run {run.name} continues in the background: `tui-llm runs` shows it, `tui-llm stop {run.name}` stops it")


def _settings(options: argparse.Namespace, given: dict[str, Any]) -> tuple[str, TrainingSettings, GPTConfig]:
    """The preset's name, a new run's settings, its model's shape."""
    from tui_llm.commands.shared import budget
    from tui_llm.training.plan.budget import start_preset
    from tui_llm.training.plan.fields import resolve_settings
    from tui_llm.training.run.promises import usual_corpus
    from tui_llm.training.run.settings import preset

    name = budget.preset_name(options, given, PRESET)
    preset(name)
    if not options.corpus and usual_corpus(name):
        options.corpus = [usual_corpus(name)]
    settings, shape, found = resolve_settings(given, start_preset(name, given), options.corpus)
    check_files(settings, options.corpus)
    if found:
        from tui_llm.llm.hub.hub import load_trained

        load_trained(found.folder, rows=shape.vocabulary)  # so that an error shows here, not in the worker's log
    return name, settings, shape


def _shape(settings: TrainingSettings, run: Run | None = None) -> GPTConfig:
    """The shape of a model with these settings; of `run`'s own where it started from a model."""
    from tui_llm.llm.hub.lookup import size_of_vocabulary, vocabulary_size
    from tui_llm.training.plan import cost, start
    from tui_llm.training.run.run import VOCABULARY

    if run and settings.from_model:
        from tui_llm.llm.model.model_config import read_config

        return read_config(run.path / start.FOLDER)
    if run and (run.path / VOCABULARY).is_dir():
        return cost.shape(settings, size_of_vocabulary(run.path / VOCABULARY))
    return cost.shape(settings, vocabulary_size(settings.tokenizer))


def _new_run(options: argparse.Namespace, given: dict[str, Any], pinned: list[Pin]) -> Run:
    from tui_llm.commands.shared import budget
    from tui_llm.llm.hub import lookup
    from tui_llm.training.plan import answers, launch
    from tui_llm.training.plan.cost import BESIDE, TENSORS, cost
    from tui_llm.training.run.promises import promise_of
    from tui_llm.training.run.settings import PRETRAINING

    name, settings, shape = _settings(options, given)
    if options.shard and options.nproc in (None, 1) and not options.no_start:
        raise UserError("--shard splits the model between processes; give their number: --nproc N")
    model = lookup.find(settings.from_model).folder if settings.from_model else None
    if settings.objective == PRETRAINING:
        check_text(settings, options.corpus, model)
    rows = answers.rows(settings, options.corpus, model)
    plan = budget.plan_run(options, given, name, settings, shape) if settings.minutes else None
    if plan is not None:
        settings, shape = plan.settings, plan.picked.shape
    run = launch.create(
        options.run,
        options.corpus,
        settings,
        preset=name,
        device=options.device or "auto",
        model=model,
        pinned=pinned,
        tensorboard=options.tensorboard,
        nproc=1 if options.nproc is None else options.nproc,
        shard=bool(options.shard),
        rows=rows,
    )
    if plan is not None:
        plan.begin(run)
    if plan is not None and not options.json:
        budget.show_plan(plan, name)
    elif not options.json and not options.no_start:
        from tui_llm.common.numbers import memory_size

        found = cost(settings, shape)
        put(
            f"{found.parameters:,} parameters, {found.most}{found.tokens:,} tokens, {found.most}{found.flops:.2e} operations, about "
            f"{memory_size(found.memory_bytes)} of memory for {TENSORS} ({BESIDE})"
        )
        if settings.objective == PRETRAINING and (text := promise_of(name, settings)):
            put(f"to expect: {text}")
    return run


def _prepare_resume(run: Run, options: argparse.Namespace, given: dict[str, Any]) -> None:
    """Applies the options to a run that is resumed. Only the number of steps, a split of the same step into smaller batches, and
    how it is executed can change; any other setting must be as before. Raises `UserError`."""
    from dataclasses import replace
    from pathlib import Path

    from tui_llm.commands.shared import budget
    from tui_llm.common.paths import expand
    from tui_llm.llm.data import corpora
    from tui_llm.training.plan import launch, replay
    from tui_llm.training.plan.branch import OF_THE_MODEL
    from tui_llm.training.run.settings import EXECUTION, from_fields

    launch.check_not_training(run)  # before anything is changed
    budget.extend(run, given)
    config = run.config()
    if "from_model" in given and expand(given["from_model"]).resolve() == Path(config.settings.from_model):
        given = {**given, "from_model": config.settings.from_model}  # another path of the same folder
    asked = from_fields(given, config.settings)
    rows = config.settings.batch_size * config.settings.grad_accumulation_steps
    if "batch_size" in given and "grad_accumulation_steps" not in given and rows % asked.batch_size == 0:
        asked = replace(asked, grad_accumulation_steps=rows // asked.batch_size)
    free = ("steps", "batch_size", "grad_accumulation_steps", *EXECUTION)
    changed = [n for n in given if n not in free and getattr(asked, n) != getattr(config.settings, n)]
    if changed:
        names = ", ".join(n.removesuffix("_model").replace("_", "-") for n in changed)
        impossible = set(changed) & set(OF_THE_MODEL) or replay.problem(config) or run.last_metric() is None
        branch = "" if impossible else f", begin a branch with it (--branch {run.name} --step K)"
        raise UserError(
            f"run {run.name} was started with another {names}; resume it without{branch}, or start a new run"
        )
    if options.preset not in (None, config.preset):
        raise UserError(
            f"run {run.name} was started with the preset {config.preset}; resume it without --preset, or start a new run"
        )
    if options.corpus and tuple(map(corpora.place, options.corpus)) != config.corpus:
        raise UserError(
            f"run {run.name} was started on another corpus; resume it without naming one, or start a new run"
        )
    launch.change_batch_size(run, asked.batch_size, asked.grad_accumulation_steps)
    launch.change_execution(run, given)
    launch.set_processes(run, nproc=options.nproc, shard=options.shard, device=options.device)
    if asked.steps != config.settings.steps:
        launch.set_steps(run, asked.steps)
        if not options.json:
            put(f"{asked.steps:,} steps instead of {config.settings.steps:,}: the learning rate of the remaining steps follows the "
                "schedule for the new number")  # fmt: skip
    if options.no_start:
        launch.forget_requests(run)
