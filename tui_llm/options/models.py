"""The models on this machine, and those that can be brought to it."""

from __future__ import annotations

import argparse

from tui_llm.options import AddCommand
from tui_llm.options.shared import Parser, json_option


def add(command: AddCommand) -> None:
    models = command("models", "list the models that can be opened; pull, show or delete one", "hub")
    json_option(models)
    doing = models.add_subparsers(dest="action", metavar="ACTION", parser_class=Parser)
    pull = doing.add_parser("pull", help="bring a model from the Hugging Face Hub, or the rest of one (extra `hub`)")
    pull.add_argument("name", metavar="NAME", help="gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2, or OWNER/NAME")
    pull.add_argument("--revision", metavar="R", help="a branch, a tag or a commit (default main)")
    pull.add_argument("--offline", action="store_true", help="ask no network, as HF_HUB_OFFLINE=1 does")
    pull.add_argument("--progress", action="store_true", help="the progress as JSON lines on stderr, for programs")
    info = doing.add_parser("info", help="what is known of one model, and its card")
    info.add_argument("name", metavar="MODEL")
    delete = doing.add_parser("delete", help="delete a pulled model; asks first")
    delete.add_argument("name", metavar="NAME")
    delete.add_argument("--yes", action="store_true", help="don't ask")
    for action in (pull, info, delete):  # said before the action or after it
        action.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON, for programs")
