"""What each command of the command line does: one function a command, named like it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tui_llm import report
from tui_llm.display import visible
from tui_llm.errors import UserError
from tui_llm.llm.sampler import SamplerSettings
from tui_llm.reading import Reading, Request, Target

if TYPE_CHECKING:
    from tui_llm.engine import PipelineEngine
    from tui_llm.llm.tokenizer import Tokenizer
    from tui_llm.training.run import Run


def _print(value: object) -> None:
    print(value)


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=True, allow_nan=False))


def _settings(options: argparse.Namespace) -> SamplerSettings:
    return SamplerSettings(options.temperature, options.top_k, options.top_p, options.min_p)


# ── text → tokens ────────────────────────────────────────────────────────────────────────────────────────────────


def _tokenizer(name: str) -> Tokenizer:
    from tui_llm.llm import hub, named
    from tui_llm.llm import tokenizer as tk

    if name in (*named.NAMED, *named.COMPARED):
        return named.load_named(name)
    return tk.load_folder(hub.find(name).folder, name)


def tokens(options: argparse.Namespace) -> None:
    from tui_llm.tokenization import tokenization

    vocabulary = _tokenizer(options.tokenizer)
    ids = vocabulary.encode(options.text, allow_special=options.allow_special)
    made = tokenization(vocabulary, ids)
    _print_json(report.tokens_json(made)) if options.json else _print(report.tokens_text(made))


def examples(options: argparse.Namespace) -> None:
    from tui_llm.display import visible_token
    from tui_llm.llm.examples import pairs
    from tui_llm.llm.token_bytes import token_text
    from tui_llm.tokenization import bytes_of

    vocabulary = _tokenizer(options.tokenizer)
    ids = vocabulary.encode(options.text, allow_special=options.allow_special)

    def text(*ids: int) -> str:
        return token_text(b"".join(bytes_of(vocabulary, id) for id in ids))

    count = max(0, len(ids) - 1)
    if options.json:
        rows = [
            {"input": list(seen), "target": target, "input_text": text(*seen), "target_text": text(target)}
            for seen, target in pairs(ids)
        ]
        _print_json({"count": count, "tokenizer": vocabulary.name, "pairs": rows})
        return
    _print(
        f"{len(ids):,} tokens in {visible(vocabulary.name)} make {count:,} training pairs: after each token, the one to predict"
    )
    for seen, target in pairs(ids):
        _print(f"{visible_token(text(*seen))}  →  {visible_token(text(target))}")


# ── prompt → reading ─────────────────────────────────────────────────────────────────────────────────────────────


def _engine(options: argparse.Namespace) -> PipelineEngine:
    from tui_llm.engine import PipelineEngine

    engine = PipelineEngine(options.device)
    engine.open(options.model)
    return engine


def _read(options: argparse.Namespace, **more: Any) -> Reading:
    request = Request(
        prompt=options.prompt, allow_special=options.allow_special, start_token=options.bos, **more
    )
    reading = _engine(options).read(request)
    if reading.problem:
        hint = " (--bos)" if not reading.prompt_ids else ""
        raise UserError(reading.problem + hint)
    return reading


def logits(options: argparse.Namespace) -> None:
    if options.top < 1:
        raise UserError(f"--top is {options.top}; give 1 or more")
    reading = _read(options, sampler=_settings(options), top=options.top)
    if options.json:
        _print_json(report.logits_json(reading))
        return
    assert reading.distribution is not None
    _print(report.heading(reading))
    _print(report.distribution_text(reading.distribution))


def softmax(options: argparse.Namespace) -> None:
    """The table for logits typed by hand; a token's id is its place on the command line."""
    import torch

    from tui_llm.engine import distribution_reading
    from tui_llm.llm.distribution import Sorted

    typed = []
    for word in options.logits:
        name, equals, number = word.rpartition("=")
        try:
            typed.append((name, float(number)))
        except ValueError:
            equals = ""
        if not equals or not name:
            raise UserError(f"{word!r} is not TOKEN=LOGIT, such as mat=3.2")
    values = torch.tensor([value for _, value in typed], dtype=torch.float32)
    spread = distribution_reading(
        Sorted.of(values, "the logits", "give finite numbers, or -inf for a token that can't be"),
        _settings(options),
        len(typed),
        lambda id: typed[id][0].encode(errors="replace"),
    )
    _print_json(report.distribution_json(spread)) if options.json else _print(
        report.distribution_text(spread)
    )


def loss(options: argparse.Namespace) -> None:
    reading = _read(options, target=Target(text=options.target), top=1)
    assert reading.loss is not None
    if reading.loss.problem:
        raise UserError(reading.loss.problem)
    if options.json:
        _print_json(report.loss_json(reading))
        return
    _print(report.heading(reading))
    _print(report.loss_text(reading.loss))


def generate(options: argparse.Namespace) -> None:
    if options.max_tokens < 0:
        raise UserError(f"--max-tokens is {options.max_tokens}; give 0 or more")
    request = Request(
        prompt=options.prompt,
        allow_special=options.allow_special,
        start_token=options.bos,
        sampler=_settings(options),
    )
    from tui_llm.llm.token_bytes import token_text

    engine = _engine(options)
    steps = engine.generate(
        request, seed=options.seed, count=options.max_tokens, stop_at_end=not options.ignore_end
    )
    if not options.json:
        sys.stdout.write(visible(options.prompt, newlines=True))
        data, shown = b"", ""
        for step in steps:
            sys.stdout.write(visible(step.text, newlines=True))
            sys.stdout.flush()
            data, shown = data + step.bytes, shown + step.text
        _print(visible(token_text(data)[len(shown) :], newlines=True))  # bytes that no later token completed
        return
    made = list(steps)
    ids = [step.id for step in made]
    _print_json(
        {
            "model": engine.weights().name,
            "step": engine.weights().step,
            "prompt_ids": list(engine.read(Request(prompt=options.prompt, allow_special=options.allow_special,
                                                   start_token=options.bos, top=1)).prompt_ids),
            "ids": ids,
            "text": engine.tokenizer.decode(ids),
            "seed": options.seed,
            "steps": [report.step_json(step) for step in made],
        }
    )  # fmt: skip


# ── training ─────────────────────────────────────────────────────────────────────────────────────────────────────

_FIELDS = ("steps", "batch_size", "block_size", "learning_rate", "seed", "layers", "heads", "width", "tokenizer",
           "accumulation", "eval_every", "checkpoint_every", "sample_prompt")  # fmt: skip


def train(options: argparse.Namespace) -> int:
    from tui_llm.training import launch
    from tui_llm.training.follow import follow
    from tui_llm.training.run import find

    given = {name: getattr(options, name) for name in _FIELDS if getattr(options, name) is not None}
    if options.resume:
        run = find(options.run)
        _check_resume(run, options, given)
    else:
        run = _new_run(options, given)
    launch.start(run)
    if options.detach:
        held = launch.wait_until_held(run)
        status = run.status()
        if status.state == "failed":
            raise UserError(f"run {run.name} failed: {status.message}")
        if options.json:
            _print_json({"run": run.name, "path": str(run.path), "state": status.state, "alive": held})
        else:
            _print(
                f"run {run.name} goes on by itself: `tui-llm runs` shows it, `tui-llm stop {run.name}` stops it"
            )
        return 0
    return follow(run, as_json=options.json)


def _new_run(options: argparse.Namespace, given: dict[str, Any]) -> Run:
    import dataclasses

    from tui_llm.llm.hub import training_tokenizer
    from tui_llm.training import launch
    from tui_llm.training.presets import from_fields, preset

    name = options.preset or "small"
    base = preset(name)
    if "steps" in given and "learning_rate" not in given:
        # A shorter run needs its warm-up and its evaluations within reach.
        steps = from_fields({"steps": given["steps"]}).steps
        base = dataclasses.replace(base, warmup_steps=min(base.warmup_steps, max(1, steps // 10)))
    settings = from_fields(given, base)
    training_tokenizer(settings.tokenizer)  # a name that can't be opened is told now, not in the worker's log
    return launch.create(options.run, options.corpus, settings, preset=name, device=options.device or "auto")


def _check_resume(run: Run, options: argparse.Namespace, given: dict[str, Any]) -> None:
    """A resumed run goes on as it began: what is said again must be the same."""
    from tui_llm.training.presets import from_fields

    config = run.config()
    if from_fields(given, config.settings) != config.settings:
        changed = ", ".join(
            n.replace("_", "-")
            for n in given
            if from_fields({n: given[n]}, config.settings) != config.settings
        )
        raise UserError(
            f"run {run.name} was begun with another {changed}; resume it without, or start a new run"
        )
    if options.corpus and tuple(str(Path(p).expanduser().resolve()) for p in options.corpus) != config.corpus:
        raise UserError(
            f"run {run.name} was begun on another corpus; resume it without naming one, or start a new run"
        )


def evaluate(options: argparse.Namespace) -> None:
    from tui_llm.llm import checkpoint, device, hub, tokenizer
    from tui_llm.llm import evaluate as evaluation
    from tui_llm.llm.corpus import documents
    from tui_llm.llm.texts import files, read_text

    place, found = device.choose(options.device), hub.find(options.model)
    model, vocabulary = checkpoint.load(found.folder, place), tokenizer.load_folder(found.folder, found.name)
    end = [] if vocabulary.end_of_text is None else [vocabulary.end_of_text]
    rows = []
    for path in files([Path(p).expanduser() for p in options.corpus]):
        ids = list(end)  # in front too, so that the first token is predicted from something
        for document in documents(read_text(path)):
            ids += vocabulary.encode(document) + end
        made = evaluation.evaluate(
            model, ids, lambda id: b"" if vocabulary.is_special(id) else vocabulary.token_bytes(id)
        )
        rows.append((str(path), made))
        if not options.json:
            _print(
                f"{made.loss:8.4f} nats per token  {made.bits_per_byte:7.4f} bits per byte  {made.tokens:9,} tokens  {visible(path.name)}"
            )
    tokens = sum(made.tokens for _, made in rows)
    all = evaluation.Evaluation(
        tokens, sum(m.bytes for _, m in rows), sum(m.loss * m.tokens for _, m in rows) / tokens
    )
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
        _print_json({"model": found.name, "step": found.step, "tokens": all.tokens, "bytes": all.bytes, "loss": all.loss,
                     "perplexity": all.perplexity, "bits_per_byte": all.bits_per_byte, "files": fields})  # fmt: skip
        return
    _print(
        f"{all.loss:8.4f} nats per token  {all.bits_per_byte:7.4f} bits per byte  {all.tokens:9,} tokens  in all, by {visible(found.name)}"
    )


def runs(options: argparse.Namespace) -> None:
    from tui_llm import paths
    from tui_llm.training.run import runs as every

    rows: list[dict[str, Any]] = []
    for run in every():
        status, last = run.status(), run.last_metric()
        rows.append(
            {"name": run.name, "state": status.state, "step": status.step, "steps": status.steps,
             "loss": last.loss if last else None, "tokens_per_second": last.tokens_per_second if last else None,
             "message": status.message, "path": str(run.path)}
        )  # fmt: skip
    if options.json:
        _print_json({"runs": rows})
        return
    if not rows:
        _print(f"no runs in {paths.runs_dir()} yet; start one: tui-llm train TEXT.txt --run NAME")
        return
    cells = [
        (visible(r["name"]), r["state"], f"{r['step']:,} / {r['steps']:,}",
         "–" if r["loss"] is None else f"{r['loss']:.4f}", visible(r["message"]))
        for r in rows
    ]  # fmt: skip
    _print(report.table(("run", "state", "step", "loss (nats)", ""), cells, left=(0, 1, 4)))


def stop(options: argparse.Namespace) -> int:
    from tui_llm.training import launch
    from tui_llm.training.run import find

    run = find(options.run)
    launch.stop(run)
    gone = launch.wait_until_gone(run)
    status = run.status()
    if options.json:
        _print_json({"run": run.name, "state": status.state, "step": status.step, "message": status.message})
    else:
        _print(
            f"run {run.name}: {status.state}, {visible(status.message)}"
            if gone
            else f"run {run.name} is still saving"
        )
    return 0


def models(options: argparse.Namespace) -> None:
    from tui_llm.engine import describe
    from tui_llm.llm import hub

    rows = [describe(found) for found in hub.every()]
    if options.json:
        fields = ("name", "kind", "path", "parameters", "context", "vocabulary", "step", "problem")
        _print_json({"models": [{f: getattr(row, f) for f in fields} for row in rows]})
        return
    if not rows:
        _print("no models are here; give a folder in Hugging Face's GPT-2 layout with --model")
        return

    def number(value: int | None) -> str:
        return "–" if value is None else f"{value:,}"

    cells = [
        (
            visible(r.name),
            r.kind,
            number(r.parameters),
            number(r.context),
            number(r.vocabulary),
            number(r.step),
            visible(r.problem or r.path),
        )
        for r in rows
    ]
    _print(
        report.table(
            ("model", "kind", "parameters", "context", "vocabulary", "step", "where"), cells, left=(0, 1, 6)
        )
    )


def export(options: argparse.Namespace) -> None:
    import torch

    from tui_llm.llm import checkpoint, hub, tokenizer
    from tui_llm.training.run import find

    run = find(options.run)
    newest = hub.newest_checkpoint(run.path)
    if newest is None:
        raise UserError(f"run {run.name} has no checkpoint yet; wait for its first one")
    step, source = newest
    folder = Path(options.folder).expanduser()
    vocabulary = tokenizer.load_folder(source, run.name)
    checkpoint.save(
        checkpoint.load(source),
        folder,
        end_of_text=vocabulary.end_of_text,
        dtype=getattr(torch, options.dtype),
    )
    tokenizer.save_folder(vocabulary, folder)
    _print(
        f"run {run.name} at step {step:,} is now the model folder {visible(str(folder))} ({options.dtype})"
    )


def vocabulary(options: argparse.Namespace) -> None:
    from tui_llm.llm import named
    from tui_llm.llm import tokenizer as tk

    if options.action == "add":
        name, path = named.add(Path(options.file).expanduser())
        _print(f"{name} is now in the cache: {visible(str(path))}")
        return
    from tui_llm.llm import vocabulary as learning

    folder = Path(options.out).expanduser()
    made = learning.train([Path(p).expanduser() for p in options.corpus], options.size, folder.name)
    tk.save_folder(made, folder)
    _print(f"{made.size:,} tokens are in {visible(str(folder))}{os.sep}: vocab.json and merges.txt")
