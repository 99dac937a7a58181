"""`tui-llm learn`: optimizer steps on one prompt and target, on a copy of the weights."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.inside import copy_text, note_context
from tui_llm.commands.shared.options import (
    MODEL,
    force_option,
    json_option,
    number,
    prompt_argument,
    prompt_options,
    whole,
)
from tui_llm.commands.shared.output import keep_folder, put, put_json
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.facts.pin import Pin
    from tui_llm.instruments.learn.question import Kept, Learned, PinChange


def add(commands: Commands) -> None:
    commands.add(
        "learn",
        "optimizer steps on one prompt and target, on a copy of the weights: before and after",
        learn,
        _add_options,
        more="Prints loss and p before and after, the tokens whose probability changed, and the effect on other prompts. The model "
        f"itself does not change. {MODEL}",
        examples=(
            'tui-llm learn "The cat sat on the" --target " mat"',
            'tui-llm learn "The cat sat on the" --target " mat" --also "Once upon a=> time"',
        ),
    )


def _add_options(parser: Parser) -> None:
    from tui_llm.facts.recipe import OPTIMIZERS, USUAL

    prompt_argument(parser)
    parser.add_argument("--target", required=True, metavar="TEXT", help="the text that should come next; mind the leading space, as in ' mat'")  # fmt: skip
    parser.add_argument("--steps", type=whole, default=1, metavar="N", help="how many steps (default 1)")
    parser.add_argument("--optimizer", default="sgd", choices=tuple(OPTIMIZERS), help="sgd (plain) or adamw (default sgd)")  # fmt: skip
    usual = ", ".join(f"{size:g} for {name}" for name, size in USUAL.items())
    parser.add_argument("--learning-rate", type=number, metavar="R", help=f"the step size (default {usual})")
    parser.add_argument("--also", action="append", metavar="PROMPT=>TARGET", help="show the effect on this prompt, which is not learned (the target is optional); can be given several times")  # fmt: skip
    parser.add_argument("--pins", action="store_true", help="show the effect on your pinned prompts")
    parser.add_argument("--keep", metavar="FOLDER", help="write the changed weights as a new model folder")
    force_option(parser)
    prompt_options(parser, gradients=True)
    json_option(parser)


NAMED = 40  # widest prompt in a table, in cells


def learn(options: argparse.Namespace) -> None:
    from tui_llm.commands.shared import spaces
    from tui_llm.commands.shared.engine import engine_of, request_of
    from tui_llm.common.display import visible
    from tui_llm.facts.recipe import USUAL, Recipe, check
    from tui_llm.facts.request import Target
    from tui_llm.instruments.learn.question import MOST_STEPS, KeepQuestion, LearnQuestion
    from tui_llm.training.run import pins

    if not 1 <= options.steps <= MOST_STEPS:
        raise UserError(f"--steps is {options.steps}; give 1 to {MOST_STEPS} (for more: tui-llm train --from)")
    rate = USUAL[options.optimizer] if options.learning_rate is None else options.learning_rate
    recipe = check(Recipe(options.optimizer, rate))
    also = [*map(pins.parse, options.also or ()), *(pins.of_user() if options.pins else ())]
    request = request_of(options, target=Target(text=options.target))
    folder = keep_folder(options)
    engine = engine_of(options)
    learned: Learned = engine.answer(LearnQuestion(request, options.steps, recipe, tuple(dict.fromkeys(also))))
    kept: Kept | None = None if folder is None else engine.answer(KeepQuestion(request, folder, options.force))
    note_context(engine, request)  # once nothing can fail: an error is one line
    spaces.note_target(engine, request)
    spaces.note_pins(map(pins.parse, options.also or ()))
    if options.json:
        put_json(learned_json(learned) | {"kept": kept.folder if kept else None})
        return
    put(learned_text(learned))
    if kept is not None:
        put(f"\nsaved as the model folder {visible(kept.folder)}")


def learned_json(learned: Learned) -> dict[str, Any]:
    from tui_llm.facts import report

    finite = report.finite

    def maybe(value: float | None) -> float | str | None:
        return None if value is None else finite(value)

    def change(one: PinChange) -> dict[str, Any]:
        return {
            "prompt": one.pin.prompt,
            "target": one.pin.target,
            "loss_before": maybe(one.loss_before),
            "loss_after": maybe(one.loss_after),
            "probability_before": one.probability_before,
            "probability_after": one.probability_after,
            "likeliest_before": one.first_before and report.token_json(one.first_before),
            "likeliest_after": one.first_after and report.token_json(one.first_after),
            "divergence": finite(one.divergence),
            "problem": one.problem or None,
        }

    return {
        "model": learned.weights.name,
        "step": learned.weights.step,
        "target_tokens": [report.token_json(token) for token in learned.target],
        **{
            name: {"loss": finite(state.loss), "probability": state.probability, "rank": state.rank}
            for name, state in (("before", learned.before), ("after", learned.after))
        },
        "steps": [
            {"step": s.number, "optimizer": s.recipe.optimizer, "learning_rate": s.recipe.learning_rate,
             "gradient_norm": s.gradient_norm, "loss": finite(s.loss), "probability": s.probability}
            for s in learned.steps
        ],
        "candidates": [
            report.token_json(r.token)
            | {"raw_probability_before": r.before, "raw_probability_after": r.after, "rank_before": r.rank_before,
               "rank_after": r.rank_after, "target": r.target}
            for r in learned.candidates
        ],
        "also": [change(one) for one in learned.pins],
    }  # fmt: skip


def learned_text(learned: Learned) -> str:
    from tui_llm.common.display import visible, visible_token

    weights, count = learned.weights, len(learned.steps)
    target = visible_token("".join(token.text for token in learned.target))
    lines = [
        f"{copy_text(weights)}, after {count} step{'' if count == 1 else 's'} towards {target} (the open model does not change)",
        _steps_table(learned),
        "\nthe next token, before and after",
        _candidates_table(learned),
    ]
    if learned.pins:
        lines += ["\nprompts that were not learned", _pins_table(learned)]
        lines += [f"! {_pin_name(one.pin)}: {visible(one.problem)}" for one in learned.pins if one.problem]
    return "\n".join(lines)


def _steps_table(learned: Learned) -> str:
    from tui_llm.common.numbers import percent
    from tui_llm.facts import report
    from tui_llm.facts.recipe import OPTIMIZERS

    before = learned.before
    rows = [
        (str(s.number), OPTIMIZERS[s.recipe.optimizer], f"{s.recipe.learning_rate:g}",
         f"{s.gradient_norm:.4g}", f"{s.loss:.4f}", percent(s.probability))
        for s in learned.steps
    ]  # fmt: skip
    loss = "loss" if len(learned.target) == 1 else "loss per token"
    return report.table(
        ("step", "optimizer", "step size", "|gradient|", loss, "p(target)"),
        [("0", "–", "–", "–", f"{before.loss:.4f}", percent(before.probability)), *rows],
        left=(1,),
    )


def _candidates_table(learned: Learned) -> str:
    from tui_llm.common.display import visible_token
    from tui_llm.common.numbers import percent
    from tui_llm.facts import report

    rows = [
        (visible_token(r.token.text) + (" ◆ target" if r.target else ""), str(r.token.id),
         str(r.rank_before), str(r.rank_after), percent(r.before), percent(r.after))
        for r in learned.candidates
    ]  # fmt: skip
    return report.table(("token", "id", "rank before", "after", "raw p before", "after"), rows, left=(0,))


def _pins_table(learned: Learned) -> str:
    from tui_llm.facts import report

    header = (
        "prompt", "loss before", "after", "p(target) before", "after", "likeliest before", "after", "KL (nats)",
    )  # fmt: skip
    return report.table(header, [_pin_row(one) for one in learned.pins], left=(0, 5, 6))


def _pin_name(pin: Pin) -> str:
    from tui_llm.common.display import truncate, visible, visible_token

    name = truncate(visible(pin.prompt), NAMED)
    return f"{name} → {truncate(visible_token(pin.target), NAMED)}" if pin.target else name


def _pin_row(one: PinChange) -> tuple[str, ...]:
    from tui_llm.common.display import visible_token
    from tui_llm.common.numbers import percent

    def loss(value: float | None) -> str:
        return "–" if value is None else f"{value:.4f}"

    def share(value: float | None) -> str:
        return "–" if value is None else percent(value)

    first = [visible_token(token.text) if token else "–" for token in (one.first_before, one.first_after)]
    return (
        _pin_name(one.pin),
        loss(one.loss_before),
        loss(one.loss_after),
        share(one.probability_before),
        share(one.probability_after),
        *first,
        "–" if one.problem else f"{one.divergence:.2g}",
    )
