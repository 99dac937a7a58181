"""Trees of continuations."""

from __future__ import annotations

from tui_llm.options import AddCommand
from tui_llm.options.shared import force_option, json_option, number, prompt_options, sampler_options, whole


def add(command: AddCommand) -> None:
    tree = command("tree", "prompt → a tree of its likeliest continuations, each with its path probability", "tree")
    tree.add_argument("prompt", metavar="PROMPT")
    prompt_options(tree)
    tree.add_argument("--branch", type=whole, default=3, metavar="K", help="continuations of each node (default 3)")
    tree.add_argument("--depth", type=whole, default=4, metavar="D", help="tokens after the prompt (default 4)")
    tree.add_argument("--min-probability", type=number, default=0.0, metavar="P", help="leave out ways that are less likely than P, all their tokens multiplied")  # fmt: skip
    tree.add_argument("--max-nodes", type=whole, default=1000, metavar="N", help="stop before more than N tokens are in the tree; the likeliest ways come first (default 1000)")  # fmt: skip
    tree.add_argument("--out", metavar="FILE", help="write it as JSON, for the tree's screen (T in the Generate pane)")
    force_option(tree)
    sampler_options(tree)
    json_option(tree)
