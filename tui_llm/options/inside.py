"""The black box, opened: attention, lens, neighbours."""

from __future__ import annotations

from tui_llm.options import AddCommand
from tui_llm.options.shared import json_option, model_options, prompt_options, weights_option, whole

TOKEN = "token number N of the text, from 0; below 0 counts from its end (default -1, the last)"


def add(command: AddCommand) -> None:
    attention = command("attention", "which earlier tokens each head looked at", "inside")
    attention.add_argument("text", metavar="TEXT")
    prompt_options(attention)
    attention.add_argument("--token", type=whole, metavar="N", help="looks from " + TOKEN)
    attention.add_argument(
        "--layer", type=whole, metavar="L", help="of this layer, from 1 (default: the mean over all heads)"
    )
    attention.add_argument(
        "--head", type=whole, metavar="H", help="of this head of the layer, from 1 (default: the mean over its heads)"
    )

    lens = command("lens", "logit lens: the prediction as it stands after each layer", "inside")
    lens.add_argument("text", metavar="TEXT")
    prompt_options(lens)
    lens.add_argument("--token", type=whole, metavar="N", help="the prediction after " + TOKEN)
    lens.add_argument(
        "--target",
        metavar="TEXT",
        help="follow this token, as in ' mat' (default: the text's own next token, or the likeliest)",
    )
    lens.add_argument("--top", type=whole, default=5, metavar="N", help="how many tokens to list (default 5)")

    neighbours = command("neighbours", "the tokens whose embeddings point the same way as one token's", "inside")
    neighbours.add_argument("token", metavar="TOKEN", help="one token, as in ' king', or #464 for the id 464")
    model_options(neighbours)
    weights_option(neighbours)
    neighbours.add_argument("--count", type=whole, default=20, metavar="N", help="how many to list (default 20)")

    for sub in (attention, lens, neighbours):
        json_option(sub)
