"""`tui-llm ablate`: the target's loss and logit with parts of the model switched off, together or each alone."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.inside import model_json, model_text, note_context, part_json
from tui_llm.commands.shared.options import MODEL, json_option, prompt_argument, prompt_options
from tui_llm.commands.shared.output import put, put_json
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.facts.interventions import ModelPart
    from tui_llm.instruments.ablate.question import Ablation, Effects, TargetValues


def add(commands: Commands) -> None:
    commands.add(
        "ablate",
        "switch heads, MLPs or layers off: the target's loss and logit before and after",
        ablate,
        _add_options,
        more="Heads, MLPs and layers are numbered from 0: 0.3 is head 3 of layer 0. Their values become zero or, with --mean, their "
        "mean over the text; with --from, their values after another prompt, aligned from the end. --rank gives the effect of each "
        f"part alone. {MODEL}",
        examples=(
            'tui-llm ablate "Once upon a time, there was a little" --heads 0.3,1.2 --mlps 0',
            'tui-llm ablate "The cat sat on the" --target " mat" --rank --json',
        ),
    )


def _add_options(parser: Parser) -> None:
    prompt_argument(parser)
    prompt_options(parser)
    parser.add_argument("--heads", default="", metavar="L.H,…", help="heads, as in 0.3,1.2")
    parser.add_argument("--mlps", default="", metavar="L,…", help="MLPs of these layers")
    parser.add_argument("--attention", default="", metavar="L,…", help="attention of these layers, all heads")
    parser.add_argument("--layers", default="", metavar="L,…", help="attention and MLP of these layers")
    parser.add_argument("--tokens", default="", metavar="N,…", help="attention to these tokens of the text, from 0")
    parser.add_argument("--mean", action="store_true", help="replace by the mean over the text, not by zero")
    parser.add_argument("--from", dest="other", metavar="PROMPT2", help="replace by the values after PROMPT2")
    parser.add_argument("--rank", action="store_true", help="the effect of each part alone, of all parts")
    parser.add_argument(
        "--target",
        metavar="TEXT",
        help="whose loss to measure, as in ' mat' (default: the likeliest token of the unchanged model)",
    )
    json_option(parser)


def ablate(options: argparse.Namespace) -> None:
    from tui_llm.commands.shared import spaces
    from tui_llm.commands.shared.engine import engine_of, request_of, target_of
    from tui_llm.instruments.ablate.changes import effects_of_all, interventions_of
    from tui_llm.instruments.ablate.question import AblateQuestion

    parts = _parts(options)
    if not (parts or options.rank):
        raise UserError("name what to switch off: --heads 0.3, --mlps 0, --attention, --layers or --tokens; or --rank")
    if options.rank and parts:
        raise UserError(
            "--rank takes all parts, each alone: leave --heads, --mlps, --attention, --layers, --tokens out"
        )
    if options.mean and options.other is not None:
        raise UserError("--mean and --from exclude each other")
    engine = engine_of(options)
    request = request_of(options, target=target_of(options.target))
    if options.rank:
        found = effects_of_all(engine.answer, request, engine.weights(), mean=options.mean, other=options.other)
        put_json(_effects_json(found)) if options.json else put(_effects_text(found))
    else:
        changes = interventions_of(engine.answer, request, parts, mean=options.mean, other=options.other)
        made = engine.answer(AblateQuestion(request, changes))
        put_json(_ablation_json(made)) if options.json else put(_ablation_text(made))
    note_context(engine, request)
    spaces.note_target(engine, request)


def _parts(options: argparse.Namespace) -> list[ModelPart]:
    from tui_llm.facts.interventions import parse_parts

    return parse_parts(options.heads, options.attention, options.mlps, options.layers, options.tokens)


# ── printing ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _values_json(values: TargetValues) -> dict[str, Any]:
    return {
        "logit": values.logit,
        "loss": values.loss,
        "probability": values.probability,
        "rank": values.rank,
    }


def _head_json(found: Ablation | Effects) -> dict[str, Any]:
    from tui_llm.facts import report

    return {
        **model_json(found.weights),
        "target": [report.token_json(token) for token in found.target],
        "target_is": found.chosen,
    }


def _ablation_json(found: Ablation) -> dict[str, Any]:
    return {
        **_head_json(found),
        "interventions": [one.name for one in found.interventions],
        "before": _values_json(found.before),
        "after": _values_json(found.after),
    }


def _effects_json(found: Effects) -> dict[str, Any]:
    return {
        **_head_json(found),
        "before": _values_json(found.before),
        "parts": [
            {**part_json(one.part), **_values_json(one.values), "loss_change": one.values.loss - found.before.loss}
            for one in found.ranked()
        ],
    }


def _title(found: Ablation | Effects) -> str:
    from tui_llm.commands.lens import CHOSEN
    from tui_llm.common.display import token_label

    target = token_label("".join(token.text for token in found.target))
    return f"{model_text(found.weights)}: target {target}{CHOSEN[found.chosen]}"


def _cells(values: TargetValues) -> tuple[str, ...]:
    from tui_llm.common import numbers

    return f"{values.logit:.4f}", f"{values.loss:.4f}", numbers.percent(values.probability), f"{values.rank:,}"


COLUMNS = ("logit", "loss", "p", "rank")


def _ablation_text(found: Ablation) -> str:
    from tui_llm.common.display import visible
    from tui_llm.common.numbers import printed_change
    from tui_llm.facts import report
    from tui_llm.facts.interventions import named

    before, after = found.before, found.after
    change = (printed_change(before.logit, after.logit), printed_change(before.loss, after.loss), "", "")
    rows = [("as it is", *_cells(before)), ("changed", *_cells(after)), ("difference", *change)]
    return "\n".join(
        [
            f"{_title(found)}; {visible(named(found.interventions))}",
            report.table(("model", *COLUMNS), rows, left=(0,)),
            "loss: nats, the mean over the target's tokens; logit, p and rank: its first token's",
        ]
    )


def _effects_text(found: Effects) -> str:
    from tui_llm.common.numbers import printed_change
    from tui_llm.facts import report

    base = found.before
    rows = [("all parts on", *_cells(base), "")]
    rows += [(one.part.name, *_cells(one.values), printed_change(base.loss, one.values.loss)) for one in found.ranked()]
    return "\n".join(
        [
            f"{_title(found)}; each part alone changed, largest rise of the loss first",
            report.table(("part", *COLUMNS, "loss change"), rows, left=(0,)),
            "loss: nats, the mean over the target's tokens; logit, p and rank: its first token's",
        ]
    )
