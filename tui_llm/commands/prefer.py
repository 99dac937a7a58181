"""`tui-llm prefer`: learn which of two answers is preferred, by DPO, on a copy of the weights."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.inside import copy_text
from tui_llm.commands.shared.options import MODEL, json_option, number, prompt_argument, prompt_options, whole
from tui_llm.commands.shared.output import put, put_json
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.facts.preference import PairChange, PairState
    from tui_llm.facts.tokens import Token
    from tui_llm.instruments.prefer.question import Preferred


def add(commands: Commands) -> None:
    commands.add(
        "prefer",
        "learn which of two answers is preferred, by DPO, on a copy of the weights: before and after",
        prefer,
        _add_options,
        more="Prints both answers' log-probabilities, rewards, the margin and the loss before and after, and each token's change. "
        f"The model itself does not change. {MODEL}",
        examples=(
            'tui-llm prefer "A girl was" --chosen " happy." --rejected " sad."',
            'tui-llm prefer "The cat" --chosen " sat." --rejected " ran." --steps 5 --json',
        ),
    )


def _add_options(parser: Parser) -> None:
    from tui_llm.facts.preference import DPO, RECIPE, DPOSettings, PreferenceRecipe

    dpo, recipe = DPOSettings(), PreferenceRecipe()
    prompt_argument(parser)
    parser.add_argument("--chosen", required=True, metavar="TEXT", help="the better answer; mind the leading space, as in ' mat'")  # fmt: skip
    parser.add_argument("--rejected", required=True, metavar="TEXT", help="the worse answer")
    parser.add_argument("--beta", type=number, default=dpo.beta, metavar="B", help=f"{DPO['beta'].help} (default {dpo.beta:g})")  # fmt: skip
    parser.add_argument("--steps", type=whole, default=recipe.steps, metavar="N", help=f"optimizer steps (default {recipe.steps})")  # fmt: skip
    rate = f"{RECIPE['learning_rate'].help} (default {recipe.learning_rate:g})"
    parser.add_argument("--learning-rate", type=number, default=recipe.learning_rate, metavar="R", help=rate)
    parser.add_argument("--length-normalized", action="store_true", help=DPO["length_normalized"].help)
    parser.add_argument("--sft-weight", type=number, default=dpo.sft_weight, metavar="A", help=f"{DPO['sft_weight'].help} (default {dpo.sft_weight:g})")  # fmt: skip
    prompt_options(parser, gradients=True)
    json_option(parser)


def prefer(options: argparse.Namespace) -> None:
    from tui_llm.commands.shared.engine import engine_of, request_of
    from tui_llm.facts.preference import DPOSettings, PreferenceRecipe
    from tui_llm.instruments.prefer.question import PreferTextQuestion

    recipe = PreferenceRecipe(
        DPOSettings(options.beta, options.length_normalized, options.sft_weight), options.learning_rate, options.steps
    )
    for name in ("chosen", "rejected"):
        if not getattr(options, name):
            raise UserError(f"--{name} is empty; give the answer's text")
    engine = engine_of(options)
    question = PreferTextQuestion(request_of(options), options.chosen, options.rejected, recipe)
    preferred: Preferred = engine.answer(question)
    if options.json:
        put_json(preferred_json(preferred))
    else:
        put(preferred_text(preferred))


def preferred_json(preferred: Preferred) -> dict[str, Any]:
    import dataclasses

    from tui_llm.facts import report

    ranked, change = preferred.ranked[-1], preferred.changes[-1]
    recipe = ranked.recipe

    def tokens(of: Sequence[Token], logs: Sequence[tuple[float, float]]) -> list[dict[str, Any]]:
        return [
            report.token_json(token) | {"logp_before": before, "logp_after": after}
            for token, (before, after) in zip(of, logs, strict=True)
        ]

    return {
        "model": preferred.weights.name,
        "step": preferred.weights.step,
        "beta": recipe.dpo.beta,
        "learning_rate": recipe.learning_rate,
        "steps": recipe.steps,
        "length_normalized": recipe.dpo.length_normalized,
        "sft_weight": recipe.dpo.sft_weight,
        "losses": list(change.losses),
        "before": dataclasses.asdict(change.before),
        "after": dataclasses.asdict(change.after),
        "both_fell": change.both_fell,
        "kl": change.kl,
        "left_out": change.left_out,
        "chosen_tokens": tokens(preferred.chosen, change.chosen_tokens),
        "rejected_tokens": tokens(preferred.rejected, change.rejected_tokens),
    }


def preferred_text(preferred: Preferred) -> str:
    from tui_llm.common.display import visible_token
    from tui_llm.common.numbers import counted, printed_change
    from tui_llm.facts import report

    change, recipe, weights = preferred.changes[-1], preferred.ranked[-1].recipe, preferred.weights
    lines = [
        f"{copy_text(weights)}, after {counted(recipe.steps, 'step')} of DPO (the open model does not change)",
        f"β {recipe.dpo.beta:g}, learning rate {recipe.learning_rate:g}"
        + (", length-normalized" if recipe.dpo.length_normalized else "")
        + (f", SFT term × {recipe.dpo.sft_weight:g}" if recipe.dpo.sft_weight else ""),
        report.table(("", "before", "after", "change"), _rows(change), left=(0,)),
    ]
    if change.left_out:
        lines.append(f"! the prompt's first {counted(change.left_out, 'token')} did not fit into the context")
    if change.both_fell:
        lines.append(f"! {recipe.dpo.both_fell}")
    lines.append(f"KL(π ‖ reference) of the next token after the prompt: {change.kl:.2g} nats (0 = identical)")
    sides = (
        ("chosen", preferred.chosen, change.chosen_tokens),
        ("rejected", preferred.rejected, change.rejected_tokens),
    )
    for name, tokens, logs in sides:
        rows = [
            (visible_token(token.text), str(token.id), f"{before:.4f}", f"{after:.4f}", printed_change(before, after))
            for token, (before, after) in zip(tokens, logs, strict=True)
        ]
        lines += [
            f"\n{name}: ln p of each token",
            report.table(("token", "id", "before", "after", "change"), rows, left=(0,)),
        ]
    return "\n".join(lines)


NAMES = (
    ("ln p(chosen)", "chosen_logp"), ("ln p(rejected)", "rejected_logp"), ("reward(chosen)", "chosen_reward"),
    ("reward(rejected)", "rejected_reward"), ("margin", "margin"), ("loss (nats)", "loss"),
)  # fmt: skip


def _rows(change: PairChange) -> list[tuple[str, ...]]:
    from tui_llm.common.numbers import printed_change

    def value(state: PairState, name: str) -> float:
        return float(getattr(state, name))

    rows: list[tuple[str, ...]] = []
    for title, name in NAMES:
        before, after = value(change.before, name), value(change.after, name)
        rows.append((title, f"{before:.4f}", f"{after:.4f}", printed_change(before, after)))
    return rows
