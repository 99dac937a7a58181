"""`tui-llm fit-lens`: fit a tuned lens to a model, and write it beside the weights."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import (  # fmt: skip
    CORPUS,
    MODEL,
    force_option,
    format_options,
    json_option,
    model_options,
    number,
    whole,
)
from tui_llm.commands.shared.output import put, put_json, show_progress
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.instruments.lens.tuned import FittedLens


def add(commands: Commands) -> None:
    commands.add(
        "fit-lens",
        "tuned lens: fit an affine translator per layer, for `tui-llm lens --tuned`",
        fit_lens,
        _add_options,
        more="Minimizes the divergence of each layer's prediction from the model's (arXiv:2303.08112) on the texts, and writes "
        "tuned_lens.safetensors beside the weights; the model does not change. Then prints that divergence for the logit lens and "
        f"the tuned one on the last 2 % of each file, which it did not fit. {MODEL}",
        examples=(
            "tui-llm fit-lens stories --model my-run",
            "tui-llm fit-lens books/ notes.txt --model my-model --steps 1000 --force",
        ),
    )


def _add_options(parser: Parser) -> None:
    parser.add_argument("corpus", nargs="+", metavar="TEXT", help=CORPUS)
    format_options(parser)
    parser.add_argument(
        "--steps", type=whole, default=1000, metavar="N", help="steps of 1,024 tokens each (default 1000)"
    )
    parser.add_argument(
        "--learning-rate", type=number, default=4e-3, metavar="R", help="of Adam; it falls to 0 (default 0.004)"
    )
    parser.add_argument("--seed", type=whole, default=1, metavar="N", help="which texts are fitted (default 1)")
    force_option(parser)
    model_options(parser)
    json_option(parser)


def fit_lens(options: argparse.Namespace) -> None:
    from tui_llm.commands.shared.engine import open_engine
    from tui_llm.instruments.lens.tuned import fit_lens as fit
    from tui_llm.llm.data.formats import TextFormat

    if options.steps < 1:
        raise UserError(f"--steps is {options.steps}; give 1 or more")
    if not 0 < options.learning_rate <= 1:
        raise UserError(f"--learning-rate is {options.learning_rate:g}; give a number above 0, up to 1")
    engine = open_engine(options.model, options.device)
    try:
        made = fit(
            engine,
            options.corpus,
            steps=options.steps,
            learning_rate=options.learning_rate,
            seed=options.seed,
            how=TextFormat(options.format, options.field),
            force=options.force,
            progress=show_progress,
        )
    finally:
        show_progress("")
    put_json(_as_json(made)) if options.json else put(_as_text(made))


def _as_json(made: FittedLens) -> dict[str, Any]:
    from tui_llm.commands.shared.inside import model_json
    from tui_llm.instruments.lens.question import layer_of

    return {
        **model_json(made.weights),
        "path": made.path,
        "steps": made.steps,
        "tokens": made.tokens,
        "seconds": made.seconds,
        "held_out_tokens": made.held_out,
        "rows": [
            {"layer": layer_of(row), "logit_lens": logit, "tuned_lens": tuned}
            for row, (logit, tuned) in enumerate(zip(made.logit, made.tuned, strict=True))
        ],
    }


def _as_text(made: FittedLens) -> str:
    from tui_llm.commands.shared.inside import model_text
    from tui_llm.common.display import visible
    from tui_llm.facts import report
    from tui_llm.instruments.lens.question import layer_of

    names = ["embedding" if (layer := layer_of(row)) is None else f"block {layer}" for row in range(len(made.logit))]
    rows = [
        (name, f"{logit:.4f}", f"{tuned:.4f}") for name, logit, tuned in zip(names, made.logit, made.tuned, strict=True)
    ]
    return "\n".join(
        [
            f"{model_text(made.weights)}: {made.steps:,} steps on {made.tokens:,} tokens, {made.seconds:.0f} s",
            f"KL from the model's prediction, in nats per token, on {made.held_out:,} tokens that the fit did not see",
            report.table(("after", "logit lens", "tuned lens"), rows, left=(0,)),
            f"saved {visible(made.path)}; tui-llm lens --tuned uses it, and so does u in the app's lens",
        ]
    )
