"""`tui-llm vocabulary`: train a vocabulary, or add one from a file."""

from __future__ import annotations

import argparse
import os

from tui_llm.commands.shared.command import Commands, Parser, actions_of
from tui_llm.commands.shared.options import CORPUS, force_option, format_options, json_option, whole
from tui_llm.commands.shared.output import out_path, put, put_json, show_progress


def add(commands: Commands) -> None:
    commands.add(
        "vocabulary",
        "train a vocabulary, or add a downloaded one",
        None,
        _add_options,
        more="`train` learns a BPE vocabulary from text (extra `vocabulary`); `add` installs one from a file, for machines without a network.",
        examples=(
            "tui-llm vocabulary train book.txt --size 4096 --out words",
            "tui-llm vocabulary add cl100k_base.tiktoken",
        ),
    )


def _add_options(parser: Parser) -> None:
    actions = actions_of(parser, required=True)
    action = actions.add(
        "train",
        "train a BPE vocabulary on text",
        train_vocabulary,
        more="Needs the extra `vocabulary`. Writes vocab.json and merges.txt.",
        examples=("tui-llm vocabulary train book.txt --size 4096 --out words",),
    )
    action.add_argument("corpus", nargs="+", metavar="CORPUS", help=CORPUS)
    action.add_argument("--size", type=whole, default=4096, metavar="N", help="tokens, <|endoftext|> included (default 4096)")  # fmt: skip
    action.add_argument("--out", required=True, metavar="FOLDER", help="where to write vocab.json and merges.txt")
    format_options(action)
    force_option(action)
    json_option(action)
    action = actions.add(
        "add",
        "install a vocabulary: gpt2, cl100k_base or o200k_base, or another under a name",
        add_vocabulary,
        more="gpt2, cl100k_base and o200k_base are recognized by their hash. Any other vocabulary is checked by a round trip, and "
        "needs --name. Of a .tiktoken file that is not one of them, GPT-2's rule to cut text is assumed.",
        examples=(
            "tui-llm vocabulary add cl100k_base.tiktoken",
            "tui-llm vocabulary add tokenizer.json --name theirs",
        ),
    )
    action.add_argument("file", metavar="FILE", help="a .tiktoken file, a tokenizer.json, or vocab.json and merges.txt (either, or their folder)")  # fmt: skip
    action.add_argument("--name", metavar="NAME", help="its name, unless it is one of the three; --tokenizer NAME then uses it")  # fmt: skip
    force_option(action)
    json_option(action)


def add_vocabulary(options: argparse.Namespace) -> None:
    from tui_llm.common import paths
    from tui_llm.common.display import visible
    from tui_llm.llm.tokens import add_vocabulary

    name, path, note = add_vocabulary.add(paths.expand(options.file), options.name, force=options.force)
    if options.json:
        put_json({"name": name, "path": str(path), "note": note})
        return
    put(f"{visible(name)} is saved in {visible(str(path))}; --tokenizer {visible(name)} uses it")
    if note:
        put(note)


def train_vocabulary(options: argparse.Namespace) -> None:
    from pathlib import Path

    from tui_llm.common.display import visible
    from tui_llm.common.new_files import check_folder, write_folder
    from tui_llm.llm.data import corpora
    from tui_llm.llm.data.formats import TextFormat
    from tui_llm.llm.learn import train_bpe
    from tui_llm.llm.tokens.vocabulary_folder import save_folder

    folder, places = out_path(options.out, "--out"), list(map(corpora.place, options.corpus))
    reads = [*map(Path, places), *corpora.files(places)]
    how = TextFormat(options.format, options.field)
    check_folder(folder, force=options.force, inputs=reads)  # before the work, which takes time
    made = train_bpe.train(places, options.size, folder.name, show_progress, how)
    write_folder(
        folder,
        lambda part: save_folder(made, part),
        last="vocab.json",
        force=options.force,
        inputs=reads,
    )
    if options.json:
        put_json({"size": made.size, "path": str(folder)})
        return
    put(f"{made.size:,} tokens are in {visible(str(folder))}{os.sep}: vocab.json and merges.txt")
