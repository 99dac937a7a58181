"""The architecture switches: transformers computes the same, both ways, from the folder that holds them; and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tui_llm.common.errors import UserError
from tui_llm.llm.model import checkpoint, fast, fast_decode, native, native_training, numpy_gpt, switches
from tui_llm.llm.model.flat import FlatParameters
from tui_llm.llm.model.linear_layers import Half, Reduced
from tui_llm.llm.model.model import GPT, KVCache
from tui_llm.llm.model.model_config import config_from_json, is_gpt2, read_config
from tui_llm.llm.model.native_layers import NativeHalf, NativeInt8
from tui_llm.llm.model.native_training_step import NativeTrainingStep
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.predict.tree_attention import tree_features

PLAIN = GPTConfig(vocabulary=61, context=16, layers=2, heads=4, width=32)
EACH = {
    "relu2": "GPT2LMHeadModel",
    "untied": "GPT2LMHeadModel",
    "rope": "Starcoder2ForCausalLM",
    "rope,window=5": "Starcoder2ForCausalLM",
    "rope,gqa": "Starcoder2ForCausalLM",
    "rope=500,window=3,gqa=1,relu2,untied": "Starcoder2ForCausalLM",
    "rope,rmsnorm": "ArceeForCausalLM",
    "rope,rmsnorm,gqa,relu2,untied": "ArceeForCausalLM",
    "rope,rmsnorm,qk-norm": "NanoChatForCausalLM",
    "rope,rmsnorm,qk-norm,softcap=2": "NanoChatForCausalLM",
    "modern": "NanoChatForCausalLM",
    f"{switches.SETS['modern']},gqa=2": "NanoChatForCausalLM",
}


def filled(arch: str, shape: GPTConfig = PLAIN, spread: float = 0.3) -> GPT:
    """A model with these switches and random weights, none of them 0."""
    torch.manual_seed(1)
    model = GPT(switches.applied(shape, arch)).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_(std=spread)
    return model


def ids(rows: int = 2, count: int = 16) -> torch.Tensor:
    return torch.randint(61, (rows, count), generator=torch.Generator().manual_seed(2))


def close(made: torch.Tensor, wanted: torch.Tensor, share: float = 1e-4) -> bool:
    return float((made - wanted).abs().max()) <= share * float(wanted.abs().max())


@pytest.mark.parametrize("arch", EACH)
def test_transformers_computes_the_same_from_a_saved_folder_and_back(arch: str, tmp_path: Path) -> None:
    model = filled(arch)
    config = model.config
    assert sum(one.numel() for one in model.parameters()) == config.parameters()
    assert [(name, tuple(one.shape)) for name, one in model.named_parameters()] == list(config.shapes())
    checkpoint.save(model, tmp_path / "ours", end_of_text=0)
    theirs: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32).eval()
    assert type(theirs).__name__ == EACH[arch]
    wanted = theirs(ids()).logits.detach()
    assert close(model(ids()), wanted)

    theirs.save_pretrained(tmp_path / "theirs")
    again = checkpoint.load(tmp_path / "theirs")
    assert again.config == config and is_gpt2(tmp_path / "theirs")
    assert set(switches.names_of(again.config)) == set(switches.parse(arch)) - {"zero-init"}
    assert torch.equal(again(ids()), model(ids()))


@pytest.mark.parametrize("arch", EACH)
def test_the_cache_and_fewer_bits(arch: str, tmp_path: Path) -> None:
    """Prompts, single tokens, a tree of tokens, and cropping give what a whole pass gives; so do half and int8 closely."""
    model, text = filled(arch), ids(1)[0].tolist()
    wanted = model(torch.tensor([text]))[0]
    cache = KVCache(model.config)
    parts = [model(torch.tensor([text[a:b]]), cache)[0] for a, b in ((0, 6), (6, 7), (7, 12), (12, 16))]
    assert close(torch.cat(parts), wanted)
    cache.crop(9)
    tree = tree_features(model, cache, [text[9], 5, text[10], 7, text[11]], [-1, -1, 0, 1, 2])
    assert close(model.logits(tree[[0, 2, 4]]), wanted[9:12])

    checkpoint.save(model, tmp_path, end_of_text=0)
    for weights, share in (("fp32", 1e-4), ("half", 1e-2), ("int8", 0.2)):
        made, kernel = checkpoint.load_prepared(tmp_path, "cpu", weights)
        predictor = fast_decode.FastPredictor(made, kernel.name)
        features = torch.cat([predictor.run(text[:5]), *(predictor.run([id]) for id in text[5:])])
        assert close(predictor.head(features, 61), wanted, share), weights


@pytest.mark.parametrize("kind", [Half, NativeHalf, NativeInt8])
def test_a_layer_without_a_bias_adds_nothing(kind: type[Reduced]) -> None:
    """Not what lies in memory that was freed: once, an address of zeros was kept without the zeros."""
    if kind is not Half and native.library() is None:
        pytest.skip(native.why_not())
    torch.manual_seed(1)
    layer, x = kind(torch.randn(64, 64)), torch.randn(1, 64)
    one, taken = layer.one(), [torch.full((64,), 1e9) for _ in range(500)]
    assert torch.allclose(one(x), layer(x), rtol=1e-2, atol=0.1) and len(taken) == 500


@pytest.mark.parametrize("arch", ["modern", "rope,rmsnorm,gqa", "rope,window=5,gqa=2", "relu2"])
def test_the_loss_of_training_is_that_of_autograd(arch: str) -> None:
    """`products` gives the loss and gradients of the plain path, which transformers' own loss confirms above."""
    model = filled(arch, spread=0.1).requires_grad_(True)
    x, y = ids()[:, :-1], ids()[:, 1:]
    model.double()
    loss = model.loss(x, y)
    loss.backward()
    exact = {name: one.grad.float() for name, one in model.named_parameters() if one.grad is not None}
    model.float()
    for dtype, share in ((torch.float32, 1e-4), (torch.bfloat16, 0.06)):
        model.zero_grad()
        made = model.loss(x, y, dtype)
        made.backward()
        assert float(made.detach()) == pytest.approx(float(loss.detach()), rel=share)
        for name, one in model.named_parameters():
            assert one.grad is not None and one.dtype == torch.float32
            assert float((one.grad - exact[name]).norm()) <= 4 * share * float(exact[name].norm()) + 1e-6, (name, dtype)


def test_the_soft_capped_head_loss_is_that_of_autograd() -> None:
    torch.manual_seed(1)
    x, weight = torch.randn(5, 8, requires_grad=True), torch.randn(11, 8, requires_grad=True)
    targets = torch.tensor([1, 0, 10, 4, 4])
    loss = torch.nn.functional.cross_entropy(2 * torch.tanh(x @ weight.t() / 2), targets)
    wanted = torch.autograd.grad(loss, (x, weight))
    made = fast.head_loss(x, weight, targets, torch.float32, chunk=22, cap=2.0)
    assert float(made.detach()) == pytest.approx(float(loss.detach()), rel=1e-5)
    for one, other in zip(torch.autograd.grad(made, (x, weight)), wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_zero_initialised_outputs_make_each_block_the_identity() -> None:
    torch.manual_seed(1)
    model = GPT(switches.applied(PLAIN, "modern"))
    model.zero_outputs()
    x, rotation = model.embed(ids(), torch.arange(16))
    for block in model.blocks:
        assert torch.equal(block(x, rotation=rotation), x)
    assert not model(ids()).any()
    gpt2 = GPT(PLAIN)
    gpt2.zero_outputs()
    assert gpt2.head.weight.any() and not gpt2.blocks[0].mlp.down.weight.any()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("softcap", "softcap is saved as NanoChat, which also needs rmsnorm, rope, qk-norm: add them"),
        ("rmsnorm,rope,softcap", "softcap is saved as NanoChat, which also needs qk-norm: add it"),
        ("rmsnorm", "rmsnorm is saved as Arcee, which also needs rope: add it"),
        ("gqa", "gqa is saved as Starcoder2, which also needs rope: add it"),
        ("qk-norm,rope", "qk-norm is saved as NanoChat, which also needs rmsnorm: add it"),
        (
            "rope,window,rmsnorm",
            "rmsnorm is saved as Arcee or NanoChat, window as Starcoder2: no layout holds both; leave",
        ),
        ("modern,window", "modern is a whole set of switches; give it alone, or list the switches: rmsnorm,"),
        ("rop", "there is no architecture switch 'rop'; did you mean rope"),
        ("value-embeddings", "there is no architecture switch 'value-embeddings'; choose one of"),
        ("rope,rope", "the switch rope stands twice"),
        ("relu2=3", "the switch relu2 has no number"),
        ("rope,gqa=3", "gqa=3: 4 heads can't share 3 key and value heads evenly"),
        ("rope,gqa=1.5", "gqa=1.5: give a whole number"),
        ("rope,window=17", "window=17 is more than the context of 16 tokens"),
        ("rope=zero", "rope=zero: give a number from 1"),
        ("rope=0.5", "rope=0.5: give a number from 1"),
        ("modern=3", "modern is a whole set"),
        ("rope,window=16", "window=16 is the whole context and cuts nothing"),
        ("rope,gqa=4", "gqa=4: each of the 4 heads has keys and values of its own already"),
    ],
)
def test_what_contradicts_is_one_line(arch: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        switches.applied(PLAIN, arch)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize("switch", [one for one in switches.SWITCHES if one.number])
def test_the_smallest_number_of_a_switch_is_one_that_its_folder_opens_with(
    switch: switches.Switch, tmp_path: Path
) -> None:
    layout = next(one for one in switches.LAYOUTS if switch.name in one.all)
    needed = [name for name in layout.needs if name != switch.name]
    model = filled(",".join([*needed, f"{switch.name}={switch.least:g}"]))
    checkpoint.save(model, tmp_path, end_of_text=0)
    assert read_config(tmp_path) == model.config
    with pytest.raises(UserError, match=f"{switch.name}=.*: give a .*number from {switch.least:g}"):
        switches.parse(",".join([*needed, f"{switch.name}={0.9 * switch.least:g}"]))


def test_heads_of_an_odd_width_do_not_rotate() -> None:
    with pytest.raises(UserError, match="heads of width 3"):
        switches.applied(dataclasses.replace(PLAIN, width=12), "rope")


def test_no_set_of_switches_is_saved_in_a_layout_that_lacks_one(tmp_path: Path) -> None:
    for fields in ({"softcap": 3.0}, {"rope": 1e4, "qk_norm": True}, {"window": 3}, {"kv_heads": 2}):
        with pytest.raises(UserError, match=r"which also needs|no layout"):
            checkpoint.save(GPT(dataclasses.replace(PLAIN, **fields)), tmp_path, end_of_text=0)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_the_table_is_whole() -> None:
    """Every switch has a sentence and a source, and is held by a layout; the lines say what it needs."""
    assert tuple(switch.name for switch in switches.SWITCHES) == switches.NAMES
    for switch, line in zip(switches.SWITCHES, switches.lines(), strict=True):
        assert switch.sentence.endswith(".") and "arXiv:" in switch.source and switch.sentence in line
        assert any(switch.name in layout.all for layout in switches.LAYOUTS)
    assert switches.needs("softcap") == "Saved as NanoChat, with rmsnorm, rope, qk-norm."
    assert switches.needs("gqa") == "Saved as Starcoder2 or Arcee or NanoChat, with rope."
    assert switches.parse("gpt2") == switches.parse("") == {}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"attention_bias": True}, "attention_bias is True"),
        ({"hidden_act": "silu"}, "its activation is 'silu'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}}, "rotary positions are scaled"),
        ({"head_dim": 5}, "heads of width 5"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers is '2'"),
        ({"final_logit_softcapping": "high"}, "final_logit_softcapping is 'high'"),
        ({"num_key_value_heads": 3}, "can't share 3 key and value heads"),
        ({"rms_norm_eps": float("nan")}, r"rms_norm_eps is nan, not a number"),
    ],
)
def test_other_configs_of_these_classes_are_left_to_transformers(change: Any, why: str, tmp_path: Path) -> None:
    checkpoint.save(filled("modern"), tmp_path, end_of_text=0)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert not is_gpt2(tmp_path)
    with pytest.raises(UserError, match=why):
        read_config(tmp_path)


def test_a_damaged_folder_is_one_line(tmp_path: Path) -> None:
    checkpoint.save(filled("rope,rmsnorm"), tmp_path, end_of_text=0)
    path = tmp_path / "config.json"
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(raw | {"num_key_value_heads": 2}))
    with pytest.raises(UserError, match=r"k_proj.weight is \[32, 32\], but config.json says \[16, 32\]"):
        checkpoint.load(tmp_path)
    path.write_text(json.dumps(raw | {"num_hidden_layers": 3}))
    with pytest.raises(UserError, match=r"has no tensor layers\.2\.input_layernorm\.weight; it is not a whole Arcee"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("arch", ["rope", "rope,rmsnorm", "modern"])
def test_blocks_with_weights_that_this_version_does_not_know_are_one_line(arch: str, tmp_path: Path) -> None:
    """A newer tui-llm, or another program, has added a part to the blocks: computing without it would be another model."""
    checkpoint.save(filled(arch), tmp_path, end_of_text=0)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    save_file(
        {**tensors, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}, path, metadata={"format": "pt"}
    )
    checkpoint.load(tmp_path)
    save_file(
        {**tensors, "model.layers.1.self_attn.value_embed.weight": torch.ones(61, 32)}, path, metadata={"format": "pt"}
    )
    with pytest.raises(
        UserError, match=r"has 'model.layers.1.self_attn.value_embed.weight', which a \w+ does not have"
    ) as error:
        checkpoint.load(tmp_path)
    assert "\n" not in str(error.value)


def test_numpy_declines(tmp_path: Path) -> None:
    """The reader without torch computes GPT-2 only, and says so."""
    checkpoint.save(filled("relu2"), tmp_path, end_of_text=0)
    assert not numpy_gpt.fits(tmp_path) and numpy_gpt.load(tmp_path) is None


def test_transformers_defaults_are_read(tmp_path: Path) -> None:
    """A config that leaves out what its class has by default is the model of that class."""
    import transformers as t

    for made in (t.NanoChatConfig(), t.ArceeConfig(), t.Starcoder2Config(num_key_value_heads=2)):
        sizes = {
            "vocab_size": 61,
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "intermediate_size": 64,
        }
        config = config_from_json({"model_type": made.model_type, **sizes}, tmp_path / "config.json")
        theirs = type(made)(**sizes)
        assert (config.tied, config.context) == (theirs.tie_word_embeddings, theirs.max_position_embeddings)
        assert config.rope == theirs.rope_parameters["rope_theta"] and config.key_heads == theirs.num_key_value_heads
        assert config.epsilon == getattr(theirs, "rms_norm_eps", getattr(theirs, "norm_epsilon", None))
        assert config.softcap == (getattr(theirs, "final_logit_softcapping", None) or 0)
        assert config.relu2 == (theirs.hidden_act == "relu2")


@pytest.mark.skipif(native_training.library() is None, reason=native_training.why_not())
@pytest.mark.parametrize("arch", ["modern", "rope,rmsnorm", "rope,rmsnorm,qk-norm", "rope,rmsnorm,relu2,untied"])
def test_the_step_in_c_is_that_of_autograd_in_float64(arch: str) -> None:
    """Two batches, padding rows, rows that fill no whole block; gradients and loss in fp32 and bf16."""
    torch.manual_seed(1)
    model = GPT(switches.applied(GPTConfig(100, 40, 2, 2, 64), arch))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.used = 97
    assert NativeTrainingStep.fits(model)
    x, y = torch.randint(97, (3, 37)), torch.randint(97, (3, 37))
    loss = model.double().loss(x, y)
    loss.backward()
    exact = {name: one.grad for name, one in model.named_parameters()}
    model.float().zero_grad()
    flat = FlatParameters(model)
    for dtype, share in ((torch.float32, 1e-5), (torch.bfloat16, 0.03)):
        step = NativeTrainingStep(model, flat, dtype)
        step.cast()
        made = sum(step.gradients(x, y, 0.5, first=first) for first in (True, False))
        assert made == pytest.approx(float(loss.detach()), rel=share / 10)
        for name, wanted in exact.items():
            assert wanted is not None
            assert float((flat.view(flat.gradients, name) - wanted).norm()) <= share * float(wanted.norm()), (
                name,
                dtype,
            )


@pytest.mark.skipif(native_training.library() is None, reason=native_training.why_not())
def test_what_the_c_code_does_not_compute_is_declined() -> None:
    """Heads that are no whole vectors, dropout, another GELU, and contexts beyond its attention weights train with torch."""
    shape = GPTConfig(100, 40, 1, 4, 128)
    for arch in EACH:
        assert NativeTrainingStep.fits(GPT(switches.applied(shape, arch))), arch
    for fields in ({"heads": 16}, {"dropout": 0.1}, {"exact_gelu": True}, {"context": 1025}, {"rope": 0.0}):
        config = dataclasses.replace(switches.applied(shape, "rope,rmsnorm"), **fields)
        assert not NativeTrainingStep.fits(GPT(config)), fields
