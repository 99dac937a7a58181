"""Shown and generated text is what the tokenizer's own decoder gives: WordPiece, Unigram, SentencePiece, GPT-1's BPE."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import foreign
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer

from tui_llm.cli import main
from tui_llm.common.display import visible
from tui_llm.llm.adapters.vocabulary import JsonTokenizer
from tui_llm.session.tokenization import span, tokenization

SPECIAL = ["<unk>", "</s>"]


def trained(model: Any, pre: Any, decoder: Any, trainer: Any, normalizer: Any = None) -> Tokenizer:
    made = Tokenizer(model)
    made.pre_tokenizer, made.decoder = pre, decoder
    if normalizer is not None:
        made.normalizer = normalizer
    made.train_from_iterator(foreign.TEXT, trainer)
    return made


MADE = {
    "WordPiece": trained(
        models.WordPiece(unk_token="<unk>"), pre_tokenizers.BertPreTokenizer(), decoders.WordPiece(),
        trainers.WordPieceTrainer(vocab_size=90, special_tokens=SPECIAL, show_progress=False), normalizers.Lowercase(),
    ),
    "Unigram": trained(
        models.Unigram(), pre_tokenizers.Metaspace(), decoders.Metaspace(),
        trainers.UnigramTrainer(vocab_size=90, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False),
    ),
    "words": trained(
        models.WordLevel(unk_token="<unk>"), pre_tokenizers.Whitespace(), None,
        trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False),
    ),
    "GPT-1": trained(
        models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"), pre_tokenizers.BertPreTokenizer(),
        decoders.BPEDecoder("</w>"),
        trainers.BpeTrainer(vocab_size=120, special_tokens=SPECIAL, end_of_word_suffix="</w>", show_progress=False),
    ),
    "SentencePiece": foreign.sentence_piece(),
    "byte-level": foreign.byte_level(),
}  # fmt: skip
OURS = {name: JsonTokenizer(name, made.to_str(), Path("tokenizer.json")) for name, made in MADE.items()}


@pytest.mark.parametrize("name", MADE)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_text_is_that_of_the_decoder(name: str, data: st.DataObject) -> None:
    """What tokens add to a text is what the decoder's text grows by."""
    made, ours = MADE[name], OURS[name]
    special = {id for id in range(ours.size) if ours.is_special(id)}
    ids = data.draw(st.lists(st.integers(0, ours.size - 1).filter(lambda id: id not in special), max_size=12))
    whole = made.decode(ids, skip_special_tokens=False)
    first = data.draw(st.integers(0, len(ids)))
    before = made.decode(ids[:first], skip_special_tokens=False)
    if first and "\ufffd" not in whole + before and before.strip():
        added = b"".join(map(ours.bytes_after, ids[first - 1 :], ids[first:])).decode()
        assert before + added == whole


def test_pieces_stay_visible() -> None:
    ours = OURS["WordPiece"]
    ids = ours.encode("The cats.")
    shown = tokenization(ours, ids)
    pieces = [MADE["WordPiece"].id_to_token(id) for id in ids]
    assert [piece.text for piece in shown.pieces] == pieces and any(piece.startswith("##") for piece in pieces)
    assert "".join(token.text for token in shown.tokens) == " the cats."
    assert tokenization(OURS["Unigram"], OURS["Unigram"].encode("The cat")).pieces[0].text.startswith(" ")


def test_no_characters_are_marked_where_the_vocabulary_changes_the_text() -> None:
    ours = OURS["WordPiece"]
    ids = ours.encode("the cat sat")
    assert span(ours, ids, 0, 0, 0, "the cat sat") == (0, 3)
    for prompt in ("The cat sat", "the  cat sat"):
        assert span(ours, ours.encode(prompt), 0, 0, 0, prompt) is None


@pytest.mark.parametrize("name", ["WordPiece", "Unigram", "GPT-1", "words"])
def test_generated_text(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """prompt + generated text = the decoder's text of all ids, on the command line."""
    foreign.make("llama", tmp_path, MADE[name])
    prompt = "the cat sat on the"
    command = ["generate", prompt, "--model", str(tmp_path), "--max-tokens", "12", "--ignore-end"]
    assert main([*command, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    theirs = AutoTokenizer.from_pretrained(tmp_path, tokenizer_class="PreTrainedTokenizerFast")
    whole = theirs.decode([*made["prompt_ids"], *made["ids"]])
    assert prompt + made["text"] == whole
    assert "".join(step["text"] for step in made["steps"]) == made["text"]
    assert main(command) == 0
    assert capsys.readouterr().out.removesuffix("\n") == visible(whole, newlines=True)
