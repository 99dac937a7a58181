"""`tui-llm evaluate`: a model's loss on text that it has not seen."""

from __future__ import annotations

import argparse

from tui_llm.commands.shared.command import Commands, Parser
from tui_llm.commands.shared.options import CORPUS, MODEL, format_options, json_option, model_options
from tui_llm.commands.shared.output import put, put_json

ID_BYTES = 16  # memory for each byte of text: the text, and a list of its ids


def add(commands: Commands) -> None:
    commands.add(
        "evaluate",
        "text that a model has not seen → its loss and bits per byte",
        evaluate,
        _add_options,
        more="Prints the mean loss per token in nats, its perplexity, and bits per byte, by which models with different vocabularies "
        f"can be compared. {MODEL}",
        examples=("tui-llm evaluate book.txt --model nano",),
    )


def _add_options(parser: Parser) -> None:
    parser.add_argument("corpus", nargs="+", metavar="TEXT", help=CORPUS)
    format_options(parser)
    model_options(parser)
    json_option(parser)


def evaluate(options: argparse.Namespace) -> None:
    from tui_llm.common import memory
    from tui_llm.common.display import visible
    from tui_llm.llm.data import corpora
    from tui_llm.llm.data.corpus import documents
    from tui_llm.llm.data.formats import TextFormat
    from tui_llm.llm.data.texts import read_text
    from tui_llm.llm.hub import lookup, open_model
    from tui_llm.llm.learn import evaluate as evaluation
    from tui_llm.llm.model import device

    how = TextFormat(options.format, options.field)
    place, found = device.choose(options.device), lookup.find(options.model)
    model, vocabulary = open_model.open_gpt(found.folder, found.name, place)
    end = [] if vocabulary.end_of_text is None else [vocabulary.end_of_text]
    rows = []
    for path in corpora.files(list(map(corpora.place, options.corpus))):
        ids = list(end)  # in front too, so that the first token has a context
        free = memory.free_bytes()
        for document in documents(read_text(path, None if free is None else free // ID_BYTES, how)):
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
        f"{all.loss:8.4f} nats per token  {all.bits_per_byte:7.4f} bits per byte  {all.tokens:9,} tokens  in total, by {visible(found.name)}"
    )
