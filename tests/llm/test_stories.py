"""The grammar's entropy, against an enumeration of all stories of a small grammar, and against generated stories."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

from tui_llm.common.paths import shipped_models_dir
from tui_llm.llm.data import corpora, corpus, stories
from tui_llm.llm.data.stories import FIRST, LAST, MIDDLE, SLOTS, Choice
from tui_llm.llm.tokens.text import END_OF_TEXT
from tui_llm.llm.tokens.tokenizer import byte_level
from tui_llm.llm.tokens.vocabulary_folder import load_folder

BYTE = byte_level()
NANO = load_folder(shipped_models_dir() / "nano")


def some(count: int, seed: int = 7) -> list[str]:
    return list(itertools.islice(stories.stories(seed), count))


def test_the_grammar_is_unambiguous() -> None:
    for templates in (FIRST, MIDDLE, LAST):
        first = [template.split()[0].strip(",") for template in templates.options]
        assert len(set(first)) == len(first) and all(word.isalpha() for word in first), "no sentence fits two templates"
        assert all(template.endswith(".") and template.count(".") == 1 for template in templates.options)
        assert "{hero}" in FIRST.options[0]
    for choice in (*SLOTS.values(), stories.HEROES, stories.THINGS):
        assert len(set(choice.options)) == len(choice.options), "no word twice in a list"
        assert all(word.isascii() and word.isalpha() for word in choice.options), "every slot is one word"
        assert math.fsum(choice.probabilities) == pytest.approx(1, abs=1e-14)
    for template in FIRST.options:
        assert template.count("{hero}") == template.count("{thing}") == 1 and "{he}" not in template
    for one in some(500):
        *middles, last = [s + "." for s in one.rstrip(".").split(". ")][1:]
        for sentence, templates in [*((m, MIDDLE) for m in middles), (last, LAST)]:
            assert len(stories.readings(sentence, templates, {})) <= 1


class Script(random.Random):
    """Enumerates every combination of choices in place of random ones."""

    def __init__(self) -> None:
        super().__init__(0)
        self.path: list[tuple[int, int]] = []  # (choice, number of choices)
        self.at = 0
        self.probability = 1.0

    def draw(self, choice: Choice) -> str:
        if self.at == len(self.path):
            self.path.append((0, len(choice.options)))
        taken = self.path[self.at][0]
        self.at += 1
        self.probability *= choice.probabilities[taken]
        return choice.options[taken]

    def every(self) -> Iterator[tuple[str, float]]:
        while True:
            self.at, self.probability = 0, 1.0
            yield stories.story(self), self.probability
            while self.path and self.path[-1][0] + 1 == self.path[-1][1]:
                self.path.pop()
            if not self.path:
                return
            self.path[-1] = self.path[-1][0] + 1, self.path[-1][1]


def test_entropy_and_tokens_against_an_enumeration_of_all_stories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Choice, "draw", lambda self, rng: rng.draw(self))
    for name, options in (("FIRST", FIRST.options[::2]), ("MIDDLE", MIDDLE.options[1:6:4]), ("LAST", LAST.options[:1]),
                          ("HEROES", ("Lily", "Tom")), ("THINGS", ("ball", "map")), ("MIDDLES", ("2", "3"))):  # fmt: skip
        monkeypatch.setattr(stories, name, Choice(options))
    small = {"adj": ("young",), "child": ("child",), "color": ("red", "gray"), "place": ("lake",), "animal": ("dog",)}
    small |= {"feeling": ("happy", "sad"), "weather": ("foggy",)}
    monkeypatch.setattr(stories, "SLOTS", {name: Choice(small.get(name, ("a",))) for name in SLOTS})
    every = list(Script().every())
    assert len(every) == len({text for text, _ in every}) == 2 * 2 * 2 * 2 * (4**2 + 4**3) * 2
    assert math.fsum(p for _, p in every) == pytest.approx(1)
    assert stories.entropy() == pytest.approx(-math.fsum(p * math.log(p) for _, p in every))
    for text, p in every:
        assert stories.log_probability(text) == pytest.approx(math.log(p))
    for tokenizer in (BYTE, NANO):
        tokens = math.fsum(p * (len(tokenizer.encode(text)) + 1) for text, p in every)
        assert stories.expected_tokens(tokenizer.encode) == pytest.approx(tokens)


@pytest.mark.parametrize("tokenizer", [BYTE, NANO], ids=["byte", "nano"])
def test_generated_stories_cost_the_entropy(tokenizer: corpus.Tokenizer) -> None:
    """The mean −ln p per token of generated stories equals the floor within four standard errors."""
    written = some(8000)
    costs = [-stories.log_probability(one) for one in written]
    tokens = [len(tokenizer.encode(one)) + 1 for one in written]
    floor = stories.floor(tokenizer.encode)
    assert floor is not None
    # The standard error of a ratio of means (Cochran 1977, §2.11).
    rest = [cost - floor * count for cost, count in zip(costs, tokens, strict=True)]
    error = statistics.stdev(rest) / math.sqrt(len(rest)) / statistics.mean(tokens)
    assert error < 0.003 * floor
    assert sum(costs) / sum(tokens) == pytest.approx(floor, abs=4 * error)
    mean = statistics.mean(costs)
    assert mean == pytest.approx(stories.entropy(), abs=4 * statistics.stdev(costs) / math.sqrt(len(costs)))


def test_a_text_outside_of_the_grammar_has_probability_0() -> None:
    one = some(1)[0]
    assert stories.log_probability(one) > -math.inf
    hero = next(name for name in stories.HEROES.options if name in one)
    for wrong in ("", one[:-1], one + " ", one.replace(hero, "Bob"), one + " And more.", "No. No. No. No.", one * 2,
                  one.split(". ", 1)[1]):  # fmt: skip
        assert stories.log_probability(wrong) == -math.inf


def test_a_tokenizer_that_cuts_across_words_has_no_known_floor() -> None:
    assert stories.floor(lambda text: list(range(len(text) // 3))) is None


def test_the_seed_decides() -> None:
    assert some(5) == some(5) != some(5, seed=8)
    written = "".join(stories.text(7, 2000))
    assert 2000 <= len(written) < 3000
    assert [d for d in written.split(f"\n{END_OF_TEXT}\n") if d] == some(written.count(END_OF_TEXT))


def test_the_corpus_is_pinned_and_what_is_held_out_is_new() -> None:
    """The same five million bytes on every machine.

    If they change, `corpora._GENERATED` needs a new hash, and runs have another corpus.
    """
    file = corpora.named("stories")
    made = corpus.load(["stories"], BYTE, 0.05, block_size=64)
    assert (
        file.stat().st_size == 5_000_204
        and hashlib.sha256(file.read_bytes()).hexdigest() == corpora._GENERATED["stories"][4]
    )
    learned, held = (BYTE.decode(part.tolist()).split(END_OF_TEXT) for part in (made.train, made.validation))
    held = held[1:-1]  # the first one is the rest of a story that begins in the training part
    assert len(held) > 500 and not set(held) & set(learned)
    assert all(stories.log_probability(one) > -math.inf for one in held)
    assert made.floor == stories.floor(BYTE.encode) and made.floor < made.unigram_entropy


def test_only_stories_alone_have_a_floor(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("something else")
    assert corpora.floor(["stories", str(tmp_path / "more.txt")], BYTE.encode, separator=True) is None
    assert corpora.floor([], BYTE.encode, separator=True) is None
    assert corpora.floor(["stories"], BYTE.encode, separator=True) == stories.floor(BYTE.encode)
