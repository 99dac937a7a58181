"""`tui-llm sft`: supervised fine-tuning of a copy on question–answer pairs, before and after."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import MODEL, force_option, json_option, model_options, number, whole
from tui_llm.commands.shared.output import keep_folder, put, put_json
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.instruments.sft.question import Instructed, SftState


def add(commands: Commands) -> None:
    commands.add(
        "sft",
        "supervised fine-tuning on question–answer pairs, on a copy of the weights: before and after",
        sft,
        _add_options,
        more="The loss is on the answers' tokens only; all pairs are in each step's batch. Prints it before and after, each pair's own, "
        f"and the greedy answers. The model itself does not change; --keep writes the copy as a model folder. {MODEL}",
        examples=(
            'tui-llm sft --pair "Who are you? => I am Tim." --steps 20 --keep tim',
            "tui-llm sft pairs.jsonl --steps 20 --json",
        ),
    )


def _add_options(parser: Parser) -> None:
    from tui_llm.instruments.sft.question import LEARNING_RATE, STEPS
    from tui_llm.llm.data.instruction_pairs import MOST

    parser.add_argument("pairs", nargs="?", metavar="FILE", help=f'a file of pairs, at most {MOST} in all: .jsonl, {{"question": …, "answer": …}} a line; others, such as .tsv: question, tab, answer')  # fmt: skip
    parser.add_argument("--pair", action="append", metavar="QUESTION=>ANSWER", help="a pair; can be given several times, also beside a file")  # fmt: skip
    parser.add_argument("--steps", type=whole, default=STEPS, metavar="N", help=f"how many steps (default {STEPS})")
    parser.add_argument("--learning-rate", type=number, default=LEARNING_RATE, metavar="R", help=f"of AdamW (default {LEARNING_RATE:g})")  # fmt: skip
    parser.add_argument("--keep", metavar="FOLDER", help="write the copy as a new model folder, with a card and a chat template")  # fmt: skip
    force_option(parser)
    model_options(parser)
    json_option(parser)


def sft(options: argparse.Namespace) -> None:
    from tui_llm.commands.shared.engine import open_engine
    from tui_llm.common.display import visible
    from tui_llm.facts.request import Request
    from tui_llm.instruments.sft.question import InstructQuestion, SftQuestion

    pairs = _pairs(options)
    keep = keep_folder(options)
    if options.steps < 1:
        raise UserError(f"--steps is {options.steps}; give 1 or more")
    engine = open_engine(options.model, options.device)
    state = engine.answer(SftQuestion(Request(), pairs, options.steps, options.learning_rate))
    made: Instructed | None = None
    if keep is not None:
        question = InstructQuestion(Request(), pairs, options.steps, options.learning_rate, keep, force=options.force)
        made = engine.answer(question)
    if options.json:
        put_json(as_json(state) | {"kept": made.folder if made else None})
        return
    for line in _lines(state):
        put(line)
    if made is not None:
        put(
            f"\nsaved as the model folder {visible(made.folder)}; tui-llm chat --model {visible(made.name)} talks with it"
        )


def _pairs(options: argparse.Namespace) -> Any:
    from tui_llm.common.paths import expand
    from tui_llm.llm.data import instruction_pairs

    found = () if options.pairs is None else instruction_pairs.read(expand(options.pairs))
    if options.pair:
        found = (*found, *instruction_pairs.parse("\n".join(one.replace("\n", " ") for one in options.pair)))
    if not found:
        raise UserError('give a file of pairs, or --pair "QUESTION => ANSWER"')
    return found


def as_json(state: SftState) -> dict[str, Any]:
    from tui_llm.facts import report

    finite = report.finite
    return {
        "model": state.weights.name,
        "steps": len(state.losses),
        "learning_rate": state.question.learning_rate,
        "tokens": state.tokens,
        "answer_tokens": state.answer_tokens,
        "loss_before": finite(state.first),
        "loss_after": finite(state.loss),
        "losses": [finite(one) for one in state.losses],
        "pairs": [
            {
                "question": one.pair.question,
                "answer": one.pair.answer,
                "answer_before": one.answer_before,
                "answer_after": one.answer_after,
                "tokens": [
                    {**report.token_json(token), "loss_before": finite(before), "loss_after": finite(after)}
                    for token, before, after in zip(one.tokens, one.before, one.after, strict=True)
                ],
            }
            for one in state.pairs
        ],
    }


def _lines(state: SftState) -> list[str]:
    from tui_llm.common.display import visible
    from tui_llm.common.numbers import counted

    made = [
        f"{visible(state.weights.name)}: {counted(len(state.losses), 'step')} of AdamW, learning rate {state.question.learning_rate:g}, on "
        f"{counted(len(state.pairs), 'pair')}",
        f"loss on the answers ({state.answer_tokens} of {state.tokens} tokens): {state.first:.4f} → {state.loss:.4f} nats per token",
    ]
    for one in state.pairs:
        before, after = (sum(costs) / len(costs) for costs in (one.before, one.after))
        made += [
            "",
            visible(one.pair.question),
            f"  wanted  {visible(one.pair.answer)}  loss {before:.3f} → {after:.3f}",
        ]
        if one.answer_before is not None and one.answer_after is not None:
            made += [f"  before  {visible(one.answer_before)}", f"  after   {visible(one.answer_after)}"]
    return made
