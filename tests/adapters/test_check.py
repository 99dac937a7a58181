"""`tui-llm check`: green on what transformers saves, and exact about what is broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import architectures
import foreign
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models

from tests.formats import published
from tui_llm import check_model, cli
from tui_llm.common.errors import UserError
from tui_llm.facts.check import CheckReport, CheckStatus
from tui_llm.llm.check import checked_model, checks, vocabulary


def found(report: CheckReport, status: CheckStatus) -> dict[str, str]:
    return {finding.name: finding.found for finding in report.findings if finding.status is status}


@pytest.mark.parametrize("kind", architectures.CONFIGS)
def test_what_transformers_saves_is_green(kind: str, tmp_path: Path) -> None:
    architectures.make(kind, tmp_path / kind)
    report = check_model(str(tmp_path / kind))
    assert [finding for finding in report.findings if finding.status is not CheckStatus.OK] == []
    assert [finding.name for finding in report.findings] == list(checks.CHECKS)


def test_there_are_thirty_architectures() -> None:
    assert len(architectures.CONFIGS) >= 30


# ── broken folders ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("whole")
    for kind in ("gpt2", "llama", "opt"):
        architectures.make(kind, top / kind)
        (top / kind / "chat_template.jinja").write_text(foreign.TEMPLATE)
    return {kind: top / kind for kind in ("gpt2", "llama", "opt")}


def weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def settings(folder: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    raw = json.loads((folder / name).read_text())
    change(raw)
    (folder / name).write_text(json.dumps(raw))


def nan(folder: Path) -> None:
    name = next(iter(name for name in load_file(folder / "model.safetensors") if "mlp" in name and "weight" in name))
    weights(folder, lambda tensors: tensors[name].view(-1)[5].fill_(float("nan")))


def missing(folder: Path) -> None:
    name = next(name for name in load_file(folder / "model.safetensors") if ".1." in name and "weight" in name)
    weights(folder, lambda tensors: tensors.pop(name))


def extra(folder: Path) -> None:
    weights(folder, lambda tensors: tensors.update({"made.up.weight": torch.ones(2)}))


def wrong_shape(folder: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        name = next(name for name in tensors if "mlp" in name and tensors[name].dim() == 2)
        tensors[name] = torch.ones(7, 7)

    weights(folder, change)


def without_added(raw: dict[str, Any]) -> None:
    """Only the tokens that are in the model's own vocabulary: no gap comes before an added token."""
    raw["added_tokens"] = [token for token in raw["added_tokens"] if token["content"] in raw["model"]["vocab"]]


def id_out_of_range(folder: Path) -> None:
    def change(raw: dict[str, Any]) -> None:
        without_added(raw)
        last = max(raw["model"]["vocab"], key=raw["model"]["vocab"].get)
        raw["model"]["vocab"][last] = 900

    settings(folder, "tokenizer.json", change)


def hole(folder: Path) -> None:
    def change(raw: dict[str, Any]) -> None:
        without_added(raw)
        unmerged = next(token for token in "¼½" if token in raw["model"]["vocab"])
        del raw["model"]["vocab"][unmerged]

    settings(folder, "tokenizer.json", change)


def other_eos(folder: Path) -> None:
    settings(folder, "generation_config.json", lambda raw: raw.update(eos_token_id=[2, 3]))


def eos_out_of_range(folder: Path) -> None:
    for name in ("config.json", "generation_config.json"):
        settings(folder, name, lambda raw: raw.update(eos_token_id=5000))


def bad_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}")


def long_context(folder: Path) -> None:
    settings(folder, "config.json", lambda raw: raw.update({"n_positions" if "n_positions" in raw else "max_position_embeddings": 128}))  # fmt: skip


def cut_short(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


BROKEN: dict[str, tuple[Callable[[Path], None], str, dict[str, str]]] = {
    "gpt2-nan": (nan, "gpt2", {"finite weights": "transformer.h.0.mlp.c_fc.weight (1 of", "logits": "NaN"}),
    "llama-nan": (nan, "llama", {"opens": "NaN", "finite weights": "mlp.down_proj.weight (1 of"}),
    "gpt2-missing": (missing, "gpt2", {"opens": "h.1.attn.c_attn.weight", "tensors": "h.1.attn.c_attn.weight"}),
    "llama-missing": (missing, "llama", {"opens": "model.layers.1.input_layernorm.weight"}),
    "gpt2-shape": (wrong_shape, "gpt2", {"opens": "mlp.c_fc.weight is [7, 7]"}),
    "llama-shape": (wrong_shape, "llama", {"opens": "of other sizes than config.json says"}),
    "gpt2-id": (id_out_of_range, "gpt2", {"opens": "", "vocabulary": "up to 900"}),
    "llama-id": (id_out_of_range, "llama", {"opens": "", "vocabulary": "up to 900"}),
    "llama-hole": (hole, "llama", {"vocabulary": "ids without a token"}),
    "llama-eos": (other_eos, "llama", {"special tokens": "eos is 1 in config.json, 2 and 3 in generation_config.json"}),
    "llama-eos-range": (eos_out_of_range, "llama", {"special tokens": "gives eos the id 5000"}),
    "llama-template": (bad_template, "llama", {"chat template": "fails"}),
    "gpt2-context": (long_context, "gpt2", {"opens": "config.json says [128", "context": "has 64 rows"}),
    "opt-context": (long_context, "opt", {"opens": "of other sizes", "context": "has 66 rows"}),
    "gpt2-cut": (cut_short, "gpt2", {"opens": "the file has"}),
    "llama-cut": (cut_short, "llama", {"opens": "the file has"}),
    "no-config": (no_config, "llama", {"opens": "no config.json"}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named(name: str, whole: dict[str, Path], tmp_path: Path) -> None:
    change, kind, expected = BROKEN[name]
    folder = Path(shutil.copytree(whole[kind], tmp_path / name))
    change(folder)
    report = check_model(str(folder))
    assert report.broken
    broken = found(report, CheckStatus.BROKEN)
    assert {check: part for check, part in expected.items() if part not in broken.get(check, "")} == {}, broken
    assert set(broken) == set(expected), broken
    if "opens" not in broken:
        assert not found(report, CheckStatus.UNCHECKED)
    elif kind != "gpt2" or "vocabulary" not in broken:
        assert "round trip" in found(report, CheckStatus.OK), "what doesn't need the model still runs"


def test_an_extra_tensor_is_a_warning(whole: dict[str, Path], tmp_path: Path) -> None:
    for kind in ("gpt2", "llama"):
        folder = Path(shutil.copytree(whole[kind], tmp_path / kind))
        extra(folder)
        report = check_model(str(folder))
        assert not report.broken
        assert list(found(report, CheckStatus.WARNING)) == ["tensors"]
        assert "made.up.weight" in found(report, CheckStatus.WARNING)["tensors"]


def test_a_head_beside_the_embedding_is_said(whole: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole["gpt2"], tmp_path / "equal"))
    weights(folder, lambda tensors: tensors.update({"lm_head.weight": tensors["transformer.wte.weight"].clone()}))
    assert "equal" in found(check_model(str(folder)), CheckStatus.OK)["tying"]
    weights(folder, lambda tensors: tensors["lm_head.weight"].add_(1))
    assert "differ" in found(check_model(str(folder)), CheckStatus.WARNING)["tying"]
    settings(folder, "config.json", lambda raw: raw.update(tie_word_embeddings=False))
    assert "different" in found(check_model(str(folder)), CheckStatus.OK)["tying"]


def test_names_that_transformers_does_not_know_are_no_difference(whole: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(whole["gpt2"], tmp_path / "compiled")
    tensors = {f"_orig_mod.{key}": value for key, value in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    report = check_model(str(folder))
    assert found(report, CheckStatus.BROKEN) == {}
    assert "makes random ones" in found(report, CheckStatus.WARNING)["logits"]


def test_padding_rows_are_counted(tmp_path: Path) -> None:
    foreign.make("llama", tmp_path / "llama")
    assert "5 padding rows" in found(check_model(str(tmp_path / "llama")), CheckStatus.OK)["vocabulary"]


def test_other_ids_and_logits_are_broken(whole: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = checked_model.CheckedModel(whole["gpt2"], "gpt2")
    assert checks.CHECKS["logits"](model).status is CheckStatus.OK
    with torch.no_grad():
        model.reference.transformer.wpe.weight[3, 5] += 1
    assert checks.CHECKS["logits"](model).status is CheckStatus.BROKEN
    monkeypatch.setattr(vocabulary, "_encoded", lambda *_: [1, 2, 3])
    assert checks.CHECKS["ids"](model).status is CheckStatus.BROKEN


def test_rules_that_autotokenizer_replaces_are_a_warning(whole: dict[str, Path], tmp_path: Path) -> None:
    architectures.make("qwen2", tmp_path / "qwen2")
    shutil.copy(whole["llama"] / "tokenizer.json", tmp_path / "qwen2" / "tokenizer.json")
    assert "Qwen2Tokenizer" in found(check_model(str(tmp_path / "qwen2")), CheckStatus.WARNING)["ids"]


def test_without_transformers_what_needs_it_is_not_checked(
    whole: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    for module in ("vocabulary", "prediction"):
        monkeypatch.setattr(f"tui_llm.llm.check.{module}.find_spec", lambda name: None)
    report = check_model(str(whole["gpt2"]))
    assert set(found(report, CheckStatus.UNCHECKED)) == {"ids", "logits", "chat template"}
    assert not report.broken
    assert all("pip install" in line for line in found(report, CheckStatus.UNCHECKED).values())


def test_a_gguf_file(tmp_path: Path) -> None:
    vocabulary = foreign.byte_level()
    model = foreign.make("llama", tmp_path / "llama", vocabulary)
    foreign.write_gguf(model, vocabulary, tmp_path / "tiny.gguf", template=foreign.TEMPLATE)
    report = check_model(str(tmp_path / "tiny.gguf"))
    assert not report.broken
    assert "f32" in found(report, CheckStatus.OK)["dtype"]
    assert set(found(report, CheckStatus.UNCHECKED)) == {"ids"}
    (tmp_path / "cut.gguf").write_bytes((tmp_path / "tiny.gguf").read_bytes()[:3000])
    report = check_model(str(tmp_path / "cut.gguf"))
    assert set(found(report, CheckStatus.BROKEN)) == {"opens"}


def test_checkpoints_of_other_programs(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("nanogpt", "llama2_c", "nanochat")}
    for folder in folders.values():
        folder.mkdir()
    published.nanogpt(folders["nanogpt"] / "ckpt.pt")
    characters = {chr(97 + id): id for id in range(12)}
    (folders["nanogpt"] / "vocab.json").write_text(json.dumps(characters))
    published.llama2_c(folders["llama2_c"] / "stories.bin", 0, vocabulary=len(published.pieces()))
    published.tokenizer_bin(folders["llama2_c"] / "tokenizer.bin")
    published.nanochat_2026(folders["nanochat"])
    made = Tokenizer(models.BPE({"<|bos|>": 59, **{chr(65 + id): id for id in range(59)}}, []))
    made.add_special_tokens(["<|bos|>"])
    made.save(str(folders["nanochat"] / "tokenizer.json"))
    folders["llama2_c"] /= "stories.bin"
    for name, path in folders.items():
        report = check_model(str(path))
        lines = {finding.name: (finding.status, finding.found) for finding in report.findings}
        assert not report.broken, lines
        assert lines["opens"][0] is lines["tying"][0] is lines["vocabulary"][0] is CheckStatus.OK, lines
        assert lines["logits"][0] is (CheckStatus.OK if name == "llama2_c" else CheckStatus.UNCHECKED), lines
        assert "the check failed" not in str(lines), name


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command(whole: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "nano"]) == 0
    out = capsys.readouterr().out
    assert "12 checks: 12 OK" in out
    folder = Path(shutil.copytree(whole["gpt2"], tmp_path / "bad \x1b[31m"))
    weights(folder, lambda tensors: tensors.update({"[/]\x1b[2J": torch.ones(1)}))
    settings(folder, "config.json", lambda raw: raw.update(eos_token_id=700))
    settings(folder, "generation_config.json", lambda raw: raw.update(eos_token_id=700))
    assert cli.main(["check", str(folder)]) == 1
    out = capsys.readouterr().out
    assert "\x1b" not in out and "[/]" in out and "id 700" in out
    assert cli.main(["check", str(folder), "--json"]) == 1
    made = json.loads(capsys.readouterr().out)
    assert made["broken"] and made["counts"]["broken"] == 1
    assert [row["name"] for row in made["findings"]] == list(checks.CHECKS)
    assert cli.main(["check", str(tmp_path / "nowhere")]) == 2
    assert "there is no model folder" in capsys.readouterr().err


def test_what_is_no_model_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    report = check_model(str(tmp_path))
    assert set(found(report, CheckStatus.BROKEN)) == {"opens", "round trip"}
    assert check_model(str(tmp_path / "notes.txt")).broken
    with pytest.raises(UserError):
        check_model(str(tmp_path / "nothing"))


@pytest.mark.parametrize("seed", range(3))
def test_a_folder_of_noise_crashes_nothing(seed: int, whole: dict[str, Path], tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(seed)
    for file in sorted(whole["gpt2"].iterdir()):
        folder = Path(shutil.copytree(whole["gpt2"], tmp_path / file.name))
        data = bytearray(file.read_bytes())
        for _ in range(1 + len(data) // 40):
            data[int(torch.randint(len(data), (), generator=draw))] = int(torch.randint(256, (), generator=draw))
        (folder / file.name).write_bytes(data)
        report = check_model(str(folder))
        assert not any("the check failed" in line for line in found(report, CheckStatus.UNCHECKED).values())
