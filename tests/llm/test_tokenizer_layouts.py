"""Tokenizer files of GPT-2 folders in every layout, against transformers and the `tokenizers` library.

The layouts of transformers 4 are written by hand, as it wrote them; those of transformers 5 by the installed one.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, GPT2Tokenizer, PreTrainedTokenizerFast

from tests.llm.test_tokenizer import NANO, REPOSITORY, mixed_text
from tui_llm.common.errors import UserError
from tui_llm.llm.hub import hub, lookup
from tui_llm.llm.tokens.folder_files import settings_of
from tui_llm.llm.tokens.pre_tokenizer import PreTokenizer, UnknownRule, read_pre_tokenizer
from tui_llm.llm.tokens.tokenizer import BPETokenizer
from tui_llm.llm.tokens.vocabulary_folder import load_folder, save_folder

VOCAB: dict[str, int] = json.loads((NANO / "vocab.json").read_text())
MERGES = [
    tuple(line.split(" "))
    for line in (NANO / "merges.txt").read_text().split("\n")
    if line and not line.startswith("#version")
]
END = "<|endoftext|>"
DIGITS = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
PREFIX = pre_tokenizers.ByteLevel(add_prefix_space=True)
THREE = (AddedToken("<|user|>", special=True), AddedToken("<|bot|>", special=True), AddedToken("SolidGoldMagikarp"))
MIXED = mixed_text(20_000) + " <|user|>Hi 2024<|bot|> SolidGoldMagikarp xSolidGoldMagikarp <pad> 123"


@functools.cache
def bpe() -> models.BPE:
    """The model of nano's tokenizers, which none of them changes: a hypothesis test makes three hundred."""
    return models.BPE(vocab=dict(VOCAB), merges=list(MERGES))  # type: ignore[arg-type]


@functools.cache
def plain_tokenizer() -> Tokenizer:
    """nano's, for text without special tokens."""
    made = library_tokenizer()
    made.encode_special_tokens = True
    return made


def library_tokenizer(
    pre: Any = None, added: tuple[AddedToken, ...] = (), post: Any = None, vocab: dict[str, int] = VOCAB
) -> Tokenizer:
    """nano's vocabulary in the `tokenizers` library."""
    made = Tokenizer(bpe() if vocab is VOCAB else models.BPE(vocab=dict(vocab), merges=list(MERGES)))  # type: ignore[arg-type]
    made.pre_tokenizer = pre or pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    if post is not None:
        made.post_processor = post
    if END in vocab:
        made.add_special_tokens([END])
    made.add_tokens(list(added))
    return made


def save_5(folder: Path, made: Tokenizer, **config: Any) -> Path:
    """As transformers 5 saves it: tokenizer.json and tokenizer_config.json."""
    PreTrainedTokenizerFast(tokenizer_object=made, bos_token=END, eos_token=END).save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(settings_of(path) | config))
    return folder


def save_4(folder: Path, made: Tokenizer, *, slow: bool = False, decoder: bool = False, **config: Any) -> Path:
    """As transformers 4 saves it. `slow`: without tokenizer.json; `decoder`: with `added_tokens_decoder`."""
    raw = json.loads(made.to_str())
    folder.mkdir(parents=True, exist_ok=True)
    write = lambda name, value: (folder / name).write_text(json.dumps(value, ensure_ascii=False))  # noqa: E731
    write("vocab.json", raw["model"]["vocab"])
    lines = (m if isinstance(m, str) else " ".join(m) for m in raw["model"]["merges"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(lines) + "\n")
    outside = [token for token in raw["added_tokens"] if token["content"] not in raw["model"]["vocab"]]
    if outside:
        write("added_tokens.json", {token["content"]: token["id"] for token in outside})
    special = [token["content"] for token in outside if token["special"]]
    names = {"bos_token": END, "eos_token": END, "unk_token": END}
    write("special_tokens_map.json", names | ({"additional_special_tokens": special} if special else {}))
    if decoder:
        listed = {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in raw["added_tokens"]}
        config = {"added_tokens_decoder": listed, "additional_special_tokens": special} | config
    write("tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer"} | names | config)
    if not slow:
        made.save(str(folder / "tokenizer.json"))
    return folder


LAYOUTS: dict[str, Callable[[Path, Tokenizer], Path]] = {
    "5": save_5,
    "4": lambda folder, made: save_4(folder, made, tokenizer_class="PreTrainedTokenizerFast"),
    "4 with decoder": lambda folder, made: save_4(folder, made, decoder=True),
    "4 slow": lambda folder, made: save_4(folder, made, slow=True),
    "4 slow with decoder": lambda folder, made: save_4(folder, made, slow=True, decoder=True),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_added_tokens_in_every_layout(layout: str, tmp_path: Path) -> None:
    """Issue 15, fault 1: <|user|> was cut into pieces, and 4,096 of 4,099 rows were in the softmax."""
    folder = LAYOUTS[layout](tmp_path, library_tokenizer(added=THREE))
    ours, theirs = load_folder(folder), AutoTokenizer.from_pretrained(folder)
    assert ours.encode("<|user|>Hi 2024", allow_special=True) == [4096, 39, 72, 220, 17, 15, 17, 19]
    assert ours.encode(MIXED, allow_special=True) == theirs.encode(MIXED)
    assert ours.size == len(theirs) == 4099 == lookup.size_of_vocabulary(folder)
    assert ours.decode(ours.encode(MIXED, allow_special=True)) == theirs.decode(theirs.encode(MIXED)) == MIXED
    assert ours.decode(ours.encode(MIXED)) == MIXED and 4096 not in ours.encode(MIXED)
    assert 4098 in ours.encode(MIXED), "a token that is not special is one wherever it is typed"
    assert ours.encode_array(MIXED).tolist() == ours.encode(MIXED)
    assert [ours.is_special(id) for id in (4095, 4096, 4097, 4098)] == [True, True, True, False]
    assert set(ours.special_texts) == {END, "<|user|>", "<|bot|>"}


@pytest.mark.parametrize("layout", ["5", "4"])
def test_digits_apart(layout: str, tmp_path: Path) -> None:
    folder = LAYOUTS[layout](tmp_path, library_tokenizer(DIGITS))
    ours, theirs = load_folder(folder), AutoTokenizer.from_pretrained(folder)
    assert ours.encode(" 123") == [220, 16, 17, 18]
    text = MIXED.replace(END, "")
    assert ours.encode(text) == theirs.encode(text)
    assert "".join(ours.words(text)) == text
    # Under GPT-2's class transformers 5 leaves the rule out (findings/); the file has it.
    assert load_folder(save_4(tmp_path / "class", library_tokenizer(DIGITS))).encode(" 123") == [220, 16, 17, 18]


def test_a_prefix_space(tmp_path: Path) -> None:
    """Of tokenizer.json where the class obeys it; of tokenizer_config.json under GPT-2's class."""
    text = MIXED.replace(END, "")
    folders = {
        "json": save_5(tmp_path / "json", library_tokenizer(PREFIX)),
        "json 4": save_4(tmp_path / "json 4", library_tokenizer(PREFIX), tokenizer_class="PreTrainedTokenizerFast"),
        "config": save_4(tmp_path / "config", library_tokenizer(), add_prefix_space=True),
        "config slow": save_4(tmp_path / "slow", library_tokenizer(), slow=True, add_prefix_space=True),
    }
    for name, folder in folders.items():
        ours, theirs = load_folder(folder), AutoTokenizer.from_pretrained(folder)
        assert ours.encode("5")[0] == 220, name
        assert ours.encode(text) == theirs.encode(text), name
        assert ours.encode_after("5") == ours.encode("5")[1:], "what continues a text gets no space"
        assert ours.encode("") == []
    off = save_4(tmp_path / "off", library_tokenizer(PREFIX), add_prefix_space=False)
    assert load_folder(off).encode(text) == AutoTokenizer.from_pretrained(off).encode(text)
    both = save_4(tmp_path / "both", library_tokenizer(DIGITS), add_prefix_space=True)
    with pytest.raises(UserError, match=r"add_prefix_space to true, tokenizer.json to false; make both the same"):
        load_folder(both)


@pytest.mark.skipif(
    not (REPOSITORY.parent / "shared/vocab/gpt2.tiktoken").is_file(), reason="GPT-2's file is elsewhere"
)
def test_gpt2_with_a_prefix_space_and_without_end_of_text(tmp_path: Path) -> None:
    """Issue 15, faults 1 and 10. `Hello world` as in the documentation of transformers' GPT2Tokenizer."""
    from tui_llm.llm.tokens import vocabulary_files
    from tui_llm.llm.tokens.add_vocabulary import _from_tokens

    source = REPOSITORY.parent / "shared/vocab/gpt2.tiktoken"
    made = _from_tokens(source, vocabulary_files.read_tiktoken(source.read_bytes(), source))
    assert isinstance(made, BPETokenizer)
    save_folder(made, tmp_path)
    config = settings_of(tmp_path / "tokenizer_config.json")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"add_prefix_space": True}))
    assert load_folder(tmp_path).encode("Hello world") == [18435, 995]
    vocab = json.loads((tmp_path / "vocab.json").read_text())
    del vocab[END]
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    (tmp_path / "tokenizer_config.json").unlink()
    ours = load_folder(tmp_path)
    assert (ours.size, ours.end_of_text) == (50257, 50256)


def test_a_vocabulary_without_end_of_text_gets_it(tmp_path: Path) -> None:
    vocab = {token: id for token, id in VOCAB.items() if token != END}
    folder = save_4(tmp_path, library_tokenizer(vocab=vocab), slow=True)
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        (folder / name).unlink()
    ours, theirs = load_folder(folder), GPT2Tokenizer.from_pretrained(folder)
    assert (ours.size, ours.end_of_text) == (len(theirs), theirs.eos_token_id) == (4096, 4095)
    assert ours.encode(MIXED, allow_special=True) == theirs.encode(MIXED)
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": None, "eos_token": None, "unk_token": None}))
    assert load_folder(folder).size == 4095, "null: there is none"


@pytest.mark.parametrize("slow", [True, False])
def test_special_tokens_that_only_the_config_names(slow: bool, tmp_path: Path) -> None:
    more = {
        "bos_token": "<|s|>",
        "pad_token": {"__type": "AddedToken", "content": "<pad>", "lstrip": True},
        "additional_special_tokens": ["<x>"],
    }
    folder = save_4(tmp_path, library_tokenizer(), slow=slow, **more)
    (folder / "special_tokens_map.json").unlink()
    ours, theirs = load_folder(folder), AutoTokenizer.from_pretrained(folder)
    text = "<|s|>a <pad> b<x>" + END
    assert ours.encode(text, allow_special=True) == theirs.encode(text)
    assert (ours.size, ours.start, ours.end_of_text) == (len(theirs), theirs.bos_token_id, theirs.eos_token_id)


def test_the_start_token_is_said(tmp_path: Path) -> None:
    plain = load_folder(save_4(tmp_path / "no", library_tokenizer(), slow=True))
    assert (plain.start, plain.starts) == (4095, False)
    ours = load_folder(save_4(tmp_path / "config", library_tokenizer(), slow=True, add_bos_token=True))
    assert AutoTokenizer.from_pretrained(tmp_path / "config").encode("a")[0] == ours.start == 4095
    assert ours.starts
    post = processors.TemplateProcessing(single="<|user|> $A", special_tokens=[("<|user|>", 4096)])
    ours = load_folder(save_5(tmp_path / "template", library_tokenizer(added=THREE, post=post)))
    assert AutoTokenizer.from_pretrained(tmp_path / "template").encode("a")[0] == ours.start == 4096
    assert ours.starts and ours.encode("a") == plain.encode("a"), "it is put in front on request only"


FLAGS = st.lists(
    st.builds(
        AddedToken,
        st.sampled_from(["<a>", "a", "ab", " b", "<a><b>", "é", "aba"]),
        single_word=st.booleans(),
        lstrip=st.booleans(),
        rstrip=st.booleans(),
        normalized=st.booleans(),
        special=st.booleans(),
    ),
    max_size=4,
    unique_by=lambda token: token.content,
)


@given(FLAGS, st.lists(st.text("<a>b é \n_\u2028\x1c1", max_size=12), min_size=1, max_size=4), st.booleans())
@settings(max_examples=150, deadline=None)
def test_flags_of_added_tokens(tokens: list[AddedToken], texts: list[str], allow_special: bool) -> None:
    from tui_llm.llm.tokens.added_tokens import AddedTokens, read_added

    made = library_tokenizer(added=tuple(tokens))
    made.encode_special_tokens = not allow_special
    entries = json.loads(made.to_str())["added_tokens"]
    ours = AddedTokens(read_added(entry, entry["id"], "x") for entry in entries)
    plain = plain_tokenizer()
    for text in texts:
        parts = ours.split(text, allow_special)
        ids = [id for part in parts for id in (plain.encode(part).ids if isinstance(part, str) else [part.id])]
        assert ids == made.encode(text).ids, (text, tokens)


LLAMA_3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


@pytest.mark.parametrize(
    "steps",
    [
        [pre_tokenizers.Split(Regex(LLAMA_3), "isolated"), BYTES],
        [pre_tokenizers.Split(Regex(LLAMA_3.replace("{1,3}", "")), "isolated"), BYTES],
        [pre_tokenizers.Split(Regex(LLAMA_3), "removed", invert=True), BYTES],
        [pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"), BYTES],
        [pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=True)],
        [pre_tokenizers.Digits(False), pre_tokenizers.ByteLevel(add_prefix_space=False)],
        [pre_tokenizers.Digits(True), pre_tokenizers.Split(Regex(r"\s+"), "isolated"), BYTES],
        [BYTES],
        [pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)],
    ],
    ids=str,
)
def test_pre_tokenizers(steps: list[Any], tmp_path: Path) -> None:
    text = mixed_text(6_000).replace(END, "") + " \u0660\u0661 ½ ⅷ I'LL 'ſ It’s"
    made = library_tokenizer(pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0])
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    assert load_folder(tmp_path).encode(text) == made.encode(text, add_special_tokens=False).ids


def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """nano's tokenizer.json in `folder`, changed."""
    raw = json.loads(library_tokenizer().to_str())
    change(raw)
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    return folder


NOT_OURS: dict[str, Callable[[dict[str, Any]], object]] = {
    "the normalizer Lowercase": lambda raw: raw.update(normalizer={"type": "Lowercase"}),
    "the pre-tokenizer Whitespace": lambda raw: raw.update(pre_tokenizer={"type": "Whitespace"}),
    "the pre-tokenizer Split by": lambda raw: raw.update(
        pre_tokenizer={
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"String": "a"}, "behavior": "Isolated", "invert": False},
                raw["pre_tokenizer"],
            ],
        }
    ),
    "the decoder WordPiece": lambda raw: raw.update(decoder={"type": "WordPiece", "prefix": "##", "cleanup": True}),
    "end_of_word_suffix to '</w>'": lambda raw: raw["model"].update(end_of_word_suffix="</w>"),
    "byte_fallback to 'True'": lambda raw: raw["model"].update(byte_fallback=True),
    "the post-processor RobertaProcessing": lambda raw: raw.update(
        post_processor={"type": "RobertaProcessing", "sep": ["!", 0], "cls": ["!", 0], "trim_offsets": True,
                        "add_prefix_space": False}
    ),
    "ignore_merges": lambda raw: (raw["model"].update(ignore_merges=True), raw["model"]["vocab"].update(zzq=4096)),
}  # fmt: skip


@pytest.mark.parametrize("rule", NOT_OURS)
def test_a_rule_that_is_not_ours_goes_to_the_library_or_is_named(
    rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = changed(tmp_path, NOT_OURS[rule])
    with pytest.raises(UnknownRule, match=rule):
        load_folder(folder)
    (folder / "config.json").write_text(
        '{"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 1, "vocab_size": 4097}'
    )
    theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = "The cat zzq 12"
    assert hub.load_vocabulary(folder, "x").encode(text) == theirs.encode(text, add_special_tokens=False).ids
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"{rule}.*; that needs the tokenizers library: pip install"):
        hub.load_vocabulary(folder, "x")


def test_damaged_rules_are_refused_by_name(tmp_path: Path) -> None:
    def hole(raw: dict[str, Any]) -> None:
        del raw["model"]["vocab"]["Ġthe"]

    def gap(raw: dict[str, Any]) -> None:
        raw["added_tokens"].append({**raw["added_tokens"][0], "id": 4100, "content": "<x>"})

    def twice(raw: dict[str, Any]) -> None:  # the library numbers neither it nor what follows as the file does
        raw["added_tokens"] += [{**raw["added_tokens"][0], "id": id, "content": "<x>"} for id in (4096, 4097)]

    for change, message in (
        (hole, "tokenizer.json has no id for 'Ġthe', which is a byte or what one of its merges makes"),
        (twice, "tokenizer.json gives the added token '<x>' the ids 4,096 and 4,097, .* takes the first"),
        (gap, "tokenizer.json has ids with gaps: .* '<x>' would get the id 4,096, not 4,100"),
        (lambda raw: raw["model"].update(dropout=0.1), "tokenizer.json sets dropout to 0.1"),
        (lambda raw: raw.update(added_tokens=[{"id": 1}]), "has no text"),
        (
            lambda raw: raw["added_tokens"][0].update(lstrip="yes"),
            "lstrip of the added token .* neither true nor false",
        ),
    ):
        with pytest.raises(UserError, match=message) as caught:
            load_folder(changed(tmp_path, change))
        assert "merges.txt" not in str(caught.value)
    folder = save_4(tmp_path / "qwen", library_tokenizer(), slow=True, tokenizer_class="Qwen2Tokenizer")
    (folder / "config.json").write_text(
        '{"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 1, "vocab_size": 4096}'
    )
    with pytest.raises(UserError, match="tokenizer_class 'Qwen2Tokenizer'; open the folder with transformers and save"):
        hub.load_vocabulary(folder, "x")


@pytest.mark.parametrize("pre", [None, DIGITS, PREFIX])
def test_a_saved_vocabulary_keeps_its_rules(pre: Any, tmp_path: Path) -> None:
    """What is trained from such a folder is opened by the same rules, here and in transformers."""
    post = processors.TemplateProcessing(single="<|bot|> $A", special_tokens=[("<|bot|>", 4097)])
    ours = load_folder(save_5(tmp_path / "5", library_tokenizer(pre, THREE, post), pad_token="<pad>"))
    save_folder(ours, tmp_path / "saved")
    again, theirs = load_folder(tmp_path / "saved"), AutoTokenizer.from_pretrained(tmp_path / "saved")
    ids = ours.encode(MIXED, allow_special=True)
    assert ids == again.encode(MIXED, allow_special=True) == theirs.encode(MIXED, add_special_tokens=False)
    for name in ("size", "start", "starts", "end_of_text", "special_texts", "fingerprint"):
        assert getattr(again, name) == getattr(ours, name), name


def test_ids_beyond_the_models_rows(tmp_path: Path) -> None:
    """A token that was added without resizing the model is no id of it, in every layout."""
    made = library_tokenizer(added=(AddedToken("<pad>", special=True),))
    for layout, save in LAYOUTS.items():
        ours = load_folder(save(tmp_path / layout, made), rows=4096)
        assert ours.size == 4096 and lookup.size_of_vocabulary(tmp_path / layout, 4096) == 4096
        with pytest.raises(UserError, match="'<pad>' is not in the model's vocabulary"):
            ours.encode("a<pad>", allow_special=True)
        with pytest.raises(KeyError):
            ours.token_bytes(4096)
        with pytest.raises(UserError, match=r"its vocabulary has 409[56] tokens, its model only 4000"):
            load_folder(tmp_path / layout, rows=4000)


def test_no_library_is_needed_for_a_folder_of_transformers_5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_5(tmp_path, library_tokenizer(DIGITS, THREE))
    wanted = AutoTokenizer.from_pretrained(folder).encode(MIXED)
    for name in ("tokenizers", "transformers"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    ours = hub.load_vocabulary(folder, "five", 4099)
    assert isinstance(ours, BPETokenizer) and ours.encode(MIXED, allow_special=True) == wanted


def test_steps_before_the_last() -> None:
    made = read_pre_tokenizer(json.loads(DIGITS.__getstate__()), "x")
    assert made == PreTokenizer((r"\p{N}",)) and made.parts("a12 b") == ["a", "1", "2", " b"]


def test_a_vocabulary_added_under_a_name_keeps_its_rules(tmp_path: Path) -> None:
    from tui_llm.llm.tokens import add_vocabulary, catalog

    library_tokenizer(DIGITS, THREE).save(str(tmp_path / "their.json"))
    catalog.load_named.cache_clear()
    add_vocabulary.add(tmp_path / "their.json", "theirs")
    made = catalog.load_named("theirs")
    assert made.encode(" 123<|user|>", allow_special=True) == [220, 16, 17, 18, 4096]
    save_4(tmp_path / "prefix", library_tokenizer(), slow=True, add_prefix_space=True)
    add_vocabulary.add(tmp_path / "prefix", "prefix")
    assert catalog.load_named("prefix").encode("5") == [220, 20]


def test_every_place_says_one_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Issue 15, fault 1: the softmax, the head of the pane and `models info` say one number, or why not."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from tui_llm import open_model
    from tui_llm.cli import main

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=4099, n_positions=32, n_embd=16, n_layer=1, n_head=2)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    vocab = {token: id for token, id in VOCAB.items() if token != END}
    cases = {"added": (library_tokenizer(added=THREE), 4099), "padded": (library_tokenizer(vocab=vocab), 4096)}
    for name, (made, ids) in cases.items():
        folder = save_4(tmp_path / name, made, slow=name == "padded")
        model.save_pretrained(folder)
        lab = open_model(str(folder))
        reading = lab.read("Hi 2024")
        with torch.no_grad():
            logits = model(torch.tensor([list(reading.prompt_ids)])).logits[0, -1, :ids]
        assert reading.distribution is not None
        assert reading.distribution.logsumexp == pytest.approx(logits.logsumexp(0).item(), abs=1e-5)
        assert reading.distribution.vocabulary == lab.weights.vocabulary == reading.tokens.vocabulary == ids
        assert main(["models", "info", str(folder), "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert (said["vocabulary"], said["rows"]) == (ids, None if name == "added" else 4099)
        assert main(["models", "info", str(folder)]) == 0
        assert ("4,096 ids; the model has 4,099 rows" in capsys.readouterr().out) is (name == "padded")
