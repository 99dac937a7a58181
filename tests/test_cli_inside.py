"""`tui-llm attention`, `lens`, `block`, `backward` and `neighbours`: the documented JSON, readable text, one line for invalid input."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.byte_models import save_byte_model
from tests.test_cli import refused, run_json
from tui_llm.cli import main
from tui_llm.llm.model.shape import GPTConfig

TEXT = "The cat sat on the"


def test_attention(capsys: pytest.CaptureFixture[str]) -> None:
    made = run_json(capsys, "attention", TEXT)
    assert list(made) == [
        "model",
        "step",
        "weights",
        "token",
        "first",
        "tokens",
        "layer",
        "head",
        "row",
        "mean",
        "layers",
    ]
    assert (made["layer"], made["head"], made["row"]) == (None, None, made["mean"])
    one = run_json(capsys, "attention", TEXT, "--head", "1.2")
    assert (one["layer"], one["head"], one["row"]) == (1, 2, made["layers"][1]["heads"][2])
    mean = run_json(capsys, "attention", TEXT, "--layer", "3")
    assert (mean["layer"], mean["head"], mean["row"]) == (3, None, made["layers"][3]["mean"])
    assert made["token"] == 4 and len(made["tokens"]) == 5
    assert [len(layer["heads"]) for layer in made["layers"]] == [4] * 4
    for layer in made["layers"]:
        assert sum(layer["mean"]["weights"]) == pytest.approx(1, abs=1e-5)
    assert run_json(capsys, "attention", TEXT, "--token", "-2")["token"] == 3
    assert main(["attention", TEXT, "--token", "2", "--layer", "1", "--head", "3"]) == 0
    out = capsys.readouterr().out
    assert "from token 2, ·sat; head 1.3" in out and "equal weights on" in out
    assert main(["attention", TEXT, "--token", "2", "--head", "1.3"]) == 0
    assert capsys.readouterr().out == out
    assert main(["attention", TEXT]) == 0
    assert "mean over all heads" in (out := capsys.readouterr().out) and "head 3" in out and "head 4" not in out


def test_lens(capsys: pytest.CaptureFixture[str]) -> None:
    made = run_json(capsys, "lens", TEXT, "--target", " mat", "--top", "2")
    assert made["target"]["text"] == " mat" and made["target_is"] == "asked"
    assert [row["layer"] for row in made["rows"]] == [None, 0, 1, 2, 3] and len(made["rows"][0]["top"]) == 2
    logits = run_json(capsys, "logits", TEXT, "--top", "2")
    last = made["rows"][-1]
    assert [row["id"] for row in last["top"]] == [row["id"] for row in logits["candidates"]]
    assert last["entropy"] == pytest.approx(logits["entropy"], abs=1e-4) and last["divergence"] == 0
    assert main(["lens", TEXT, "--token", "0"]) == 0
    out = capsys.readouterr().out
    assert "target ·cat, the text's own next token" in out and "embedding" in out


def test_lens_grid(capsys: pytest.CaptureFixture[str]) -> None:
    made = run_json(capsys, "lens", TEXT, "--grid", "--top", "2")
    assert [row["layer"] for row in made["rows"]] == [None, 0, 1, 2, 3] and len(made["tokens"]) == 5
    last = made["rows"][-1]["cells"][-1]
    logits = run_json(capsys, "logits", TEXT, "--top", "2")
    assert [row["id"] for row in last["top"]] == [row["id"] for row in logits["candidates"]]
    assert last["logit"] == pytest.approx(logits["candidates"][0]["logit"], abs=1e-4) and last["target_rank"] == 1
    assert main(["lens", TEXT, "--grid", "--target", " mat"]) == 0
    assert "·mat" in (out := capsys.readouterr().out) and "embedding" in out


def test_the_tuned_lens(capsys: pytest.CaptureFixture[str]) -> None:
    logit, tuned = (run_json(capsys, "lens", TEXT, *more) for more in ((), ("--tuned",)))
    assert (logit["lens"], tuned["lens"]) == ("logit", "tuned")
    assert logit["rows"][-1] == tuned["rows"][-1] and tuned["rows"][0]["divergence"] < logit["rows"][0]["divergence"]
    grid = run_json(capsys, "lens", TEXT, "--grid", "--tuned")
    assert grid["lens"] == "tuned"
    assert grid["rows"][1]["cells"][-1]["entropy"] == pytest.approx(tuned["rows"][1]["entropy"], abs=1e-4)
    for words in ((), ("--grid",)):
        assert main(["lens", TEXT, "--tuned", *words]) == 0
        assert "tuned lens; each" in capsys.readouterr().out


def test_a_lens_is_fitted_and_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_byte_model(tmp_path / "model", GPTConfig(vocabulary=257, context=16, layers=2, heads=2, width=16))
    corpus = tmp_path / "text.txt"
    corpus.write_text("the cat sat on the mat. " * 200)
    fit = ("fit-lens", str(corpus), "--model", str(folder), "--steps", "3")
    assert "model has no tuned lens yet; tui-llm fit-lens" in refused(
        capsys, "lens", TEXT, "--tuned", "--model", str(folder)
    )
    made = run_json(capsys, *fit)
    assert (made["steps"], made["tokens"], made["path"]) == (3, 3 * 1024, str(folder / "tuned_lens.safetensors"))
    assert [row["layer"] for row in made["rows"]] == [None, 0] and 0 < made["held_out_tokens"] <= 16_384
    assert all(row["tuned_lens"] < row["logit_lens"] for row in made["rows"])
    assert run_json(capsys, "lens", TEXT, "--tuned", "--model", str(folder))["lens"] == "tuned"
    before = (folder / "tuned_lens.safetensors").read_bytes()
    assert "--force" in refused(capsys, *fit)
    assert main([*fit, "--force", "--seed", "2"]) == 0
    assert "3 steps on 3,072 tokens" in (out := capsys.readouterr().out) and "tuned lens" in out
    assert (folder / "tuned_lens.safetensors").read_bytes() != before
    model = folder / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    assert "was fitted to other weights" in refused(capsys, "lens", TEXT, "--tuned", "--model", str(folder))
    for more in (("--steps", "0"), ("--learning-rate", "nan")):
        assert more[0] in refused(capsys, *fit, "--force", *more)


def test_block(capsys: pytest.CaptureFixture[str]) -> None:
    made = run_json(capsys, "block", TEXT, "--layer", "1", "--token", "2", "--neurons", "3")
    assert (made["layer"], made["token"], len(made["heads"]), len(made["neurons"])) == (1, 2, 4, 3)
    assert len(made["residual_norms"]) == 5 and made["neuron_count"] == 1024
    assert {key["number"] for key in made["heads"][0]["keys"]} == {0, 1, 2}
    assert main(["block", TEXT, "--layer", "3"]) == 0
    out = capsys.readouterr().out
    assert "block 3 at token 4, ·the" in out and "3.3 " in out and "neurons are above 0 before GELU" in out


def test_backward(capsys: pytest.CaptureFixture[str]) -> None:
    made = run_json(capsys, "backward", TEXT, "--target", " mat")
    assert made["loss"] == pytest.approx(run_json(capsys, "loss", TEXT, "--target", " mat")["mean"], abs=1e-4)
    assert sum(one["norm"] ** 2 for one in made["norms"]) == pytest.approx(made["grad_norm"] ** 2)
    assert [one["text"] for one in made["tokens"]] == ["The", " cat", " sat", " on", " the"]
    assert main(["backward", TEXT, "--whole"]) == 0
    assert "the mean loss of 4 tokens of the text" in capsys.readouterr().out


def test_neighbours(capsys: pytest.CaptureFixture[str]) -> None:
    made = run_json(capsys, "neighbours", " king", "--count", "3")
    assert made["token"]["text"] == " king" and len(made["neighbours"]) == 3
    assert made == run_json(capsys, "neighbours", f"#{made['token']['id']}", "--count", "3")
    assert main(["neighbours", " king", "--count", "2"]) == 0
    assert "·queen" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("attention", ""), "type some text first"),
        (("attention", TEXT, "--layer", "4"), "nano has 0 to 3"),
        (("attention", TEXT, "--head", "1"), "--head needs --layer"),
        (("attention", TEXT, "--head", "4.1"), "there is no layer 4; nano has 0 to 3"),
        (("attention", TEXT, "--layer", "0", "--head", "1.2"), "--head 1.2 is of layer 1, --layer is 0"),
        (("attention", TEXT, "--token", "-9"), "this text has tokens -5 to 4"),
        (("lens", TEXT, "--token", "5"), "go from 0 to 4"),
        (("lens", TEXT, "--target", ""), "the target is empty"),
        (("lens", TEXT, "--top", "0"), "give 1 or more"),
        (("lens", TEXT, "--grid", "--token", "1"), "give one of them"),
        (("block", TEXT, "--layer", "4"), "this model's are 0 to 3"),
        (("block", TEXT, "--keys", "0"), "1 or more"),
        (("block", ""), "type some text first"),
        (("backward", TEXT, "--target", ""), "the target is empty"),
        (("backward", TEXT, "--target", "x", "--whole"), "give it without --target"),
        (("backward", "", "--target", "x"), "nothing is predicted before the first token"),
        (("neighbours", "\x1b]0;x\x07 of"), "tokens:"),
        (("neighbours", "#4096"), "there is no token 4096"),
        (("neighbours", " king", "--count", "-1"), "give 1 or more"),
    ],
)
def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], what: str) -> None:
    assert what in refused(capsys, *arguments)


def test_hostile_text_is_made_visible(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["attention"], ["lens"], ["lens", "--grid"], ["block"], ["backward"]):
        assert main([*command, "[/]\x1b[31m \u202e[red]"]) == 0
        assert not {"\x1b", "\u202e"} & set(capsys.readouterr().out)
