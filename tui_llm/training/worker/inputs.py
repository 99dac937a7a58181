"""What a worker loads before the first step: device, vocabulary, corpus and model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from tui_llm.common import storage
from tui_llm.common.errors import UserError
from tui_llm.common.files import write_folder, write_json
from tui_llm.common.foreign_files import read_json
from tui_llm.llm.data import answer_rows, closed_vocabulary, corpus
from tui_llm.llm.data.answer_rows import AnswerRows
from tui_llm.llm.data.corpus import Corpus
from tui_llm.llm.data.examples import document_starts
from tui_llm.llm.hub import hub
from tui_llm.llm.model import attention_only, model_config, switches
from tui_llm.llm.model.device import use_threads
from tui_llm.llm.model.model import GPT
from tui_llm.llm.tokens.closed import ClosedTokenizer
from tui_llm.llm.tokens.closed_files import KINDS
from tui_llm.llm.tokens.tokenizer import Tokenizer
from tui_llm.training.plan import answers, cost, sample_prompt
from tui_llm.training.plan.start import FOLDER
from tui_llm.training.run.run import ANSWERS, VOCABULARY
from tui_llm.training.run.settings import PRETRAINING
from tui_llm.training.worker import measurements
from tui_llm.training.worker.worker import Worker


@dataclass(frozen=True, slots=True)
class Inputs:
    """A run's inputs on one process. `start` is the folder of the model to start from; None: random weights.

    A run on text has a `corpus`, one that learns preferences or a reward has `answers`; the other is None.
    """

    device: torch.device
    start: Path | None
    tokenizer: Tokenizer
    corpus: Corpus | None
    answers: AnswerRows | None = None


def load(worker: Worker) -> Inputs:
    """Sets the number of CPU threads, and loads the inputs, rank 0 first, so that the others find the tokenized corpus in the cache.

    Raises `UserError`, or `Stopped` if the worker is told to stop.
    """
    run, s, ranks = worker.run, worker.settings, worker.ranks
    use_threads(s.threads)
    with ranks.in_turn():
        device = ranks.choose(worker.config.device)
        worker.facts |= {"device": str(device), "processes": ranks.world, **measurements.environment(device)}
        worker.report("starting", "opening the vocabulary")
        start = run.path / FOLDER if s.from_model else None
        rows = model_config.read_config(start).vocabulary if start else None
        tokenizer = hub.load_trained(start, s.from_model, rows) if start else _vocabulary(worker)
        if s.objective != PRETRAINING:
            return _answers(worker, device, start, tokenizer)
        text = corpus.load(
            worker.config.corpus,
            tokenizer,
            s.validation_fraction,
            block_size=s.block_size,
            progress=worker.report_progress,
            how=s.text_format,
        )
        _check_corpus(worker, text.digest)
        if s.shuffle_documents == "on":
            _check_documents(s.tokenizer, text)
    worker.facts |= {"vocabulary": tokenizer.size, "unigram_entropy": text.unigram_entropy,
                     "bigram_entropy": text.bigram_entropy, "train_tokens": len(text.train)}  # fmt: skip
    if text.floor is not None:
        worker.facts["floor"] = text.floor
    return Inputs(device, start, tokenizer, text)


def _answers(worker: Worker, device: torch.device, start: Path | None, tokenizer: Tokenizer) -> Inputs:
    """The inputs of a run that learns from answers. They are tokenized once, unless that was done when the run was made."""
    run = worker.run
    path = run.path / ANSWERS
    if start is None:
        raise UserError(f"run {run.name} has no model to start from; start a new run")
    if not path.exists():
        made = answers.rows(
            worker.settings, worker.config.corpus, start, lambda row: worker.report_progress(f"tokenized {row:,} rows")
        )
        assert made is not None
        part = path.with_name(f".{path.name}.part")
        made.save(part)
        storage.replace(part, path)
        storage.sync_folder(run.path)
    found = answer_rows.load(path, tokenizer.size)
    worker.facts |= {"vocabulary": tokenizer.size, "rows": len(found)}
    return Inputs(device, start, tokenizer, None, found)


def _check_documents(vocabulary: str, text: Corpus) -> None:
    """Raises `UserError` if there are no documents to shuffle."""
    if text.separator is None:
        raise UserError(
            f"the vocabulary {vocabulary} has no <|endoftext|> between documents; start a run without shuffle documents"
        )
    if len(document_starts(text.train, text.separator)) < 3:
        raise UserError(
            "the text has no documents to shuffle: fewer than three; start a run without shuffle documents, or put a line of <|endoftext|> between them"
        )


def _vocabulary(worker: Worker) -> Tokenizer:
    """The vocabulary that the settings name; `char` and `word` are made from the corpus once, and stay in the run."""
    s, folder = worker.settings, worker.run.path / VOCABULARY
    if s.tokenizer not in KINDS:
        return hub.training_tokenizer(s.tokenizer)
    if not folder.is_dir():
        tokens = closed_vocabulary.tokens(worker.config.corpus, s.tokenizer, s.text_format, worker.report_progress)
        write_folder(folder, ClosedTokenizer(s.tokenizer, s.tokenizer, tokens).save)
    made = hub.load_trained(folder, s.tokenizer)
    sample_prompt.usable(s.sample_prompt, made.encode)
    return made


def random_model(worker: Worker, inputs: Inputs) -> GPT:
    """Returns the run's model with random weights, which the seed determines."""
    s, start = worker.settings, inputs.start
    torch.manual_seed(s.seed)
    shape = model_config.read_config(start) if start else cost.shape(s, inputs.tokenizer.size)
    worker.shape = dataclasses.replace(shape, dropout=s.dropout)
    model = GPT(worker.shape)
    if s.arch and not start and switches.zeroed(s.arch):
        model.zero_outputs()
    if s.attention_only == "on":
        attention_only.silence(model)
    worker.facts["parameters"] = model.config.parameters()
    return model


def _check_corpus(worker: Worker, digest: str) -> None:
    """Records the corpus's digest at first. Raises `UserError` if a resumed run's corpus has another one."""
    run = worker.run
    path = run.path / "corpus.json"
    if path.exists():
        before = read_json(path)
        if not isinstance(before, dict) or before.get("digest") != digest:
            raise UserError(
                f"the corpus of run {run.name} has changed since it began; put the old text back, or start a new run"
            )
    elif worker.records_corpus:
        write_json(path, {"digest": digest})
