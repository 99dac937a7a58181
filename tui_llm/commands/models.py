"""A model on unseen text, and vocabularies: evaluate, vocabulary."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tui_llm import paths
from tui_llm.commands.output import out_path, put, put_json
from tui_llm.display import visible
from tui_llm.new_files import check_folder, write_folder


def evaluate(options: argparse.Namespace) -> None:
    from tui_llm.llm import corpora, device, hub, opened
    from tui_llm.llm import evaluate as evaluation
    from tui_llm.llm.corpus import documents
    from tui_llm.llm.texts import read_text

    place, found = device.choose(options.device), hub.find(options.model)
    model, vocabulary = opened.open_gpt(found.folder, found.name, place)
    end = [] if vocabulary.end_of_text is None else [vocabulary.end_of_text]
    rows = []
    for path in corpora.files(list(map(corpora.place, options.corpus))):
        ids = list(end)  # in front too, so that the first token is predicted from something
        for document in documents(read_text(path)):
            ids += vocabulary.encode(document) + end
        made = evaluation.evaluate(
            model, ids, lambda id: b"" if vocabulary.is_special(id) else vocabulary.token_bytes(id)
        )
        rows.append((str(path), made))
        if not options.json:
            put(
                f"{made.loss:8.4f} nats per token  {made.bits_per_byte:7.4f} bits per byte  {made.tokens:9,} tokens  {visible(path.name)}"
            )
    tokens = sum(made.tokens for _, made in rows)
    all = evaluation.Evaluation(tokens, sum(m.bytes for _, m in rows), sum(m.loss * m.tokens for _, m in rows) / tokens)
    if options.json:
        fields = [
            {
                "path": path,
                "tokens": m.tokens,
                "bytes": m.bytes,
                "loss": m.loss,
                "bits_per_byte": m.bits_per_byte,
            }
            for path, m in rows
        ]
        put_json({"model": found.name, "step": found.step, "tokens": all.tokens, "bytes": all.bytes, "loss": all.loss,
                     "perplexity": all.perplexity, "bits_per_byte": all.bits_per_byte, "files": fields})  # fmt: skip
        return
    put(
        f"{all.loss:8.4f} nats per token  {all.bits_per_byte:7.4f} bits per byte  {all.tokens:9,} tokens  in all, by {visible(found.name)}"
    )


def vocabulary(options: argparse.Namespace) -> None:
    from tui_llm.llm import tokenizer as tk

    if options.action == "add":
        from tui_llm.llm import adding

        name, path = adding.add(paths.expand(options.file), options.name, force=options.force)
        if options.json:
            put_json({"name": name, "path": str(path)})
            return
        put(f"{visible(name)} is kept in {visible(str(path))}; --tokenizer {visible(name)} uses it")
        return
    from tui_llm.llm import corpora
    from tui_llm.llm import vocabulary as learning

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
