"""Mutated model folders: GPT-2's layout, other architectures through transformers, GGUF files."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

from tests.mutations import changes
from tests.mutations.case import Case
from tests.mutations.reference import TEXT, checker

FILES = ("config.json", "model.safetensors", "vocab.json", "merges.txt", "tokenizer_config.json")
OTHERS = ("tokenizer.json", "chat_template.jinja", "generation_config.json", "README.md", "special_tokens_map.json", "added_tokens.json", "model.safetensors.index.json", "adapter_config.json")  # fmt: skip
TYPES = ("llama", "gpt_neo", "bert", "t5", "mamba", "gemma2", "gpt_neox", "opt", "bloom", "phi", "qwen2", "mistral", "auto", "__class__", "../x", "gpt2", "\x1b]0;x\x07gpt2")  # fmt: skip
GPT2_KEYS = ("n_layer", "n_head", "n_embd", "n_positions", "n_ctx", "vocab_size", "n_inner", "layer_norm_epsilon", "tie_word_embeddings", "model_type", "activation_function", "scale_attn_weights", "scale_attn_by_inverse_layer_idx", "add_cross_attention", "eos_token_id", "torch_dtype")  # fmt: skip
LLAMA_KEYS = ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size", "vocab_size", "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_parameters", "rope_scaling", "hidden_act", "attention_bias", "tie_word_embeddings", "pad_token_id", "eos_token_id", "quantization_config", "_attn_implementation", "dtype", "layer_types", "sliding_window", "is_encoder_decoder")  # fmt: skip
CODE = "from pathlib import Path\nPath({!r}).write_text('x')\nclass C: pass\nclass M: pass\nclass T: pass\n"


def make_bases(top: Path) -> None:
    """Creates `gpt2`, `llama` (with tokenizer.json) and `gguf/tiny.gguf`, small and random; and a text."""
    import torch

    from tui_llm.llm.learn import train_bpe
    from tui_llm.llm.model import checkpoint
    from tui_llm.llm.model.model import GPT
    from tui_llm.llm.model.shape import GPTConfig
    from tui_llm.llm.tokens import vocabulary_folder

    spec = importlib.util.spec_from_file_location(
        "foreign_models", Path(__file__).parents[1] / "adapters" / "foreign.py"
    )
    assert spec is not None and spec.loader is not None
    foreign: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(foreign)
    top.mkdir(parents=True, exist_ok=True)
    text = top / "text.txt"
    text.write_text("\n".join(foreign.TEXT * 8) + "\n")
    made = train_bpe.train([str(text)], 300, "gpt2", lambda *_: None)
    torch.manual_seed(0)
    config = GPTConfig(vocabulary=made.size, context=64, layers=2, heads=2, width=32)
    model = GPT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    checkpoint.save(model, top / "gpt2", end_of_text=made.end_of_text)
    vocabulary_folder.save_folder(made, top / "gpt2")
    (top / "llama").mkdir(exist_ok=True)
    llama = foreign.make("llama", top / "llama", foreign.byte_level())
    foreign.chatty(top / "llama")
    (top / "gguf").mkdir(exist_ok=True)
    foreign.write_gguf(llama, foreign.byte_level(), top / "gguf" / "tiny.gguf")


def words(path: Path) -> tuple[str, ...]:
    return ("logits", TEXT, "--model", str(path), "--json", "--top", "5")


BOTH_FIGURES = r"needs about 1\d\d(\.\d)? GB of memory and [\d.,]+ [GMk]B are free"

# Templates that the sandbox must refuse or bound, and what the refusal says.
_STEPS = r"takes more than 500,000 steps|Range too big"
_NONE = "unsafe|nothing to predict"  # written as an undefined name is, as an empty text
TEMPLATES = (
    ("{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}", _STEPS),
    ("{% for a in range(999) %}{% for b in range(999) %}{% set c = b %}{% endfor %}{% endfor %}x", _STEPS),
    ("{% macro m(n) %}{% for a in range(99) %}{{ m(n - 1) if n else a }}{% endfor %}{% endmacro %}{{ m(9) }}", _STEPS),
    ("{% for a in range(10 ** 9) %}x{% endfor %}", _STEPS),
    ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
    ("{{ ''.__class__.__mro__ }}", "unsafe"),
    ("{{ messages.__class__.__base__.__subclasses__() }}", "unsafe"),
    ("{{ ''['__class__'] }}", _NONE),
    ("{{ messages | attr('__class__') }}", _NONE),
    ("{{ cycler.__init__.__globals__.os }}", "unsafe"),
    ("{{ raise_exception.__globals__ }}", _NONE),
    ("{% set x = messages.append({}) %}{{ messages | length }}", "unsafe|not safely callable"),
    ("{{ '{0.__class__}'.format(messages) }}", _NONE),
    ("{% include 'config.json' %}", "loader"),
    ("{{ raise_exception('no\n\x1b[31m') }}", "fails: no"),
    ("{% for m in messages %}", "fails: "),
    ("{{ nothing.at.all }}", "undefined"),
)


def _chat(draw: random.Random, bases: Path, folder: Path) -> Case:
    """A message in a chat template: the folder's own, as transformers formats it, or one that must be refused."""
    chat = (*words(folder), "--chat")
    if draw.random() < 0.2:
        return Case(
            "chat untouched", chat, (*words(bases / "llama"), "--chat"), same=True, check=checker(folder, chat=True)
        )
    number = draw.randrange(len(TEMPLATES))
    template, refusal = TEMPLATES[number]
    if draw.random() < 0.5:
        (folder / "chat_template.jinja").write_text(template)
    else:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": template}))
    return Case(f"chat template {number}", chat, (*words(bases / "llama"), "--chat"), refusal=refusal)


def _archive(draw: random.Random, work: Path) -> Case:
    """A checkpoint of torch.save with an object that torch's weights-only loader refuses: it would create a file."""
    import torch

    state = {"lm_head.weight": torch.zeros(2, 2)}
    evil = _Evil(work / "EXECUTED")
    where = draw.choice(("model", "model_args", "config", "a tensor"))
    content = {"model": state, "model_args": {}, "iter_num": 1, where: {"x": evil}}
    torch.save(state | {"x": evil} if where == "a tensor" else content, work / "ckpt.pt")
    path = work / "ckpt.pt" if draw.random() < 0.5 else work
    return Case(f"ckpt.pt with an object in {where}", words(path), refusal="never unpickled")


def _too_large(folder: Path) -> Case:
    """A folder whose config and weights belong together and need more than 103 GB, in a file with holes."""
    config, weights, width = folder / "config.json", folder / "model.safetensors", 1 << 15
    config.write_text(json.dumps({**json.loads(config.read_text()), "n_embd": width}))
    header, _ = changes.header_of(weights)
    at = 0
    for name, tensor in header.items():
        if name != "__metadata__":
            tensor["shape"] = [size * width // 32 if size in (32, 96, 128) else size for size in tensor["shape"]]
            tensor["data_offsets"] = [at, at := at + 4 * math.prod(tensor["shape"])]
    changes.write_header(weights, header, b"")
    os.truncate(weights, weights.stat().st_size + at)
    return Case("too large for the memory", words(folder), refusal=BOTH_FIGURES)


def make(draw: random.Random, bases: Path, work: Path) -> Case:
    """Creates a folder in `work` with one or two mutations."""
    base = draw.choices(("gpt2", "llama", "gguf", "chat", "archive", "large"), (60, 30, 10, 10, 2, 3))[0]
    if base == "archive":
        return _archive(draw, work)
    folder = work / {"chat": "llama", "large": "gpt2"}.get(base, base)
    shutil.copytree(bases / folder.name, folder)
    if base == "chat":
        return _chat(draw, bases, folder)
    if base == "large":
        return _too_large(folder)
    if base == "gguf":
        path = folder / "tiny.gguf"
        what = changes.other_kind(draw, path) if draw.random() < 0.1 else changes.change_gguf(draw, path)
        return Case(f"gguf {what}", words(path), words(bases / base / "tiny.gguf"), check=checker(path, tokens=False))
    what = _change(draw, base, folder, work)
    if draw.random() < 0.15:
        what += ", " + _change(draw, base, folder, work)
    same = what in ("untouched", "config unknown key", "README.md other kind")
    if base == "gpt2" and draw.random() < 0.1:
        use = ("evaluate", str(bases / "text.txt"), "--json", "--model")
        return Case(f"evaluated gpt2 {what}", (*use, str(folder)), (*use, str(bases / base)), same=same)
    plain = words(bases / base)
    return Case(f"{base} {what}", words(folder), plain, same=same, check=checker(folder))


def _change(draw: random.Random, base: str, folder: Path, work: Path) -> str:
    files = [
        name
        for name in (*FILES, "tokenizer.json", "generation_config.json")
        if (folder / name).is_file() and (folder / name).stat().st_size
    ]
    act = draw.choices(
        ("key", "json", "text", "bytes", "weights", "kind", "type", "missing", "swap", "pickle", "code", "index", "unknown", "untouched", "vocab", "many"),
        (20, 10, 5, 8, 20, 12, 4, 2, 2, 2, 2, 3, 1, 1, 10, 1),
    )[0]  # fmt: skip
    try:
        return _done(draw, act, base, folder, files, work)
    except (ValueError, KeyError, OSError, AttributeError, TypeError, IndexError, RecursionError):
        return f"{act} (not possible after the change before)"


def _done(draw: random.Random, act: str, base: str, folder: Path, files: list[str], work: Path) -> str:
    config = folder / "config.json"
    if act == "key":
        raw = json.loads(config.read_text())
        key, value = draw.choice(GPT2_KEYS if base == "gpt2" else LLAMA_KEYS), draw.choice(changes.ABSURD)
        raw[key] = value
        config.write_text(json.dumps(raw))
        return f"config {key}={str(value)[:30]!r}" if value != 10**400 else f"config {key}=10**400"
    if act == "unknown":
        config.write_text(json.dumps({**json.loads(config.read_text()), "a_key_of_nobody": 1}))
        return "config unknown key"
    if act == "untouched":
        return act
    if act == "json":
        name = draw.choice([name for name in files if name.endswith(".json")])
        changes.change_json(draw, folder / name, draw.choice((1, 1, 2)))
        return f"{name} json"
    if act == "text":
        name = draw.choice([name for name in (*files, *OTHERS) if name != "model.safetensors"])
        (folder / name).write_text(draw.choice(changes.TEXTS))
        return f"{name} is another text"
    if act == "bytes":
        name = draw.choice(files)
        changes.change_bytes(draw, folder / name)
        return f"{name} bytes"
    if act == "weights":
        return f"weights {changes.change_weights(draw, folder / 'model.safetensors')}"
    if act == "kind":
        name = draw.choice((*files, *files, *OTHERS))
        kind = changes.other_kind(draw, folder / name)
        return f"{name} other kind" if name == "README.md" else f"{name} is {kind}"
    if act == "type":
        raw = {**json.loads(config.read_text()), "model_type": draw.choice(TYPES)}
        config.write_text(json.dumps(raw if draw.random() < 0.7 else {"model_type": raw["model_type"]}))
        return f"model_type {raw['model_type']!r}"
    if act == "missing":
        name = draw.choice(files)
        (folder / name).unlink()
        return f"no {name}"
    if act == "swap":
        name, other = draw.sample(files, 2)
        shutil.copyfile(folder / name, folder / "aside")
        (folder / "aside").replace(folder / other)
        return f"{name} in the place of {other}"
    return _hostile(draw, act, base, folder, work)


class _Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.write_text, (self.mark, "x"))


def _hostile(draw: random.Random, act: str, base: str, folder: Path, work: Path) -> str:
    config, mark = folder / "config.json", work / "EXECUTED"
    if act == "pickle":
        name = draw.choice(("pytorch_model.bin", "model.pt", "model.safetensors"))
        if draw.random() < 0.7:
            (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(pickle.dumps(_Evil(mark)))
        return f"pickle {name}"
    if act == "code":
        raw = json.loads(config.read_text())
        raw["auto_map"] = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M", "AutoTokenizer": ["evil.T", None]}
        raw["model_type"] = draw.choice((raw["model_type"], "evil", "llama"))
        config.write_text(json.dumps(raw))
        for name in ("evil.py", "custom_generate/generate.py"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(CODE.format(str(mark)))
        return "code"
    if act == "index":
        (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
        names = list(changes.header_of(folder / "model-00001-of-00001.safetensors")[0])
        target: Any = draw.choice(
            (
                "model-00001-of-00001.safetensors",
                "../../../etc/passwd",
                "/dev/zero",
                "nowhere.safetensors",
                3,
                None,
                "..",
            )
        )
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, target)})
        )
        return f"index to {target}"
    if act == "many":
        (folder / "vocab.json").write_text(json.dumps({f"q{i}": i for i in range(1_000_000)}))
        return "a million tokens"
    path = folder / ("vocab.json" if base == "gpt2" else "tokenizer.json")
    raw = json.loads(path.read_text())
    return f"vocab {change_vocab(draw, raw if base == 'gpt2' else raw['model']['vocab'])}" + _written(path, raw)


def _written(path: Path, raw: Any) -> str:
    path.write_text(json.dumps(raw))
    return ""


def change_vocab(draw: random.Random, vocab: dict[str, Any]) -> str:
    """Changes ids of a vocabulary: gaps, duplicates, absurd values."""
    names = list(vocab)
    name = draw.choice(names)
    act = draw.choice(("hole", "holes", "twin", "id", "id", "shuffle", "end", "foreign", "same", "shift"))
    if act == "hole":
        del vocab[name]
    elif act == "holes":
        for one in draw.sample(names, min(40, len(names))):
            del vocab[one]
    elif act == "twin":
        vocab[name] = vocab[draw.choice(names)]
    elif act == "id":
        vocab[name] = draw.choice((*changes.ABSURD, 4 * 10**8, 2**32 - 1, len(names), len(names) + 1, 1 << 23))
    elif act == "shuffle":
        vocab |= dict(zip(names, draw.sample(list(vocab.values()), len(names)), strict=True))
    elif act == "end":
        vocab["<|endoftext|>"] = draw.choice((*changes.ABSURD, 0, 5, len(names)))
    elif act == "foreign":
        vocab |= {"日本": len(names), "\x1b[2J": len(names) + 1, "\ud800": len(names) + 2}
    elif act == "same":
        for one in names:
            vocab[one] = 5
    else:
        for one in names:
            vocab[one] += draw.choice((1,))
    return act
