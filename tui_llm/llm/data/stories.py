"""Endless simple stories from a small grammar, whose entropy is known exactly: the floor that no model can pass.

A story draws its hero and the thing it is about once, then a first sentence, two to five in the middle and a last one.
Each sentence is a template; each `{slot}` in it draws a word of its own list, but for `{hero}`, `{he}` and `{thing}`,
which say again what was drawn at the beginning. All draws are independent, stories too.

A story can be read back in one way only: sentences end with full stops, every slot is one word, and no template's
beginning fits another's sentence. So a text is as probable as its draws, and by the chain rule its entropy is
the sum of theirs (Shannon 1948, §6). With a tokenizer that gives every word, with the space before it, tokens of its own,
whatever stands around it, tokens are counted draw by draw too:

    floor = H(story) / E[tokens of a story, its `<|endoftext|>` included]        in nats per token

is the entropy rate of the token stream: no model's expected loss is below it, whatever it sees before each token.
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
    """`options`, the n-th (from 1) with a probability in proportion to 1 / (n + `flatness`): like words, some are rare."""

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
        """By the inverse of the cumulative distribution: one number of `rng`, the same on every Python."""
        return self.options[bisect.bisect_right(self._cumulative, rng.random())]

    def log_probability(self, option: str) -> float:
        """In nats; −inf where it is no option."""
        try:
            return math.log(self.probabilities[self.options.index(option)])
        except ValueError:
            return -math.inf

    def mean(self, of: Callable[[str], float]) -> float:
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


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def story(rng: random.Random) -> str:
    """One story, on one line."""
    hero = HEROES.draw(rng)
    said = {"hero": hero, "he": "she" if hero in SHE else "he", "thing": THINGS.draw(rng)}
    templates = [FIRST.draw(rng), *(MIDDLE.draw(rng) for _ in range(int(MIDDLES.draw(rng)))), LAST.draw(rng)]
    return " ".join(
        _SLOT.sub(lambda m: said[m[1]] if m[1] in said else SLOTS[m[1]].draw(rng), template) for template in templates
    )


def stories(seed: int) -> Iterator[str]:
    """Stories without end, the same for the same seed."""
    rng = random.Random(seed)
    while True:
        yield story(rng)


def text(seed: int, size: int) -> Iterator[str]:
    """Whole stories with a separator after each, until they have `size` characters (all of them ASCII) or a few more."""
    for one in stories(seed):
        piece = f"{one}\n{END_OF_TEXT}\n"
        yield piece
        size -= len(piece)
        if size <= 0:
            return


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _pattern(template: str) -> re.Pattern[str]:
    parts = _SLOT.split(template)
    return re.compile("".join(r"([A-Za-z]+)" if i % 2 else re.escape(part) for i, part in enumerate(parts)))


_PATTERNS = {
    template: (_pattern(template), _SLOT.findall(template))
    for template in FIRST.options + MIDDLE.options + LAST.options
}


def readings(sentence: str, templates: Choice, said: dict[str, str]) -> list[float]:
    """ln p of every way in which `templates` give `sentence`, after `said` (bound slots → words; what the sentence
    binds is added): one way or none."""
    found = []
    for template in templates.options:
        pattern, slots = _PATTERNS[template]
        if not (match := pattern.fullmatch(sentence)):
            continue
        total = templates.log_probability(template)
        for slot, word in zip(slots, match.groups(), strict=True):
            if slot in _BOUND:
                total += 0.0 if said.setdefault(slot, word) == word else -math.inf
            else:
                total += SLOTS[slot].log_probability(word)
        if total > -math.inf:
            found.append(total)
    return found


def log_probability(one: str) -> float:
    """ln p of one story, in nats; −inf where the grammar can't write it."""
    sentences = re.findall(r"[^.]+\.(?: |$)", one)
    if "".join(sentences) != one or one.endswith(" ") or not 4 <= len(sentences) <= 7:
        return -math.inf
    said: dict[str, str] = {}
    total = MIDDLES.log_probability(str(len(sentences) - 2))
    kinds = [FIRST, *[MIDDLE] * (len(sentences) - 2), LAST]
    for number, (sentence, templates) in enumerate(zip(sentences, kinds, strict=True)):
        ways = readings(sentence.removesuffix(" "), templates, said)
        if not ways:
            return -math.inf
        total += math.log(math.fsum(map(math.exp, ways)))
        if number == 0:  # every first sentence names the hero and the thing
            total += HEROES.log_probability(said["hero"]) + THINGS.log_probability(said["thing"])
            said["he"] = "she" if said["hero"] in SHE else "he"
    return total


# ── the floor ────────────────────────────────────────────────────────────────────────────────────────────────────


def entropy() -> float:
    """H of one story, in nats: the sum over its draws, each weighed with how often it is expected to be made."""

    def sentences(templates: Choice) -> float:
        return templates.entropy + templates.mean(
            lambda template: math.fsum(SLOTS[s].entropy for s in _SLOT.findall(template) if s not in _BOUND)
        )

    middles = MIDDLES.mean(float)
    bound = HEROES.entropy + THINGS.entropy + MIDDLES.entropy
    return bound + sentences(FIRST) + middles * sentences(MIDDLE) + sentences(LAST)


def expected_tokens(encode: Encode, *, separator: bool = True) -> float:
    """E[tokens of one story], by linearity, where `encode` gives every word, with its space, tokens of its own."""
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
    """The entropy rate of stories as `encode` cuts them, in nats per token; None where it doesn't cut between words, or
    cuts a word differently in another place, so that it isn't known. `separator`: whether `<|endoftext|>` is a token."""
    for _, one in zip(range(200), stories(0), strict=False):
        pieces = re.findall(r" ?[A-Za-z]+|[.,]", one)
        if encode(one) != [id for piece in pieces for id in encode(piece)]:
            return None
    return entropy() / expected_tokens(encode, separator=separator)
