"""Taking tokens apart: merges, letters, surprisal."""

from __future__ import annotations

from tui_llm.options import AddCommand
from tui_llm.options.shared import DEFAULT_MODEL, json_option, prompt_options


def add(command: AddCommand) -> None:
    merges = command("merges", "text → how each word becomes tokens, merge by merge", "tokens")
    merges.add_argument("text", metavar="TEXT", help="mind the leading space, as in ' strawberry'")
    letters = command("letters", "text and letter → the letter counted across the tokens that hide it", "tokens")
    letters.add_argument("text", metavar="TEXT")
    letters.add_argument("--letter", required=True, metavar="L", help="one letter; upper and lower case are alike")
    for sub in (merges, letters):
        sub.add_argument("--tokenizer", default=DEFAULT_MODEL, metavar="NAME",
                         help="gpt2, cl100k_base, o200k_base, a model's name or folder (default nano)")  # fmt: skip
    surprisal = command("surprisal", "text → how surprised a model is by each of its tokens", "tokens")
    surprisal.add_argument("prompt", metavar="TEXT")
    prompt_options(surprisal)
    for sub in (merges, letters, surprisal):
        json_option(sub)
