"""Prefer: answers drawn from the copy, pairs kept in a file as they are ranked, the copy as a folder; against transformers."""

from __future__ import annotations

import codecs
import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, GPT2LMHeadModel

from tests.byte_models import save_byte_model
from tui_llm import open_model
from tui_llm.common import paths, storage
from tui_llm.common.errors import Overtaken, UserError
from tui_llm.engine import PipelineEngine
from tui_llm.facts.preference import DPOSettings, PreferenceRecipe, RankedPair
from tui_llm.facts.request import Request
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.instruments.prefer.question import (
    AnswersQuestion,
    PreferQuestion,
    Preferred,
    PreferTextQuestion,
    SavePreferredQuestion,
    TwoAnswers,
)
from tui_llm.llm.data import preference_pairs
from tui_llm.llm.data.preference_pairs import PreferencePair
from tui_llm.llm.model.shape import GPTConfig
from tui_llm.llm.tokens import tokenizer

RECIPE = PreferenceRecipe(learning_rate=1e-2)
SAMPLER = SamplerSettings(temperature=0.9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model over bytes, with padding rows in its embedding."""
    shape = GPTConfig(vocabulary=264, context=24, layers=2, heads=2, width=16)
    return save_byte_model(tmp_path_factory.mktemp("models") / "tiny", shape, padding=10.0)


@pytest.fixture
def engine(folder: Path) -> PipelineEngine:
    made = PipelineEngine("cpu")
    made.open(str(folder))
    return made


def request(prompt: str = "The cat ") -> Request:
    return Request(prompt=prompt, sampler=SAMPLER)


def ids(text: str) -> tuple[int, ...]:
    return tuple(tokenizer.byte_level().encode(text))


def pair(chosen: str, rejected: str, prompt: str = "The cat ", recipe: PreferenceRecipe = RECIPE) -> RankedPair:
    return RankedPair(ids(prompt), ids(chosen), ids(rejected), recipe)


PAIRS = (pair("sat", "ran off"), pair("é!", "x", "A"), pair("mew", "bark"))


def ask(engine: PipelineEngine, ranked: tuple[RankedPair, ...], file: str = "") -> Preferred:
    return engine.answer(PreferQuestion(request(), ranked, file))


def draw(engine: PipelineEngine, ranked: tuple[RankedPair, ...] = (), **fields: object) -> TwoAnswers:
    return engine.answer(AnswersQuestion(request(), ranked, count=8, **fields))  # type: ignore[arg-type]


def test_answers_are_those_of_generate_and_their_log_probabilities_transformers(
    engine: PipelineEngine, folder: Path
) -> None:
    two = draw(engine, seeds=(5, 9), texts=(None, "sat"))
    made = [token.id for token in engine.generate(request(), seed=5, count=8)]
    assert made[: len(two.left.ids)] == list(two.left.ids)  # without bytes that begin a character at the end
    assert two.right.ids == ids("sat") and two.right.seed is None and two.left.seed == 5
    model = GPT2LMHeadModel.from_pretrained(folder)
    for answer in (two.left, two.right):
        whole = torch.tensor([[*two.prompt, *answer.ids]])
        with torch.no_grad():
            logs = model(whole).logits[0, :, :257].log_softmax(-1)
        expected = [float(logs[len(two.prompt) - 1 + at, id]) for at, id in enumerate(answer.ids)]
        assert list(answer.logs) == pytest.approx(expected, abs=1e-4)
        assert answer.logp == pytest.approx(sum(expected), abs=1e-3)
    assert draw(engine, seeds=(5, 9), texts=(None, "sat")) == two


def test_answers_are_drawn_from_the_copy_and_undone_with_it(engine: PipelineEngine) -> None:
    before = draw(engine)
    recipe = PreferenceRecipe(learning_rate=0.05, steps=5)
    learned = (pair("zzzz", "qqqq", recipe=recipe),)
    ask(engine, learned)
    assert draw(engine, learned).left.logs != before.left.logs
    assert draw(engine, ()) == before
    assert engine.weights().name == before.weights.name


def test_choices_are_learned_once_and_the_text_question_agrees(engine: PipelineEngine) -> None:
    one = ask(engine, PAIRS[:1])
    assert ask(engine, PAIRS[:1]).changes == one.changes and one.stored == 1
    alone = engine.answer(PreferTextQuestion(request(), "sat", "ran off", RECIPE))
    assert alone.changes == one.changes and alone.ranked == one.ranked
    assert one.changes[0].losses == (math.log(2),)
    assert [token.id for token in one.chosen] == list(ids("sat"))
    again = engine.answer(PreferQuestion(request()))  # None: what there is
    assert again.ranked == one.ranked and again.changes == one.changes


def test_python_s_prefer(folder: Path) -> None:
    lab = open_model(str(folder), "cpu")
    change = lab.prefer("The cat ", "sat", "ran off", beta=0.3, steps=2, learning_rate=1e-2)
    recipe = PreferenceRecipe(DPOSettings(0.3), 1e-2, 2)
    assert change == lab.ask(PreferTextQuestion(request(), "sat", "ran off", recipe)).changes[0]
    assert len(change.losses) == 2 and change.after.margin > 0
    assert lab.prefer("The cat ", "sat", "ran off").losses == (math.log(2),)


def test_pairs_are_in_the_file_as_soon_as_they_are_ranked_and_undone_ones_are_not(
    engine: PipelineEngine, tmp_path: Path
) -> None:
    file = tmp_path / "deep" / "pairs.jsonl"
    for count in (1, 2, 3):
        made = ask(engine, PAIRS[:count], str(file))
        assert made.file == str(file) and not made.unsaved
        assert len(preference_pairs.read(file)) == count
    assert preference_pairs.read(file) == (
        PreferencePair("The cat ", "sat", "ran off"),
        PreferencePair("A", "é!", "x"),
        PreferencePair("The cat ", "mew", "bark"),
    )
    ask(engine, PAIRS[:1], str(file))
    assert [json.loads(line)["chosen"] for line in file.read_text().splitlines()] == ["sat"]
    ask(engine, (PAIRS[0], PAIRS[2]), str(file))
    assert [one.chosen for one in preference_pairs.read(file)] == ["sat", "mew"]


def test_a_pair_that_can_t_be_written_is_learned_all_the_same(engine: PipelineEngine, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    file = tmp_path / "taken" / "pairs.jsonl"
    made = ask(engine, PAIRS[:2], str(file))
    assert len(made.changes) == 2 and "can't write" in made.unsaved and "\n" not in made.unsaved
    fine = tmp_path / "fine.jsonl"
    assert not ask(engine, PAIRS[:2], str(fine)).unsaved and len(preference_pairs.read(fine)) == 2


def test_a_pair_is_kept_though_its_step_fails(engine: PipelineEngine, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    ask(engine, PAIRS[:1], str(file))
    with pytest.raises(UserError, match="smaller learning rate"):
        wild = PreferenceRecipe(DPOSettings(100.0), learning_rate=1.0, steps=200)
        broken = engine.remembered["prefer"].learner
        with torch.no_grad():
            broken.model.norm.weight[0] = math.nan
        ask(engine, (PAIRS[0], pair("mew", "bark", recipe=wild)), str(file))
    assert [one.chosen for one in preference_pairs.read(file)] == ["sat", "mew"]
    assert len(ask(engine, PAIRS[:2], str(file)).changes) == 2
    assert [one.chosen for one in preference_pairs.read(file)] == ["sat", "é!"]


def test_a_prompt_that_ends_inside_a_character(engine: PipelineEngine, tmp_path: Path) -> None:
    """The answers end the character: its bytes go with them, so that the file's text is the text that was learned."""
    file = tmp_path / "pairs.jsonl"
    begun = Request(prompt="A ", continuation=ids("é")[:1], sampler=SAMPLER)
    two = engine.answer(AnswersQuestion(begun, count=4))
    assert two.prompt == (*ids("A "), ids("é")[0])
    ranked = RankedPair(two.prompt, (*ids("é")[1:], *ids("!")), (*ids("è")[1:],), RECIPE)
    assert len(ask(engine, (ranked,), str(file)).changes) == 1
    assert preference_pairs.read(file) == (PreferencePair("A ", "é!", "è"),)
    assert engine.answer(AnswersQuestion(begun, (ranked,), count=4)).text.startswith("A ")


def test_drawn_answers_end_with_whole_characters(engine: PipelineEngine) -> None:
    cut = 0
    for seed in range(1, 12):
        answer = draw(engine, seeds=(seed, seed)).left
        made = [token.id for token in engine.generate(request(), seed=seed, count=8)]
        assert made[: len(answer.ids)] == list(answer.ids)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        decoder.decode(b"".join(token.bytes for token in answer.tokens))
        assert len(answer.ids) == 1 or not decoder.getstate()[0]
        cut += len(answer.ids) < len(made)
    assert cut  # of these random bytes some begin a character at the end


@pytest.mark.parametrize(
    ("chosen", "rejected", "said"),
    [
        ("sat", "sat", "are the same"),
        ("", "sat", "the chosen answer is empty"),
        ("sat", "", "the rejected answer is empty"),
        ("a" * 25, "sat", "the chosen answer has 25 tokens, but the model sees 24 at once"),
    ],
)
def test_a_pair_that_can_t_be_learned_is_refused(
    engine: PipelineEngine, tmp_path: Path, chosen: str, rejected: str, said: str
) -> None:
    file = tmp_path / "pairs.jsonl"
    ask(engine, PAIRS[:1], str(file))
    for question in (
        PreferTextQuestion(request(), chosen, rejected, RECIPE),
        PreferQuestion(request(), (PAIRS[0], pair(chosen, rejected)), str(file)),
    ):
        with pytest.raises(UserError, match=said) as caught:
            engine.answer(question)
        assert "\n" not in str(caught.value)
    assert len(engine.answer(PreferQuestion(request())).ranked) == 1


def test_a_typed_answer_that_is_too_long_or_no_prompt_is_refused(engine: PipelineEngine) -> None:
    with pytest.raises(UserError, match="25 tokens"):
        draw(engine, texts=("a" * 25, None))
    with pytest.raises(UserError, match="nothing to predict from"):
        engine.answer(AnswersQuestion(Request()))
    with pytest.raises(Overtaken):
        engine.answer(AnswersQuestion(request()), lambda: True)


def test_a_long_prompt_loses_its_beginning_and_that_is_said(engine: PipelineEngine) -> None:
    long = "x" * 40
    made = engine.answer(PreferTextQuestion(request(long), "abc", "de", RECIPE))
    short = engine.answer(PreferTextQuestion(request("x" * 22), "abc", "de", RECIPE))
    assert made.changes[0].left_out == 18 and short.changes[0].left_out == 0
    assert made.changes[0].chosen_tokens == short.changes[0].chosen_tokens


def test_weights_for_inference_are_refused(folder: Path) -> None:
    made = PipelineEngine("cpu", "half")
    made.open(str(folder))
    with pytest.raises(UserError, match="open the model with --weights fp32"):
        made.answer(PreferQuestion(request()))


def test_the_card_says_what_each_pair_s_loss_was(engine: PipelineEngine) -> None:
    def sentence(*settings: DPOSettings) -> str:
        recipes = (PreferenceRecipe(dpo, 1e-2) for dpo in settings)
        made = tuple(pair(chosen, "x", recipe=recipe) for chosen, recipe in zip("abc", recipes, strict=False))
        ask(engine, made)
        saved = engine.answer(SavePreferredQuestion(request(), made, "card", force=True))
        return (Path(saved.folder) / "README.md").read_text()

    plain = "the loss is −ln σ(margin), a reward β (ln π − ln ref)"
    assert f"T{plain[1:]}." in sentence(DPOSettings(), DPOSettings(0.3))
    card = sentence(DPOSettings(), DPOSettings(0.1, True, 0.7), DPOSettings())
    assert f"- pair 1, 3: {plain}\n" in card
    wanted = "−ln σ(margin) + 0.7 · (−ln π(chosen) ÷ its tokens), a reward β (ln π − ln ref) ÷ its tokens"
    assert f"- pair 2: the loss is {wanted}\n" in card


def test_the_saved_copy_opens_here_and_in_transformers_with_the_same_greedy_text(engine: PipelineEngine) -> None:
    made = ask(engine, PAIRS)
    saved = engine.answer(SavePreferredQuestion(request(), PAIRS, "mine"))
    assert saved.folder == str(paths.models_dir() / "mine") and saved.pairs == 3
    other = PipelineEngine("cpu")
    other.open("mine")
    greedy = Request(prompt="The cat ", sampler=SamplerSettings(temperature=0))
    ours = [token.id for token in other.generate(greedy, seed=1, count=12)]
    theirs = GPT2LMHeadModel.from_pretrained(saved.folder)
    vocabulary = AutoTokenizer.from_pretrained(saved.folder)
    fed = vocabulary("The cat ", return_tensors="pt").input_ids
    with torch.no_grad():
        theirs.lm_head.weight[257:] = 0  # padding rows are no tokens
        out = theirs.generate(fed, max_new_tokens=12, do_sample=False, suppress_tokens=list(range(257, 264)))
    assert out[0, fed.size(1) :].tolist() == ours
    losses = other.answer(PreferTextQuestion(request(), "mew", "bark", RECIPE)).changes[0]
    assert losses.before.chosen_logp == pytest.approx(made.changes[2].after.chosen_logp, abs=1e-3)
    card = (Path(saved.folder) / "README.md").read_text()
    assert "3 ranked pairs" in card and "| 1 | The cat  | sat | ran off |" in card and "2305.18290" in card
    with pytest.raises(UserError, match="already exists"):
        engine.answer(SavePreferredQuestion(request(), PAIRS, "mine"))
    with pytest.raises(UserError, match="choose an answer first"):
        engine.answer(SavePreferredQuestion(request(), (), "other"))


def test_a_folder_that_can_t_be_written_loses_nothing(
    engine: PipelineEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ask(engine, PAIRS)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(storage, "temporary_folder", refuse)
    with pytest.raises(UserError, match=r"can't write .*Permission denied") as caught:
        engine.answer(SavePreferredQuestion(request(), PAIRS, str(tmp_path / "mine")))
    assert "\n" not in str(caught.value) and not (tmp_path / "mine").exists()
    monkeypatch.undo()
    assert engine.answer(SavePreferredQuestion(request(), PAIRS, str(tmp_path / "mine"))).pairs == 3


def test_pairs_are_ranked_and_kept_from_python(folder: Path, tmp_path: Path) -> None:
    lab = open_model(str(folder), "cpu")
    pairs = [(f"Say {i}:", " yes", f" no{i}") for i in range(4)]
    made = lab.rank(pairs, learning_rate=1e-2, keep=str(tmp_path / "kept"))
    assert made.changes[0].losses[0] == pytest.approx(math.log(2)) and made.agreements[1] == 3
    assert all(change.after.margin > change.before.margin for change in made.changes)
    assert [len(lab.rank(pairs[:count], learning_rate=1e-2).changes) for count in (2, 4)] == [2, 4]
    reference = GPT2LMHeadModel.from_pretrained(tmp_path / "kept").eval()
    ids = tokenizer.byte_level().encode(pairs[0][0])
    theirs = reference.generate(
        torch.tensor([ids]), max_new_tokens=8, do_sample=False, suppress_tokens=[*range(257, 264)]
    )[0, len(ids) :].tolist()
    ours = [token.id for token in open_model(str(tmp_path / "kept"), "cpu").generate(pairs[0][0], max_tokens=8, sampler=SamplerSettings(0.0))]  # fmt: skip
    assert ours == theirs[: len(ours)]
    for bad in ([("", " a", " b")], [("x", "", " b")], [("x", " a", " a")]):
        with pytest.raises(UserError):
            lab.rank(bad)
