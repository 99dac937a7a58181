"""The draw, once or many times."""

from __future__ import annotations

from tui_llm.options import AddCommand
from tui_llm.options.shared import cut_options, json_option, number, prompt_options, whole


def add(command: AddCommand) -> None:
    draw = command("draw", "what a random number u picks as the next token, at one temperature or several", "draws")
    draw.add_argument("prompt", metavar="PROMPT")
    prompt_options(draw)
    draw.add_argument(
        "--u", type=number, metavar="U", help="a number from 0 up to, but not, 1 (default: the seed's first)"
    )
    draw.add_argument(
        "--temperature", default="1", metavar="T[,T…]", help="one or several, such as 0.5,1,2 (default 1)"
    )
    cut_options(draw)
    draw.add_argument("--seed", type=whole, default=1, metavar="S", help="of the draws (default 1)")
    draw.add_argument(
        "--count", type=whole, metavar="N", help="draw N times: how often each token comes, beside how often it should"
    )
    draw.add_argument("--top", type=whole, default=20, metavar="N", help="how many tokens to list (default 20)")
    json_option(draw)
