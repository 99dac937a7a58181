"""The manual that `--help` prints: what each command needs and prints, its examples; files, environment, exit status.

Laid over the parsers when all of them are there, so that every page is made alike. A line that begins with two spaces
stays as it is; the rest is wrapped.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from typing import NamedTuple

WIDEST = 80


class Page(NamedTuple):
    more: str  # what it needs and what it prints
    examples: tuple[str, ...]


MODEL = "--model takes a shipped model, a run, a model folder or a GGUF file."
PAGES = {
    "tokens": Page(
        "Prints a row a token: its place, id, bytes and text. It needs a vocabulary, no model is run. The bytes of all tokens "
        "together are the text's.",
        ('tui-llm tokens "Hello, world"', 'tui-llm tokens "Hello, world" --tokenizer byte --json', 'tui-llm tokens "unbelievable" --compare'),
    ),
    "examples": Page(
        "A text is its own labels: after each token comes the one to predict. Prints a row a pair; with --loss also what the model "
        "makes of it, in nats.",
        ('tui-llm examples "The cat sat on the mat"', 'tui-llm examples "The cat sat on the mat" --loss'),
    ),
    "logits": Page(
        f"Prints the likeliest next tokens: logit, raw p (softmax of the logits alone) and p (after temperature, cuts and renormalising: what is drawn from). {MODEL}",
        (
            'tui-llm logits "Once upon a time" --top 5 --temperature 0.8 --top-p 0.9',
            'tui-llm logits "The cat" --find dog',
            'tui-llm logits "The cat" --stages --json',
        ),
    ),
    "softmax": Page(
        "Needs no model: the logits are yours. Prints the table that `logits` prints.",
        ("tui-llm softmax mat=3.2 rug=1.3 moon=-2.1", "tui-llm softmax a=1 b=0 --temperatures 0.5,1,2"),
    ),
    "loss": Page(
        f"Prints loss = logsumexp − logit = −ln p for each token of the target, each predicted with those before it given; sum and mean in nats, bits and perplexity. {MODEL}",
        ('tui-llm loss "Once upon a" --target " time"', 'tui-llm loss "The cat sat on the" --target " mat" --json'),
    ),
    "generate": Page(
        f"Streams the text to stdout as it is drawn; a seed, a model and settings always give the same text. {MODEL}",
        ('tui-llm generate "Once upon a time" --max-tokens 40 --seed 1', 'tui-llm generate "Once upon a time" --temperature 0'),
    ),
    "train": Page(
        "Makes a run and trains it in a process of its own, which goes on when the terminal is gone. Prints a line now and then until it is done; Ctrl+C "
        "asks it to save and leave, twice lets it run on. With --cost nothing is trained.",
        (
            "tui-llm train book.txt --run first --preset toy --steps 60",
            "tui-llm train stories --preset small --detach",
            "tui-llm train --resume --run first",
            "tui-llm train stories --preset small --cost --measure",
            "tui-llm train pairs.tsv --from nano --instruct --run tim",
        ),
    ),
    "evaluate": Page(
        f"Prints the mean loss a token in nats, its perplexity, and bits per byte, which models of different vocabularies can be compared by. {MODEL}",
        ("tui-llm evaluate book.txt --model nano",),
    ),
    "runs": Page(
        "Without an action prints a row a run: state, steps, loss. `tui-llm runs ACTION --help` says more of each action.",
        ("tui-llm runs", "tui-llm runs compare first second", "tui-llm runs rename first best"),
    ),
    "runs rename": Page("The run's folder takes the new name. Nobody may be training it.", ("tui-llm runs rename first best",)),
    "runs delete": Page("Asks on the terminal unless --yes is given. Nobody may be training it.", ("tui-llm runs delete first", "tui-llm runs delete first --yes")),
    "runs compare": Page("Prints the settings in which they differ, and the last losses of each.", ("tui-llm runs compare first second",)),
    "control": Page(
        "The run's worker does it at its next step. Several things can be asked at once.",
        ("tui-llm control first --save", "tui-llm control first --learning-rate 1e-4", "tui-llm control first --pause"),
    ),
    "probes": Page(
        "Prints for each evaluation what the model said to the prompts that were pinned: the target's p, or the likeliest token.",
        ("tui-llm probes first", "tui-llm probes first --at 50", "tui-llm probes first --between 0 50"),
    ),
    "stop": Page("Sends SIGTERM to the worker; it saves a checkpoint, then leaves. `train --resume` goes on from there.", ("tui-llm stop first",)),
    "export": Page(
        "Writes config.json, model.safetensors, the vocabulary and a card: Hugging Face's layout for GPT-2, which `transformers` opens. "
        "The folder must not be there, or be empty; --force replaces the files of those names in it, and no others.",
        ("tui-llm export first my-model", "tui-llm export first logs --tensorboard"),
    ),
    "vocabulary": Page(
        "`train` learns one from text (extra `vocabulary`), `add` keeps one from a file, for machines without a network.",
        ("tui-llm vocabulary train book.txt --size 4096 --out words", "tui-llm vocabulary add cl100k_base.tiktoken"),
    ),
    "vocabulary train": Page("Needs the extra `vocabulary`. Writes vocab.json and merges.txt.", ("tui-llm vocabulary train book.txt --size 4096 --out words",)),
    "vocabulary add": Page(
        "One of the three that everybody knows is recognised by its hash. Another is checked by a round trip, and needs --name.",
        ("tui-llm vocabulary add cl100k_base.tiktoken", "tui-llm vocabulary add tokenizer.json --name theirs"),
    ),
    "merges": Page("Byte-pair encoding step by step: each merge takes the pair of the lowest rank. Needs a BPE vocabulary.", ('tui-llm merges " strawberry"',)),
    "letters": Page("Prints the tokens with that letter in them, and how often. The model sees ids only.", ('tui-llm letters strawberry --letter r',)),
    "surprisal": Page(f"Prints for each token −ln p in nats, p, its rank, and the entropy of the prediction it was drawn from. {MODEL}", ('tui-llm surprisal "The cat sat on the moon"',)),
    "attention": Page(
        f"Prints softmax(q · k ÷ √D) from one token to each earlier one: of a head, or the mean of several. {MODEL}",
        ('tui-llm attention "The cat sat on the"', 'tui-llm attention "The cat sat on the" --layer 2 --head 3'),
    ),
    "lens": Page(
        f"Prints a row a layer: the last LayerNorm and the head on the residual stream there, as if the model ended. {MODEL}",
        ('tui-llm lens "The cat sat on the"', 'tui-llm lens "The cat sat on the" --target " mat"'),
    ),
    "neighbours": Page(f"Prints the nearest tokens by the cosine of the angle between embeddings. {MODEL}", ('tui-llm neighbours " king"', 'tui-llm neighbours "#464" --count 5')),
    "models": Page(
        "Without an action prints a row a model: those that ship, runs, pulled ones, folders in the models folder. `tui-llm models ACTION --help` says more of each action.",
        ("tui-llm models", "tui-llm models pull gpt2", "tui-llm models info nano"),
    ),
    "models pull": Page(
        "Needs the extra `hub` and a network, or a cache or mirror that has the model. Goes on where it was cut off. Safetensors and JSON only: nothing is unpickled, no code is fetched.",
        ("tui-llm models pull gpt2", "tui-llm models pull EleutherAI/pythia-70m --revision main"),
    ),
    "models info": Page("Prints its figures and its card. Nothing is loaded.", ("tui-llm models info nano",)),
    "models delete": Page("Asks on the terminal unless --yes is given. What ships and what a run holds stays.", ("tui-llm models delete gpt2",)),
    "serve": Page(
        "Needs the extra `serve`. Serves until Ctrl+C; every browser tab is a process of its own. Whoever can open the page can use the app as you, so other addresses need --expose.",
        ("tui-llm serve", "tui-llm serve --port 8123 --model nano"),
    ),
    "batch": Page("Prints x, y and the loss of each token: of the last checkpoint's next batch, or with --now of the worker's.", ("tui-llm batch first", "tui-llm batch first --now")),
    "samples": Page("Prints the step of each evaluation and the text written then.", ("tui-llm samples first", "tui-llm samples first --last 3")),
    "learn": Page(
        f"Prints loss and p before and after, what rose and what fell, and what became of other prompts. The model itself stays as it is. {MODEL}",
        ('tui-llm learn "The cat sat on the" --target " mat"', 'tui-llm learn "The cat sat on the" --target " mat" --also "Once upon a=> time"'),
    ),
    "draw": Page(
        f"Prints where u falls on the cumulative distribution, at each temperature; with --count a histogram beside what is expected. {MODEL}",
        ('tui-llm draw "The cat sat on the" --u 0.618 --temperature 0.5,1,2', 'tui-llm draw "The cat sat on the" --count 1000'),
    ),
    "tree": Page(f"Prints the tree, each way with the product of its tokens' p. {MODEL}", ('tui-llm tree "Once upon a time" --branch 2 --depth 3',)),
    "tour": Page(
        "Half an hour, no network. It checks what you do, says what is missing, and goes on by itself; F4 skips, F3 goes back, F2 closes it. Where you are is kept.",
        ("tui-llm tour", "tui-llm tour --again", "tui-llm tour --json"),
    ),
    "bench": Page(
        "Prints medians: tokens a second while writing, milliseconds a key while typing, training steps, and what the machine can do at most.",
        ("tui-llm bench", "tui-llm bench decode --weights int8"),
    ),
    "completion": Page(
        "It completes commands, options and their values, and the names of models, runs, vocabularies and corpora. Put one of these into your shell's start-up file, or for fish run it once:\n\n"
        '  bash   eval "$(tui-llm completion bash)"\n'
        '  zsh    eval "$(tui-llm completion zsh)"      after compinit\n'
        "  fish   tui-llm completion fish > ~/.config/fish/completions/tui-llm.fish",
        ("tui-llm completion bash", "tui-llm completion models"),
    ),
}  # fmt: skip

TOP = Page(
    "",
    ("tui-llm", "tui-llm tour", 'tui-llm --model nano --prompt "The cat sat on the"', 'tui-llm logits "Once upon a time" --top 5'),
)  # fmt: skip
TOP_SECTIONS = """exit status:
  0    done
  1    a run that was followed failed after it had begun
  2    wrong input, or it could not be done: one line on stderr says what to do
  130  interrupted with Ctrl+C

environment:
  TUI_LLM_HOME  keep everything in this folder: data, cache and log
  TUI_LLM_DEBUG show tracebacks, which otherwise go to LOG/errors.log
  NO_COLOR      the app in shades of grey
  COLUMNS       how wide tables and this help are
  HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE
                as in the hub's own library, for pulled models
  TIKTOKEN_CACHE_DIR
                also looked into for gpt2, cl100k_base and o200k_base

files:
  DATA/runs/NAME/      a run: settings, metrics, samples, checkpoints, log
  DATA/models/         pulled models and your own
  DATA/vocabularies/   vocabularies added under a name
  DATA/pins.json       pinned prompts
  DATA/tour.json       where you are in the tour
  CACHE/               downloads and tokenised text: can be deleted
  LOG/                 app.log, errors.log
  DATA, CACHE and LOG are the system's folders for tui-llm (on Linux
  ~/.local/share/tui-llm, ~/.cache/tui-llm and ~/.local/state/tui-llm/log),
  or in TUI_LLM_HOME.

Every command but serve and completion takes --json. `tui-llm COMMAND --help`
says what each needs and prints."""
ARGUMENTS = {  # positional arguments that say nothing of themselves, by metavar
    "TEXT": "the text, in quotes where it has spaces",
    "PROMPT": "the text whose next token is predicted, in quotes where it has spaces",
    "TOKEN=LOGIT": "a token and its logit, such as mat=3.2",
    "RUN": "the name of a run, as `tui-llm runs` lists it",
    "OLD": "the name that the run has",
    "NEW": "the name that it gets",
    "MODEL": "its name, as `tui-llm models` lists it",
    "NAME": "its name, as `tui-llm models` lists it",
    "FOLDER": "where it goes: a folder that is not there yet, or is empty",
}


class Formatter(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=min(WIDEST, shutil.get_terminal_size().columns) - 2)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Paragraph by paragraph; one with a line that begins with two spaces stays as it is."""
        kept = []
        for paragraph in text.split("\n\n"):
            as_is = any(line.startswith("  ") for line in paragraph.splitlines()) or "\n" in paragraph
            kept.append(paragraph if as_is else super()._fill_text(paragraph, width, indent))
        return "\n\n".join(kept)


def parsers(parser: argparse.ArgumentParser, path: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every parser by what is typed to reach it; the top one's is empty."""
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield from parsers(sub, f"{path} {name}".strip())


def lay_over(top: argparse.ArgumentParser) -> None:
    """Gives every parser its page."""
    lines = {}  # what the list of commands or actions says of each
    for path, parser in parsers(top):
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                lines.update({f"{path} {choice.dest}".strip(): choice.help for choice in action._choices_actions})
            elif not action.option_strings and not action.help:
                action.help = ARGUMENTS.get(str(action.metavar))
        page = PAGES.get(path, TOP if not path else Page("", ()))
        first = parser.description or f"{(lines.get(path) or '').capitalize()}."
        examples = "\n".join(["examples:", *(f"  {line}" for line in page.examples)])
        parser.description = f"{first}\n\n{page.more}" if page.more else first
        parser.epilog = examples if path else f"{examples}\n\n{TOP_SECTIONS}"
        parser.formatter_class = Formatter
