"""`tui-llm tree`: a tree of continuations, printed and saved."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import (
    MODEL,
    force_option,
    json_option,
    number,
    prompt_argument,
    prompt_options,
    sampler_options,
    whole,
)
from tui_llm.commands.shared.output import inputs_of, out_path, put, put_json
from tui_llm.common.errors import UserError

if TYPE_CHECKING:
    from tui_llm.instruments.tree.tree import Node, Tree


def add(commands: Commands) -> None:
    commands.add(
        "tree",
        "prompt → a tree of its most likely continuations, each with its path probability",
        tree,
        _add_options,
        more="Prints the tree, each path with the product of its tokens' probabilities. The most likely tokens are those of the model's own "
        f"probabilities; the sampler's settings change the column drawn alone. {MODEL}",
        examples=('tui-llm tree "Once upon a time" --branch 2 --depth 3',),
    )


def _add_options(parser: Parser) -> None:
    prompt_argument(parser)
    prompt_options(parser)
    parser.add_argument("--branch", type=whole, default=3, metavar="K", help="continuations of each node (default 3)")
    parser.add_argument("--depth", type=whole, default=4, metavar="D", help="tokens after the prompt (default 4)")
    parser.add_argument("--min-probability", type=number, default=0.0, metavar="P", help="leave out paths whose probability is below P")  # fmt: skip
    parser.add_argument("--max-nodes", type=whole, default=1000, metavar="N", help="stop at N tokens in the tree; the most likely paths are grown first (default 1000)")  # fmt: skip
    parser.add_argument("--out", metavar="FILE", help="also write it as JSON, for the tree's screen (T in the Generate pane)")  # fmt: skip
    force_option(parser)
    sampler_options(parser)
    json_option(parser)


def tree(options: argparse.Namespace) -> None:
    from tui_llm.commands.shared.engine import engine_of, request_of, sampler_of
    from tui_llm.commands.shared.inside import note_context
    from tui_llm.common.display import visible
    from tui_llm.common.new_files import check_file
    from tui_llm.instruments.tree.question import BranchQuestion, KnownQuestion
    from tui_llm.instruments.tree.tree import Growth, Tree
    from tui_llm.instruments.tree.tree_file import save, tree_json

    for name, value in (("--branch", options.branch), ("--depth", options.depth), ("--max-nodes", options.max_nodes)):
        if value < 1:
            raise UserError(f"{name} is {value}; give 1 or more")
    if not 0 <= options.min_probability <= 1:
        raise UserError(f"--min-probability is {options.min_probability}; give a number from 0 to 1, such as 0.001")
    request = request_of(options, sampler=sampler_of(options))
    out = None
    if options.out is not None:
        out, reads = out_path(options.out, "--out"), inputs_of(options)
        check_file(out, force=options.force, inputs=reads)  # before the work, which takes time
    engine = engine_of(options)
    made = Tree(request, engine.weights(), text_ids=engine.answer(KnownQuestion(request)).text)
    growth = Growth(made, made.root, options.branch, options.depth, options.min_probability, options.max_nodes)
    while not growth.done:
        growth.take(engine.answer(BranchQuestion(request, growth.batch(), options.branch)))
    if out is not None:
        save(made, out, force=options.force, inputs=reads)
    note_context(engine, request)
    if options.json:
        put_json({**tree_json(made), "full": growth.full})
        return
    for line in lines(made):
        put(line)
    if growth.full:
        put(f"stopped at {len(made):,} tokens: less likely paths are left out (--max-nodes)")
    if out is not None:
        put(f"saved {visible(str(out))}")


def lines(tree: Tree) -> list[str]:
    """The tree as text; its first lines name the columns."""
    from tui_llm.common.display import truncate, visible
    from tui_llm.instruments.tree.tree_file import model_words

    text = visible(tree.request.prompt)
    return [
        f"{visible(model_words(tree.weights))} · {len(tree.text_ids):,} tokens of text, {len(tree):,} in the tree",
        "p: the model's probability of the token given its path · path p: of the whole path, the product of its p",
        "−ln p: surprisal in nats · total: of the whole path, their sum · drawn: with the sampler's settings (0 where cut)",
        f"{'p':>9} {'drawn':>9} {'−ln p':>7} {'path p':>9} {'total':>7}  tokens",
        f"{'':45}  {truncate(text, 72)}",
        *(_line(node) for node in tree.nodes() if node.token is not None),
    ]


def _line(node: Node) -> str:
    from tui_llm.common.display import visible_token
    from tui_llm.common.numbers import percent

    assert node.token is not None
    numbers = f"{percent(node.probability):>9} {percent(node.drawn):>9} {node.surprisal:>7.3f} {percent(node.path_probability):>9} {node.total:>7.3f}"
    return f"{numbers}  {'  ' * node.depth}{visible_token(node.token.text)}"
