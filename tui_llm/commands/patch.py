"""`tui-llm patch`: activation patching between two prompts."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.inside import model_json, model_text
from tui_llm.commands.shared.options import MODEL, json_option, prompt_options
from tui_llm.commands.shared.output import put, put_json

if TYPE_CHECKING:
    from tui_llm.instruments.patch.question import PatchGrid


PARTS = (
    "residual",
    "attention",
    "mlp",
)  # those of `instruments/patch/question.py`, whose import takes longer than --help


def add(commands: Commands) -> None:
    commands.add(
        "patch",
        "activation patching: which part's value at which token brings the clean prompt's prediction back",
        patch,
        _add_options,
        more="Puts the value of one part at one token of CLEAN into CHANGED, for each layer and token, and prints what the target's logit "
        f"minus its rival's becomes. Prompts of different length are aligned from the end. {MODEL}",
        examples=(
            'tui-llm patch "Tom saw Lily. He told" "Tom saw Anna. He told"',
            'tui-llm patch "The big cat" "The big dog" --part attention --json',
        ),
    )


def _add_options(parser: Parser) -> None:
    parser.add_argument("clean", metavar="CLEAN", help="the prompt whose values are put into the other one")
    parser.add_argument("changed", metavar="CHANGED", help="the prompt that is patched")
    prompt_options(parser)
    parser.add_argument(
        "--target",
        metavar="TEXT",
        help="the token whose logit is followed, as in ' mat' (default: the most likely one after CLEAN)",
    )
    parser.add_argument(
        "--rival",
        metavar="TEXT",
        help="its logit is subtracted (default: the most likely other one after CHANGED)",
    )
    parser.add_argument(
        "--part",
        choices=PARTS,
        default=PARTS[0],
        help=f"what is patched: the residual stream before a block, or the output of its attention or MLP (default {PARTS[0]})",
    )
    json_option(parser)


def patch(options: argparse.Namespace) -> None:
    from tui_llm.commands.shared.engine import engine_of, request_of, target_of
    from tui_llm.instruments.patch.question import PARTS as PARTS_OF_MODEL
    from tui_llm.instruments.patch.question import PatchGrid, PatchQuestion

    engine = engine_of(options)
    options.prompt = options.changed
    request = request_of(options, target=target_of(options.target))
    grid = PatchGrid(
        engine.answer(PatchQuestion(request, options.clean, PARTS_OF_MODEL[options.part], target_of(options.rival)))
    )
    put_json(_patch_json(grid, options.part)) if options.json else put(_patch_text(grid))


def _patch_json(grid: PatchGrid, part: str) -> dict[str, Any]:
    from tui_llm.facts import report

    piece = grid.piece
    return {
        **model_json(piece.weights),
        "part": part,
        "target": report.token_json(piece.target),
        "rival": report.token_json(piece.rival),
        "clean": piece.clean,
        "changed": piece.changed,
        "shift": piece.shift,
        "tokens": [report.token_json(token) for token in piece.tokens],
        "clean_tokens": [None if token is None else report.token_json(token) for token in piece.counterparts],
        "layers": list(piece.layers),
        "effects": grid.effects,
        "normalised": grid.normalised_rows(),
    }


def _patch_text(grid: PatchGrid) -> str:
    from tui_llm.common.display import token_label
    from tui_llm.facts import report
    from tui_llm.instruments.patch.question import WORDS, alignment

    piece = grid.piece
    rows = []
    for at, token in enumerate(piece.tokens):
        clean = piece.counterparts[at]
        changed = "–" if clean is None else token_label(clean.text) if piece.differs(at) else "="
        effects = [effects[at] for effects in grid.effects]
        rows.append(
            (str(at), token_label(token.text), changed, *("–" if one is None else f"{one:.3f}" for one in effects))
        )
    target, rival = token_label(piece.target.text), token_label(piece.rival.text)
    return "\n".join(
        [
            f"{model_text(piece.weights)}: logit of {target} minus that of {rival}; changed prompt {piece.changed:.3f}, "
            f"clean prompt {piece.clean:.3f}",
            *alignment(piece),
            report.table(("", "changed", "clean", *map(str, piece.layers)), rows, left=(1, 2)),
            f"each cell: the difference with the clean prompt's {WORDS[piece.kind]}, numbered above, put in at that token. Units: logits",
        ]
    )
