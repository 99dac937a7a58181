"""GPT-2 folders as other tools write them: shards, general names in config.json, a head of its own. The reference is
transformers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tui_llm.common.errors import UserError
from tui_llm.llm.model import checkpoint
from tui_llm.llm.model.model import GPT
from tui_llm.llm.model.model_config import GENERAL_NAMES, is_gpt2, read_config, untied_note
from tui_llm.llm.model.shape import GPTConfig

IDS = [3, 1, 4, 1, 5]
INDEX = "model.safetensors.index.json"


@pytest.fixture
def library() -> Any:
    return pytest.importorskip("transformers")


def made(library: Any, folder: Path, shard: str = "5GB") -> Any:
    torch.manual_seed(0)
    config = library.GPT2Config(vocab_size=40, n_positions=8, n_embd=8, n_layer=2, n_head=2, bos_token_id=39, eos_token_id=39)  # fmt: skip
    model = library.GPT2LMHeadModel(config).eval()
    model.save_pretrained(folder, max_shard_size=shard)
    return model


def edit(path: Path, change: Any) -> None:
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


def same_logits(library: Any, folder: Path) -> None:
    theirs = library.GPT2LMHeadModel.from_pretrained(folder).eval()
    with torch.no_grad():
        wanted = theirs(torch.tensor([IDS])).logits
        torch.testing.assert_close(checkpoint.load(folder)(torch.tensor([IDS])), wanted, atol=2e-6, rtol=1e-5)


# ── shards ──


def test_shards_open_in_our_own_model(library: Any, tmp_path: Path) -> None:
    made(library, tmp_path, "4KB")
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2
    assert is_gpt2(tmp_path) and not (tmp_path / "model.safetensors").exists()
    same_logits(library, tmp_path)


def test_a_missing_shard_is_named(library: Any, tmp_path: Path) -> None:
    made(library, tmp_path, "4KB")
    gone = min(tmp_path.glob("model-*-of-*.safetensors"))
    gone.unlink()
    with pytest.raises(UserError, match=gone.name):
        checkpoint.load(tmp_path)


def test_shards_without_an_index(library: Any, tmp_path: Path) -> None:
    made(library, tmp_path, "4KB")
    (tmp_path / INDEX).unlink()
    with pytest.raises(UserError, match=rf"no {INDEX}"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("place", ["../other.safetensors", "/etc/passwd", "sub/a.safetensors", "config.json", "x" * 300 + ".safetensors", "a\0.safetensors", "", None, 3])  # fmt: skip
def test_an_index_that_leads_elsewhere(library: Any, place: object, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    made(library, folder, "4KB")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    edit(folder / INDEX, lambda raw: raw["weight_map"].update({"transformer.wte.weight": place}))
    with pytest.raises(UserError, match="not a safetensors file beside it"):
        checkpoint.load(folder)


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": {}}', '{"weight_map": []}', "{"])
def test_an_index_that_lists_nothing(library: Any, content: str, tmp_path: Path) -> None:
    made(library, tmp_path, "4KB")
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(UserError, match=INDEX):
        checkpoint.load(tmp_path)


def test_a_shard_that_is_no_regular_file(library: Any, tmp_path: Path) -> None:
    made(library, tmp_path, "4KB")
    shard = min(tmp_path.glob("model-*-of-*.safetensors"))
    shard.unlink()
    os.mkfifo(shard)
    with pytest.raises(UserError, match="not a safetensors file beside it"):
        checkpoint.load(tmp_path)


def test_a_damaged_shard_is_named(library: Any, tmp_path: Path) -> None:
    made(library, tmp_path, "4KB")
    shard = max(tmp_path.glob("model-*-of-*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-4])
    with pytest.raises(UserError, match=shard.name):
        checkpoint.load(tmp_path)


def test_a_tensor_in_two_shards(library: Any, tmp_path: Path) -> None:
    made(library, tmp_path, "4KB")
    first, *_, last = sorted(tmp_path.glob("model-*-of-*.safetensors"))
    tensors = load_file(last)
    twice = next(iter(load_file(first)))
    save_file({**tensors, twice: torch.ones(2)}, last)
    with pytest.raises(UserError, match=f"tensor {twice}, and so has {first.name}"):
        checkpoint.load(tmp_path)


def test_an_index_that_names_the_wrong_shard(library: Any, tmp_path: Path) -> None:
    made(library, tmp_path, "4KB")
    names = sorted(path.name for path in tmp_path.glob("model-*-of-*.safetensors"))

    def swap(raw: Any) -> None:
        places = raw["weight_map"]
        places["transformer.wte.weight"] = next(name for name in names if name != places["transformer.wte.weight"])

    edit(tmp_path / INDEX, swap)
    with pytest.raises(UserError, match=r"transformer\.wte\.weight is in .* which has no such tensor"):
        checkpoint.load(tmp_path)


def test_a_shape_of_another_model_in_a_shard(library: Any, tmp_path: Path) -> None:
    made(library, tmp_path, "4KB")
    edit(tmp_path / "config.json", lambda raw: raw.update(n_positions=16))
    with pytest.raises(UserError, match=r"wpe\.weight is \[8, 8\], but config\.json says \[16, 8\]"):
        checkpoint.load(tmp_path)


# ── the general names of a config ──


def test_the_general_names_of_a_config(library: Any, tmp_path: Path) -> None:
    made(library, tmp_path)

    def rename(raw: dict[str, Any]) -> None:
        for own, general in GENERAL_NAMES.items():
            raw[general] = raw.pop(own)
        raw.pop("n_ctx", None)

    edit(tmp_path / "config.json", rename)
    assert is_gpt2(tmp_path)
    assert read_config(tmp_path) == GPTConfig(vocabulary=40, context=8, layers=2, heads=2, width=8)
    same_logits(library, tmp_path)


def test_the_names_are_those_of_transformers(library: Any) -> None:
    assert {own: general for general, own in library.GPT2Config.attribute_map.items()} == GENERAL_NAMES


@pytest.mark.parametrize(("own", "general"), GENERAL_NAMES.items())
def test_two_names_that_agree_or_contradict(library: Any, own: str, general: str, tmp_path: Path) -> None:
    made(library, tmp_path)
    edit(tmp_path / "config.json", lambda raw: raw.update({general: raw[own]}))
    assert read_config(tmp_path).layers == 2
    edit(tmp_path / "config.json", lambda raw: raw.update({general: 4}))
    with pytest.raises(UserError, match=rf"{own} \d and {general} 4, two names of one size"):
        checkpoint.load(tmp_path)
    assert is_gpt2(tmp_path)  # refused here by name, not handed to transformers, which would choose one


# ── a head that differs from the embedding under a config that ties ──


@pytest.mark.parametrize("tied", [True, None])
@pytest.mark.parametrize("shard", ["5GB", "4KB"])
def test_a_head_of_its_own_is_kept(library: Any, tied: bool | None, shard: str, tmp_path: Path) -> None:
    model = made(library, tmp_path, shard)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(torch.randn(40, 8))
    for old in tmp_path.glob("*.safetensors*"):
        old.unlink()
    model.save_pretrained(tmp_path, max_shard_size=shard)

    def claim(raw: dict[str, Any]) -> None:
        raw.pop("tie_word_embeddings")
        if tied is not None:
            raw["tie_word_embeddings"] = tied

    edit(tmp_path / "config.json", claim)
    loaded = checkpoint.load(tmp_path)
    assert not loaded.config.tied and not read_config(tmp_path).tied
    assert torch.equal(loaded.head.weight, model.lm_head.weight)
    assert "lm_head.weight differs" in untied_note(tmp_path)
    same_logits(library, tmp_path)


def test_a_head_that_equals_the_embedding_stays_tied(library: Any, tmp_path: Path) -> None:
    made(library, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({**tensors, "lm_head.weight": tensors["transformer.wte.weight"].clone()}, tmp_path / "model.safetensors", {"format": "pt"})  # fmt: skip
    loaded = checkpoint.load(tmp_path)
    assert loaded.config.tied and loaded.head.weight is loaded.tokens.weight and untied_note(tmp_path) == ""
    same_logits(library, tmp_path)


# ── where it is said, and training from such a folder ──


def test_what_was_assumed_is_said(library: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tui_llm.commands.shared.engine import open_engine
    from tui_llm.llm.hub.lookup import find
    from tui_llm.llm.hub.model_list import describe
    from tui_llm.llm.tokens.tokenizer import byte_level, save_folder

    torch.manual_seed(0)
    model = GPT(GPTConfig(vocabulary=257, context=8, layers=1, heads=2, width=8, tied=False))
    checkpoint.save(model, tmp_path, extra={"tie_word_embeddings": True})
    save_folder(byte_level(), tmp_path)
    weights = open_engine(str(tmp_path), "cpu").weights()
    assert "lm_head.weight differs" in weights.note and weights.parameters == model.config.parameters()
    assert "tui-llm: lm_head.weight differs" in capsys.readouterr().err
    info = describe(find(str(tmp_path)))
    assert info.note == untied_note(tmp_path) and info.parameters == model.config.parameters()


def test_a_run_can_start_from_shards(library: Any, tmp_path: Path) -> None:
    from tui_llm.training.plan import start
    from tui_llm.training.run.run import Run

    folder = tmp_path / "model"
    made(library, folder, "4KB")
    for name in ("vocab.json", "merges.txt"):
        (folder / name).write_text("{}")
    run = Run(tmp_path / "run")
    start.copy(folder, run)
    assert torch.equal(checkpoint.load(run.path / start.FOLDER).tokens.weight, checkpoint.load(folder).tokens.weight)
