"""Endless simple stories from a small grammar whose entropy rate is known exactly, a lower bound for any model's loss.

A story draws its hero and its thing once, then a first sentence, two to five middle sentences and a last one. Each
sentence is a template. Each `{slot}` in it draws a word from its own list, except `{hero}`, `{he}` and `{thing}`, which
repeat what was drawn at the beginning. All draws are independent, and so are stories.

The grammar is unambiguous: sentences end with full stops, every slot is one word, and no sentence matches two
templates. So the probability of a text is the product of its draws' probabilities, and by the chain rule its entropy is
the sum of their entropies (Shannon 1948, §6). If the tokenizer always encodes a word, with the space before it, as the
same tokens, whatever surrounds it, the number of tokens is a sum over the draws too:

    floor = H(story) / E[tokens of a story, its `<|endoftext|>` included]        in nats per token

This is the entropy rate of the token stream: no model's expected loss is below it, however long its context.
"""

from __future__ import annotations

import bisect
import math
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from tui_llm.llm.tokens.text import END_OF_TEXT

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class Choice:
    """A categorical distribution over `options`: the n-th (from 1) has a probability proportional to 1 / (n +
    `flatness`), similar to word frequencies."""

    options: tuple[str, ...]
    flatness: float = 4.0

    @cached_property
    def probabilities(self) -> list[float]:
        weights = [1 / (n + self.flatness) for n in range(1, len(self.options) + 1)]
        total = math.fsum(weights)
        return [weight / total for weight in weights]

    @cached_property
    def entropy(self) -> float:
        """In nats."""
        return -math.fsum(p * math.log(p) for p in self.probabilities)

    @cached_property
    def _cumulative(self) -> list[float]:
        return [math.fsum(self.probabilities[: n + 1]) for n in range(len(self.options) - 1)]

    def draw(self, rng: random.Random) -> str:
        """Inverse-CDF sampling with one number of `rng`, the same on every Python."""
        return self.options[bisect.bisect_right(self._cumulative, rng.random())]

    def log_probability(self, option: str) -> float:
        """ln p, in nats; −inf if it is not an option."""
        try:
            return math.log(self.probabilities[self.options.index(option)])
        except ValueError:
            return -math.inf

    def mean(self, of: Callable[[str], float]) -> float:
        """The expected value of `of(option)`."""
        return math.fsum(p * of(option) for p, option in zip(self.probabilities, self.options, strict=True))


def _words(text: str) -> Choice:
    return Choice(tuple(text.split()))


HEROES = _words("Lily Tom Mia Ben Anna Max Sara Sam")
SHE = frozenset(HEROES.options[::2])
THINGS = _words("ball kite book drum boat doll bell map")
SLOTS = {
    "child": _words("child baker farmer sailor painter tailor singer teacher dancer shepherd"),
    "adj": _words(
        "little happy kind brave clever quiet funny gentle proud shy sleepy lazy merry tiny tall young small fat thin "
        "wise strong silly wild lonely polite"
    ),
    "color": _words("red blue green yellow white black brown pink golden silver purple gray"),
    "animal": _words(
        "dog cat bird frog rabbit fox bear mouse duck horse sheep goat owl turtle lion bee hen pig wolf deer fish swan "
        "donkey squirrel monkey parrot"
    ),
    "place": _words(
        "garden forest house park school river hill barn kitchen field beach market tower cave village lake meadow "
        "castle mill bridge shop harbor valley island"
    ),
    "verb": _words(
        "saw heard followed helped found visited called fed hugged chased thanked met asked watched missed tickled "
        "carried washed"
    ),
    "weather": _words("sunny rainy windy cold warm cloudy snowy bright foggy stormy"),
    "food": _words("bread soup cake apples cheese honey berries milk pie nuts plums rice"),
    "feeling": _words("glad sad tired hungry proud surprised scared excited angry calm worried curious"),
    "way": _words("slowly quickly quietly gladly carefully loudly bravely softly together alone"),
    "number": _words("two three four five six seven eight nine ten twelve"),
}
FIRST = Choice((
    "Once there was a {adj} {child} named {hero} who had a {color} {thing}.",
    "One {weather} day, {hero} the {adj} {child} found a {color} {thing} near the {place}.",
    "Long ago, a {adj} {child} called {hero} lived in a {place} and loved a {color} {thing}.",
))  # fmt: skip
MIDDLE = Choice((
    "Then {he} went to the {place} and {verb} a {adj} {animal}.",
    "The {animal} was {feeling} and wanted the {thing}.",
    "Suddenly a {color} {animal} {verb} a {adj} {animal} in the {place}.",
    "At the {place}, {hero} ate {food} and {food} with {number} friends.",
    "After that, {hero} ran {way} to the {place} with the {thing}.",
    "But it was a {weather} day and {he} felt {feeling}.",
    "So {he} gave the {animal} some {food} and a {color} hat.",
    "In the {place}, {number} {adj} friends {verb} the {animal}.",
))  # fmt: skip
LAST = Choice((
    "Finally {hero} took the {thing} home, and {he} was {feeling}.",
    "Everyone in the {place} was {feeling}, and {hero} slept {way}.",
    "From then on, {hero} and the {animal} played {way} with the {thing}.",
))  # fmt: skip
MIDDLES = _words("2 3 4 5")
_BOUND = ("hero", "he", "thing")
_SLOT = re.compile(r"\{(\w+)\}")


# ── generation ───────────────────────────────────────────────────────────────────────────────────────────────────────


def story(rng: random.Random) -> str:
    """One story, on one line."""
    hero = HEROES.draw(rng)
    bound = {"hero": hero, "he": "she" if hero in SHE else "he", "thing": THINGS.draw(rng)}
    templates = [FIRST.draw(rng), *(MIDDLE.draw(rng) for _ in range(int(MIDDLES.draw(rng)))), LAST.draw(rng)]
    return " ".join(
        _SLOT.sub(lambda m: bound[m[1]] if m[1] in bound else SLOTS[m[1]].draw(rng), template) for template in templates
    )


def stories(seed: int) -> Iterator[str]:
    """An endless stream of stories, the same for the same seed."""
    rng = random.Random(seed)
    while True:
        yield story(rng)


def text(seed: int, size: int) -> Iterator[str]:
    """Whole stories with a separator after each, until they have at least `size` characters (all ASCII)."""
    for one in stories(seed):
        piece = f"{one}\n{END_OF_TEXT}\n"
        yield piece
        size -= len(piece)
        if size <= 0:
            return


# ── parsing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _pattern(template: str) -> re.Pattern[str]:
    parts = _SLOT.split(template)
    return re.compile("".join(r"([A-Za-z]+)" if i % 2 else re.escape(part) for i, part in enumerate(parts)))


_PATTERNS = {
    template: (_pattern(template), _SLOT.findall(template))
    for template in FIRST.options + MIDDLE.options + LAST.options
}


def readings(sentence: str, templates: Choice, bound: dict[str, str]) -> list[float]:
    """ln p of each parse of `sentence` by one of `templates`: one or none. `bound` maps bound slots to their words;
    those that the sentence binds are added."""
    found = []
    for template in templates.options:
        pattern, slots = _PATTERNS[template]
        if not (match := pattern.fullmatch(sentence)):
            continue
        total = templates.log_probability(template)
        for slot, word in zip(slots, match.groups(), strict=True):
            if slot in _BOUND:
                total += 0.0 if bound.setdefault(slot, word) == word else -math.inf
            else:
                total += SLOTS[slot].log_probability(word)
        if total > -math.inf:
            found.append(total)
    return found


def log_probability(one: str) -> float:
    """ln p of one story, in nats; −inf if the grammar can't generate it."""
    sentences = re.findall(r"[^.]+\.(?: |$)", one)
    if "".join(sentences) != one or one.endswith(" ") or not 4 <= len(sentences) <= 7:
        return -math.inf
    bound: dict[str, str] = {}
    total = MIDDLES.log_probability(str(len(sentences) - 2))
    kinds = [FIRST, *[MIDDLE] * (len(sentences) - 2), LAST]
    for number, (sentence, templates) in enumerate(zip(sentences, kinds, strict=True)):
        ways = readings(sentence.removesuffix(" "), templates, bound)
        if not ways:
            return -math.inf
        total += math.log(math.fsum(map(math.exp, ways)))
        if number == 0:  # every first sentence names the hero and the thing
            total += HEROES.log_probability(bound["hero"]) + THINGS.log_probability(bound["thing"])
            bound["he"] = "she" if bound["hero"] in SHE else "he"
    return total


# ── entropy rate ─────────────────────────────────────────────────────────────────────────────────────────────────────


def entropy() -> float:
    """H of one story, in nats: the sum of its draws' entropies, each weighted with its expected number of
    occurrences."""

    def sentences(templates: Choice) -> float:
        return templates.entropy + templates.mean(
            lambda template: math.fsum(SLOTS[s].entropy for s in _SLOT.findall(template) if s not in _BOUND)
        )

    middles = MIDDLES.mean(float)
    bound = HEROES.entropy + THINGS.entropy + MIDDLES.entropy
    return bound + sentences(FIRST) + middles * sentences(MIDDLE) + sentences(LAST)


def expected_tokens(encode: Encode, *, separator: bool = True) -> float:
    """E[tokens of one story], by linearity of expectation. Assumes that `encode` gives every word, with its space, its
    own tokens."""
    heroes = HEROES.probabilities
    she = math.fsum(p for p, hero in zip(heroes, HEROES.options, strict=True) if hero in SHE)

    def count(piece: str) -> int:
        return len(encode(piece))

    def slot(name: str) -> float:
        if name == "he":
            return she * count(" she") + (1 - she) * count(" he")
        choice = {"hero": HEROES, "thing": THINGS}.get(name) or SLOTS[name]
        return choice.mean(lambda word: count(" " + word))

    means = {name: slot(name) for name in (*_BOUND, *SLOTS)}

    def sentences(templates: Choice, space: str) -> float:
        def length(template: str) -> float:
            pieces = re.findall(r" ?\{\w+\}| ?[A-Za-z]+|[.,]", space + template)
            return math.fsum(means[p.strip(" {}")] if "{" in p else count(p) for p in pieces)

        return templates.mean(length)

    return sentences(FIRST, "") + MIDDLES.mean(float) * sentences(MIDDLE, " ") + sentences(LAST, " ") + float(separator)


def floor(encode: Encode, *, separator: bool = True) -> float | None:
    """The entropy rate of stories tokenized by `encode`, in nats per token; None if it is unknown, because a token
    spans words or a word is tokenized differently elsewhere. `separator`: whether `<|endoftext|>` is a token."""
    for _, one in zip(range(200), stories(0), strict=False):
        pieces = re.findall(r" ?[A-Za-z]+|[.,]", one)
        if encode(one) != [id for piece in pieces for id in encode(piece)]:
            return None
    return entropy() / expected_tokens(encode, separator=separator)
