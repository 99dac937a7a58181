"""A model on unseen text, and vocabularies: evaluate, vocabulary."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tui_llm.commands.output import out_path, put, put_json
from tui_llm.common import paths
from tui_llm.common.display import visible
from tui_llm.common.new_files import check_folder, write_folder


def vocabulary(options: argparse.Namespace) -> None:
    from tui_llm.llm.tokens import tokenizer as tk

    if options.action == "add":
        from tui_llm.llm.tokens import add_vocabulary

        name, path = add_vocabulary.add(paths.expand(options.file), options.name, force=options.force)
        if options.json:
            put_json({"name": name, "path": str(path)})
            return
        put(f"{visible(name)} is kept in {visible(str(path))}; --tokenizer {visible(name)} uses it")
        return
    from tui_llm.llm.data import corpora
    from tui_llm.llm.learn import train_bpe as learning

    folder, places = out_path(options.out, "--out"), list(map(corpora.place, options.corpus))
    reads = [*map(Path, places), *corpora.files(places)]
    check_folder(folder, force=options.force, inputs=reads)  # known before the work is done
    made = learning.train(places, options.size, folder.name, _said)
    write_folder(folder, lambda part: tk.save_folder(made, part), last="vocab.json", force=options.force, inputs=reads)
    if options.json:
        put_json({"size": made.size, "path": str(folder)})
        return
    put(f"{made.size:,} tokens are in {visible(str(folder))}{os.sep}: vocab.json and merges.txt")


def _said(line: str) -> None:
    """Progress, for people who look."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[2K{visible(line)}" if line else "\r\x1b[2K")
        sys.stderr.flush()
