"""`tui-llm reward`: answers are drawn and scored by a rule, and a copy of the weights learns by policy gradient."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.command import Commands, Parser
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
    from tui_llm.facts.policy import PolicyRecipe
    from tui_llm.instruments.reward.question import RewardGroup, RewardRun, RewardStep, SavedRewarded


def add(commands: Commands) -> None:
    commands.add(
        "reward",
        "answers scored by a rule that you write; a copy of the weights learns from the scores (GRPO)",
        reward,
        _add_options,
        more="In each step a group of answers to the prompt is drawn and scored; those above the group's mean become more probable, "
        "the others less. Prints mean reward and KL to the opened model step by step, and the last answers. The model itself does "
        f"not change. {MODEL}",
        examples=(
            'tui-llm reward "There was a girl. She was" --score contains:happy',
            'tui-llm reward "The cat" --score count:e --samples 16 --steps 5',
        ),
    )


def _add_options(parser: Parser) -> None:
    from tui_llm.facts.policy import ADVANTAGES, AVERAGES, CLIP, PolicyRecipe
    from tui_llm.llm.learn.reward import KINDS

    usual, policy = PolicyRecipe(), PolicyRecipe().policy
    rules = "; ".join(f"{kind.syntax}: {kind.help}" for kind in KINDS.values() if kind.name != "hand")
    prompt_argument(parser)
    parser.add_argument("--score", required=True, metavar="SPEC", help=f"the rule that gives an answer's reward. {rules}")  # fmt: skip
    parser.add_argument("--samples", type=whole, default=usual.samples, metavar="K", help=f"answers in a group (default {usual.samples})")  # fmt: skip
    parser.add_argument("--steps", type=whole, default=20, metavar="N", help="how many steps (default 20)")
    parser.add_argument("--seed", type=whole, default=1, metavar="S", help="the seed of the draws (default 1)")
    parser.add_argument("--tokens", type=whole, default=usual.tokens, metavar="N", help=f"the most tokens of an answer (default {usual.tokens})")  # fmt: skip
    parser.add_argument("--learning-rate", type=number, default=usual.learning_rate, metavar="R", help=f"AdamW's step size (default {usual.learning_rate:g})")  # fmt: skip
    parser.add_argument("--updates", type=whole, default=usual.updates, metavar="N", help=f"optimizer updates on each group (default {usual.updates})")  # fmt: skip
    parser.add_argument("--temperature", type=number, default=policy.temperature, metavar="T", help=f"of the draws (default {policy.temperature:g})")  # fmt: skip
    for name, values, chosen in (("advantage", ADVANTAGES, policy.advantage), ("average", AVERAGES, policy.average)):
        text = "; ".join(f"{one}: {what}" for one, what in values.items())
        parser.add_argument(f"--{name}", default=chosen, choices=tuple(values), help=f"{text} (default {chosen})")
    parser.add_argument("--clip", type=number, default=policy.clip, metavar="E", help=f"ε: {CLIP} (default {policy.clip:g})")  # fmt: skip
    parser.add_argument("--beta", type=number, default=policy.beta, metavar="B", help=f"weight of the KL term, the pull to the opened model; 0: off (default {policy.beta:g})")  # fmt: skip
    parser.add_argument("--keep", metavar="FOLDER", help="write the changed weights as a new model folder")
    force_option(parser)
    prompt_options(parser, gradients=True)
    json_option(parser)


def _recipe(options: argparse.Namespace) -> PolicyRecipe:
    from tui_llm.facts.policy import PolicyRecipe, PolicySettings

    policy = PolicySettings(options.advantage, options.average, options.clip, options.beta, options.temperature)
    return PolicyRecipe(policy, options.samples, options.tokens, options.learning_rate, options.updates)


def reward(options: argparse.Namespace) -> None:
    from tui_llm.commands.shared.engine import engine_of, request_of
    from tui_llm.common.display import visible
    from tui_llm.instruments.reward.question import MOST_STEPS, RewardQuestion, SaveRewardedQuestion
    from tui_llm.llm.learn.reward import parse

    rule = parse(options.score)
    if rule.by_hand:
        raise UserError("scores by hand need the app: open Reward in tui-llm; here, give a rule such as contains:happy")
    if not 1 <= options.steps <= MOST_STEPS:
        raise UserError(f"--steps is {options.steps}; give 1 to {MOST_STEPS} (for more: tui-llm train --reward)")
    recipe, request = _recipe(options), request_of(options)
    folder = keep_folder(options)
    engine = engine_of(options)
    run: RewardRun = engine.answer(RewardQuestion(request, options.steps, rule.spec, recipe, options.seed, ahead=False))
    kept: SavedRewarded | None = None
    if folder is not None:
        kept = engine.answer(SaveRewardedQuestion(request, folder, options.force))
    if options.json:
        put_json(run_json(run) | {"kept": kept.folder if kept else None})
        return
    put(run_text(run))
    if kept is not None:
        put(f"\nsaved as the model folder {visible(kept.folder)}")


def run_json(run: RewardRun) -> dict[str, Any]:
    import dataclasses

    from tui_llm.instruments.reward.question import hacking

    question = run.question
    return {
        "model": run.weights.name,
        "step": run.weights.step,
        "score": question.spec,
        "seed": question.seed,
        **dataclasses.asdict(question.recipe.policy),
        "samples": question.recipe.samples,
        "tokens": question.recipe.tokens,
        "learning_rate": question.recipe.learning_rate,
        "updates": question.recipe.updates,
        "mean_rewards": list(run.mean_rewards),
        "kl": list(run.kl),
        "steps": [_step_json(step) for step in run.steps],
        "answers": _answers_json(run.group),
        "note": hacking(run.steps) or None,
    }


def _step_json(step: RewardStep) -> dict[str, Any]:
    return {
        "number": step.number,
        "mean_reward": step.mean,
        "standard_deviation": step.deviation,
        "kl": step.kl,
        "distinct_answers": step.distinct,
        "distinct_tokens": step.variety,
        "learned": step.learned,
        "problem": step.why_not or None,
        "loss": step.loss if step.learned else None,
        "gradient_norm": step.gradient_norm if step.learned else None,
        "clipped": step.clipped if step.learned else None,
    }


def _answers_json(group: RewardGroup) -> list[dict[str, Any]]:
    from tui_llm.facts import report

    return [
        {
            "text": answer.text,
            "seed": answer.seed,
            "ended": answer.ended,
            "reward": answer.reward,
            "advantage": answer.advantage,
            "tokens": [
                report.token_json(token)
                | {"logp_before": before, "logp_after": answer.after[at] if answer.after else None}
                for at, (token, before) in enumerate(zip(answer.tokens, answer.before, strict=True))
            ],
        }
        for answer in group.answers
    ]


def run_text(run: RewardRun) -> str:
    from tui_llm.common.display import visible
    from tui_llm.facts import report
    from tui_llm.facts.policy import at_temperature
    from tui_llm.instruments.reward.question import hacking

    def maybe(value: float | None) -> str:
        return "–" if value is None else f"{value:.4g}"

    rows = [
        (
            f"{step.number}",
            maybe(step.mean),
            maybe(step.deviation),
            f"{step.kl:.4f}",
            f"{step.distinct} of {step.recipe.samples}",
            f"{step.variety:.0%}",
            f"{step.loss:.4f}" if step.learned else "no step",
        )
        for step in run.steps
    ]
    head = ("step", "mean reward", "deviation", "KL", "distinct answers", "distinct tokens", "loss")
    drawn = at_temperature(run.group.step.recipe.policy.temperature)
    lines = [
        f"a copy of {visible(run.weights.name)}, rewarded for {visible(run.question.spec)}; KL to the opened model{drawn}, nats a token",
        report.table(head, rows, left=()),
    ]
    skipped = [step for step in run.steps if step.why_not]
    if skipped:
        lines.append(f"no step: {skipped[0].why_not}")
    if note := hacking(run.steps):
        lines.append(note)
    lines.append(
        f"\nthe last answers, with their rewards and what the step changed (ln p of the answer{drawn}, in nats)"
    )
    answers = [
        (
            maybe(one.reward),
            maybe(one.advantage),
            "–" if one.change is None else f"{one.change:+.3f}",
            visible(one.text),
        )
        for one in run.group.answers
    ]
    lines.append(report.table(("reward", "advantage", "change", "answer"), answers, left=(3,)))
    return "\n".join(lines)
