"""The parser of the whole command line; imports nothing slow."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence

from tui_llm import __version__
from tui_llm.commands.manual import lay_over
from tui_llm.commands.options import (
    DEFAULT_MODEL,
    Parser,
    force_option,
    json_option,
    model_options,
    prompt_options,
    sampler_options,
    table_options,
    weights_option,
    whole,
)

FILES = {  # the commands whose options are in a file of their own, in the order that --help lists them
    **dict.fromkeys(("merges", "letters", "surprisal"), "tokens"),
    **dict.fromkeys(("attention", "lens", "neighbours"), "inside"),
    "models": "models",
    "serve": "serve",
    **dict.fromkeys(("batch", "samples"), "run_files"),
    "learn": "learn",
    "draw": "draws",
    "tree": "tree",
    "tour": "tour",
    "bench": "bench",
    "completion": "completion",
}


def files_for(words: Sequence[str]) -> list[str]:
    """The files that a command line of `words` needs: those of the commands among them; all for `--help` in front of any."""
    commands = [i for i, word in enumerate(words) if word in FILES or word in MODULES]
    before = words[: commands[0]] if commands else words
    if any(word.startswith(("-h", "--h")) for word in before):
        return list(dict.fromkeys(FILES.values()))
    return list(dict.fromkeys(FILES[words[i]] for i in commands if words[i] in FILES))


DEFAULT_PROMPT = "Once upon a time, there was a little"

MODULES = {  # where each command's function is
    **dict.fromkeys(("tokens", "examples", "logits", "softmax", "loss", "generate"), "prompts"),
    **dict.fromkeys(("train", "control", "stop", "export"), "training"),
    "runs": "runs",
    "evaluate": "evaluate",
    "vocabulary": "vocabulary",
    "probes": "probes",
    "bench": "bench",
}

CORPUS = (
    "text files, folders, http(s) addresses, python-reference (the language reference that ships inside Python), stories "
    "(from a grammar whose entropy is known) or tinyshakespeare (downloaded); a file or folder of that name in the current folder goes first"
)

TRAINING_OPTIONS = {
    "steps": ("N", "optimiser steps in all"),
    "batch-size": ("B", "rows in a batch"),
    "block-size": ("T", "tokens in a row: the model's context"),
    "learning-rate": ("R", "the highest, after warm-up"),
    "optimiser": ("NAME", "adamw, or muon: Muon for the blocks' matrices, AdamW for the rest"),
    "precision": (
        "NAME",
        "auto, bf16 (bf16 matmuls, fp32 weights), or fp32; auto is bf16 where the device multiplies faster in it",
    ),
    "schedule": ("NAME", "cosine, or wsd: stable after warm-up, then a straight line down"),
    "decay-fraction": ("F", "of the steps go down in wsd"),
    "seed": ("S", "of the first weights and the order of the data"),
    "layers": ("L", "blocks"),
    "heads": ("H", "attention heads in a block"),
    "width": ("C", "numbers in the residual stream, a multiple of the heads"),
    "tokenizer": ("NAME", "byte, gpt2, or the model whose vocabulary to use"),
    "accumulation": ("N", "batches whose gradients make one step"),
    "eval-every": ("N", "steps between two looks at held-out text, each with a sample"),
    "compile": ("HOW", "auto, on or off: torch.compile for the training step; auto is on for CUDA"),
    "checkpoint-every": ("N", "steps between two checkpoints"),
    "sample-prompt": ("TEXT", "what samples begin with"),
    "sample-tokens": ("N", "tokens of a sample"),
    "min-learning-rate": ("R", "the lowest, at the end of the schedule"),
    "warmup-steps": ("N", "steps until the learning rate is at its highest"),
    "weight-decay": ("F", "pulls the matrices towards zero"),
    "beta1": ("F", "of the gradient's moving average in AdamW"),
    "beta2": ("F", "of its square's moving average"),
    "clip": ("F", "the longest that a gradient may be; 0 leaves it as it is"),
    "dropout": ("F", "share of activations that are left out at random"),
    "eval-batches": ("N", "batches of held-out text in an evaluation"),
    "validation-fraction": ("F", "share of the text that is held out"),
}

PIN = "PROMPT, or PROMPT=>TARGET with the text that should come next (split at the last =>; mind its leading space)"


def build_parser(words: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """The parser; with `words` only what a command line of them needs, so that few files are imported."""
    parser = Parser(
        prog="tui-llm",
        description="See how a language model is pre-trained: tokens, logits, loss, training and generated text, on a real "
        "model. Without a command it opens the app.",
    )
    parser.add_argument("--version", action="version", version=f"tui-llm {__version__}")
    model_options(parser)
    weights_option(parser)
    parser.add_argument("--prompt", default=DEFAULT_PROMPT, metavar="TEXT", help="the text to begin with")
    parser.add_argument("--no-mouse", action="store_true", help="leave the mouse to the terminal")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands", parser_class=Parser)

    def command(name: str, help: str, module: str = "") -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        made.set_defaults(module=module or MODULES[name])
        return made

    tokens = command("tokens", "text → tokens: ids, bytes and pieces")
    tokens.add_argument("text", metavar="TEXT")
    examples = command("examples", "text → its n − 1 training pairs of input and target")
    examples.add_argument("text", metavar="TEXT")
    for sub in (tokens, examples):
        sub.add_argument("--tokenizer", default=DEFAULT_MODEL, metavar="NAME",
                         help="gpt2, cl100k_base, o200k_base, word, char, byte, a model's name or folder (default nano)")  # fmt: skip
        sub.add_argument(
            "--allow-special", action="store_true", help="read <|endoftext|> in the text as the special token"
        )

    tokens.add_argument("--compare", action="store_true", help="in words, characters, bytes and every vocabulary at hand, side by side")  # fmt: skip
    examples.add_argument(
        "--loss", action="store_true", help="with the loss on each, of the model whose vocabulary it is"
    )

    logits = command("logits", "prompt → logits and probabilities of the next token")
    logits.add_argument("prompt", metavar="PROMPT")
    prompt_options(logits)
    logits.add_argument("--top", type=whole, default=20, metavar="N", help="how many candidates to list (default 20)")
    logits.add_argument(
        "--find",
        metavar="TEXT",
        help="list the tokens of the whole vocabulary with TEXT in them; =TEXT: exactly it; #262: an id",
    )
    logits.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="ID=LOGIT",
        help="what if: this token had this logit; can be given several times",
    )
    sampler_options(logits)
    table_options(logits)

    softmax = command("softmax", "the same table for logits that you type: TOKEN=LOGIT …")
    softmax.add_argument("logits", nargs="+", metavar="TOKEN=LOGIT")
    softmax.add_argument(
        "--seen",
        action="append",
        default=[],
        metavar="TOKEN",
        help="a token that is in the text already, for the repetition penalty; can be given several times",
    )
    sampler_options(softmax)
    table_options(softmax)

    loss = command("loss", "prompt and target → cross-entropy loss, token by token")
    loss.add_argument("prompt", metavar="PROMPT")
    loss.add_argument(
        "--target",
        required=True,
        metavar="TEXT",
        help="what comes next; mind the leading space, as in ' mat'",
    )
    prompt_options(loss)

    generate = command("generate", "prompt → sampled text")
    generate.add_argument("prompt", metavar="PROMPT")
    prompt_options(generate)
    generate.add_argument(
        "--max-tokens", type=whole, default=100, metavar="N", help="stop after N tokens (default 100)"
    )
    generate.add_argument(
        "--seed", type=whole, default=1, metavar="S", help="the same seed gives the same text (default 1)"
    )
    generate.add_argument("--ignore-end", action="store_true", help="go on after <|endoftext|>")
    sampler_options(generate)

    train = command("train", "train a model on text, in a process of its own")
    train.add_argument("corpus", nargs="*", metavar="CORPUS", help=CORPUS)
    train.add_argument("--run", metavar="NAME", help="what to call the run")
    train.add_argument(
        "--preset", metavar="P", help="toy, small, nano, gpt2, gpt2-medium, gpt2-large or gpt2-xl (default small)"
    )
    train.add_argument("--from", dest="from_model", metavar="M", help="start from this model's weights and vocabulary: a shipped model, a run, or a model folder")  # fmt: skip
    train.add_argument("--instruct", action="store_true", help="fine-tune the model named by --from on question–answer pairs (CORPUS: a .jsonl or .tsv), with the loss on the answers only, here and now; --run names the new model")  # fmt: skip
    for option, (metavar, meaning) in TRAINING_OPTIONS.items():
        train.add_argument(f"--{option}", metavar=metavar, help=meaning + " (instead of the preset's)")
    train.add_argument("--device", metavar="D", help="auto, cpu, cuda or mps")
    train.add_argument("--tensorboard", action="store_true", help="write TensorBoard's event files into the run's folder too")  # fmt: skip
    train.add_argument("--nproc", type=whole, metavar="N", help="processes that share each batch, on a GPU each (default 1; a resumed run keeps its number)")  # fmt: skip
    train.add_argument("--shard", action=argparse.BooleanOptionalAction, help="with several processes: a part of the weights and optimiser in each, for models that don't fit (FSDP)")  # fmt: skip
    train.add_argument("--no-start", action="store_true", help="only make the run and print its folder, for a torchrun of your own")  # fmt: skip
    train.add_argument("--detach", action="store_true", help="return at once; the run goes on by itself")
    train.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")

    train.add_argument("--pin", action="append", metavar="PIN", help=f"read this at every evaluation: {PIN}; may be given again")  # fmt: skip
    train.add_argument("--cost", action="store_true", help="only say what it would cost: parameters, memory, tokens, operations")  # fmt: skip
    train.add_argument("--measure", action="store_true", help="with --cost: a few real steps too (at most 20 s), for the expected time")  # fmt: skip

    evaluate = command("evaluate", "text that a model has not seen → its loss and bits per byte")
    evaluate.add_argument("corpus", nargs="+", metavar="TEXT", help=CORPUS)
    model_options(evaluate)

    runs = command("runs", "list the training runs on this machine; rename, delete or compare them")
    doing = runs.add_subparsers(dest="action", metavar="ACTION", parser_class=Parser)
    rename = doing.add_parser("rename", help="give a run that nobody trains another name")
    rename.add_argument("old", metavar="OLD")
    rename.add_argument("new", metavar="NEW")
    delete = doing.add_parser("delete", help="delete a run and its checkpoints; asks first")
    delete.add_argument("run", metavar="RUN")
    delete.add_argument("--yes", action="store_true", help="don't ask")
    compare = doing.add_parser("compare", help="runs side by side: what differs, and what came of it")
    compare.add_argument("run", nargs="+", metavar="RUN")
    for action in (rename, delete, compare):  # said before the action or after it
        action.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON, for programs")
    control = command("control", "ask something of a run while it is trained")
    control.add_argument("run", metavar="RUN")
    control.add_argument("--save", action="store_true", help="write a checkpoint now")
    control.add_argument("--learning-rate", metavar="R", help="scale the schedule so that it peaks at R, from the next step on")  # fmt: skip
    control.add_argument("--pin", action="append", metavar="PIN", help=f"from the next evaluation on, read {PIN}")
    control.add_argument("--unpin", action="append", metavar="PIN", help="read it no more; what was read stays")
    pausing = control.add_mutually_exclusive_group()
    pausing.add_argument("--pause", action="store_true", help="save, then wait")
    pausing.add_argument("--go-on", action="store_true", help="after a pause")
    probes = command("probes", "what a run made of its pinned prompts, evaluation after evaluation")
    probes.add_argument("run", metavar="RUN")
    probes.add_argument("--pin", metavar="PIN", help="only this one: PROMPT, or PROMPT=>TARGET")
    moment = probes.add_mutually_exclusive_group()
    moment.add_argument(
        "--at", type=whole, metavar="STEP", help="the candidates at the last evaluation up to this step"
    )
    moment.add_argument("--between", type=whole, nargs=2, metavar=("A", "B"), help="what changed from step A to step B")
    stop = command("stop", "stop a run: it saves, then leaves")
    stop.add_argument("run", metavar="RUN")
    export = command("export", "copy a run's newest checkpoint as a model folder")
    export.add_argument("run", metavar="RUN")
    export.add_argument("folder", metavar="FOLDER")
    force_option(export)
    export.add_argument("--tensorboard", action="store_true", help="its metrics as TensorBoard's event files instead")
    export.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"), help="how its weights are written (default float32)")  # fmt: skip

    vocabulary = command("vocabulary", "learn a vocabulary, or add a downloaded one")
    actions = vocabulary.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser)
    learn = actions.add_parser("train", help="learn a BPE vocabulary from text")
    learn.add_argument("corpus", nargs="+", metavar="CORPUS", help=CORPUS)
    learn.add_argument(
        "--size", type=whole, default=4096, metavar="N", help="tokens, <|endoftext|> included (default 4096)"
    )
    learn.add_argument("--out", required=True, metavar="FOLDER", help="where vocab.json and merges.txt go")
    add = actions.add_parser("add", help="keep a vocabulary: gpt2, cl100k_base or o200k_base, or another under a name")
    add.add_argument("file", metavar="FILE", help="a .tiktoken file, a tokenizer.json, or vocab.json and merges.txt (either, or their folder)")  # fmt: skip
    add.add_argument("--name", metavar="NAME", help="what to call it, where it is none of the three; --tokenizer NAME then uses it")  # fmt: skip
    for action in (learn, add):
        force_option(action)
        json_option(action)

    for sub in (
        tokens,
        examples,
        logits,
        softmax,
        loss,
        generate,
        train,
        evaluate,
        runs,
        control,
        probes,
        stop,
        export,
    ):
        json_option(sub)
    for file in dict.fromkeys(FILES.values()) if words is None else files_for(words):
        importlib.import_module(f"tui_llm.commands.{file}").add(command)
    lay_over(parser)
    return parser
