"""The model card of a copy that learned from rewards."""

from __future__ import annotations

from collections.abc import Sequence

from tui_llm.common.display import visible
from tui_llm.common.numbers import counted
from tui_llm.facts.policy import ADVANTAGES, AVERAGES, PolicyRecipe
from tui_llm.instruments.reward.question import RewardStep, hacking
from tui_llm.session.open_model import OpenModel


def card(open_model: OpenModel, name: str, ids: Sequence[int], steps: Sequence[RewardStep]) -> str:
    """The folder's README: the original model, the prompt, the rules and settings, and what each step gave."""
    weights = open_model.weights()
    at = "" if weights.step is None else f" at step {weights.step:,}"
    recipes = "\n".join(f"- {line}" for line in dict.fromkeys(_recipe(step.recipe) for step in steps))
    rows = "\n".join(_row(step) for step in steps)
    note = hacking(steps)
    return f"""# {visible(name)}

{visible(weights.name)}{at} after {counted(len(steps), "step")} of policy gradient on one prompt: an experiment of
tui-llm's *Reward*, not a model to rely on. Its answers to other prompts may be worse. Its licence and its training text are
those of {visible(weights.name)}.{f" {note[0].upper()}{note[1:]}." if note else ""}

Prompt ({counted(len(ids), "token")}; control characters are shown as symbols):

    {visible(open_model.tokenizer.decode(list(ids)))}

{recipes}

| step | rule | mean reward | KL (nats a token) | distinct answers | learned |
|---|---|---|---|---|---|
{rows}

Mean reward and KL are of the policy that drew the step's answers, before it was learned. KL(π ‖ {visible(weights.name)}) is estimated
from the drawn tokens by ref ÷ π − ln (ref ÷ π) − 1, both at the draws' temperature. AdamW
has β 0.9 and 0.999, no weight decay; the gradient's norm is limited to 1.
"""


def _recipe(recipe: PolicyRecipe) -> str:
    policy = recipe.policy
    return (
        f"{recipe.samples} answers of up to {counted(recipe.tokens, 'token')} at temperature {policy.temperature:g}; "
        f"learning rate {recipe.learning_rate:g}, {counted(recipe.updates, 'update')} a step, clip {policy.clip:g}, "
        f"KL weight {policy.beta:g}; advantage: {ADVANTAGES[policy.advantage]}; average: {AVERAGES[policy.average]}"
    )


def _row(step: RewardStep) -> str:
    spec = visible(step.spec).replace("|", "\\|")
    mean = "–" if step.mean is None else f"{step.mean:.4f}"
    learned = "yes" if step.learned else "no: all rewards equal"
    return (
        f"| {step.number} | `{spec}` | {mean} | {step.kl:.4f} | {step.distinct} of {step.recipe.samples} | {learned} |"
    )
