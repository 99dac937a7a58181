"""Checks on text: pairs and labels; words, letters and tokens; ids and vectors."""

from __future__ import annotations

from tui_llm.instruments.merges.question import Merges, MergesQuestion
from tui_llm.instruments.neighbours.question import Neighbours, NeighboursQuestion
from tui_llm.instruments.pairs.question import Pairs, PairsQuestion
from tui_llm.instruments.textfile.question import TextFile, TextFileQuestion
from tui_llm.instruments.vocabularies.question import Vocabularies, VocabulariesQuestion
from tui_llm.llm.tokens import letters
from tui_llm.tour.facts import CheckResult, Facts, done, missing, not_yet
from tui_llm.tour.numbers import foreign, many, nats, whole_number, words

TOKENS_NEEDED = 4
PIECES_NEEDED = 3  # tokens of a rare or mistyped word
WAIT = "waiting for the model's answer"
STRAWBERRY = "strawberry"
SHOWN = 40  # cells of a text that an outcome names: the prompt may be another one while it is shown


def reading_of_text(now: Facts) -> CheckResult | None:
    """Returns what is missing if there is no reading of a finished text, else None."""
    if now.asking:
        return missing("a window is open: answer it, or Esc cancels")
    if now.typing:
        return missing("you are typing; {done_typing} when the text is as you want it")
    if now.reading is None:
        return missing(WAIT)
    return None


def own_text(now: Facts, began: Facts) -> CheckResult:
    """The text has at least `TOKENS_NEEDED` tokens."""
    if (gap := reading_of_text(now)) is not None:
        return gap
    if now.count < TOKENS_NEEDED:
        return missing(f"the text has {now.count} tokens; {{type}} and type at least {TOKENS_NEEDED}")
    return done(
        f"{words(now.prompt, SHOWN)} is {many(now.count, 'token')} for this model: the pieces that it reads and writes. {{pane_tokens}} shows them."
    )


def predicted(now: Facts, began: Facts) -> CheckResult:
    """The learner has guessed the number of pairs."""
    guess = whole_number(now.typed.get("pairs"))
    if guess is None:
        return missing(
            "no guess yet: {tour_answer}"
            if "pairs" not in now.typed
            else "that was no whole number; {tour_answer} again"
        )
    return done(f"You say {guess:,}. Now count.")


def counted(now: Facts, began: Facts) -> CheckResult:
    """The list of pairs is open."""
    pairs = now.answer(PairsQuestion, Pairs)
    if now.screen != "pairs":
        return not_yet(now, "the list of pairs is not open", "{pane_tokens} {pairs}")
    if pairs is None:
        return missing(WAIT)
    if pairs.count < 2:
        return missing("one token makes no pair; {close_pairs} and type more")
    guess, count = whole_number(now.typed.get("pairs")), pairs.count - 1
    verdict = (
        "you were right" if guess == count else f"you said {guess:,}" if guess is not None else "no guess from you"
    )
    mean = f" The model's mean loss on them: {nats(pairs.mean)} (step 5)." if pairs.mean is not None else ""
    return done(
        f"{pairs.count} tokens make {many(count, 'pair')} ({verdict}): each token is the label of those before it.{mean}"
    )


def file_counted(now: Facts, began: Facts) -> CheckResult:
    """A text file's pairs were counted in this part."""
    if TextFileQuestion in now.problems:
        return missing(f"{foreign(now.problems[TextFileQuestion])}. {{tour_answer}} again".replace("..", "."))
    found = now.answer(TextFileQuestion, TextFile)
    if found is None or found is began.answers.get(TextFileQuestion):
        return missing("no file was named yet: {tour_answer}")
    if not found.pairs:
        return missing("there is no pair in it; name a longer text")
    return done(
        f"{found.bytes:,} bytes are {found.tokens:,} tokens, so {found.pairs:,} examples, and nobody had to label them."
    )


def compared(now: Facts, began: Facts) -> CheckResult:
    """The vocabularies are shown side by side."""
    found = now.answer(VocabulariesQuestion, Vocabularies)
    if now.screen != "vocabularies":
        return not_yet(now, "the vocabularies are not side by side yet", "{pane_tokens} {vocabularies}")
    if found is None:
        return missing(WAIT)
    counts = [f"{words(side.name, 14)} {side.count:,}" for side in found.sides if not side.problem and side.count]
    unknown = found.words
    lost = ""
    if not unknown.problem:
        lost = f" A vocabulary of whole words can't represent {unknown.missing_count} of its {unknown.count} words: it has the {unknown.size:,} words of one text, {words(unknown.source)}, and no more"
        lost += f"; not {words(unknown.missing[0], 16)}." if unknown.missing else "."
    text = now.prompt + "".join(token.text for token in now.steps)  # the screen has what was generated too
    return done(f"{words(text, SHOWN)} in tokens: {', '.join(counts[:4])}.{lost}")


def other_vocabulary(now: Facts) -> CheckResult | None:
    """Returns what is missing if the Tokens pane shows the tokens of another vocabulary than the model's, else None."""
    if now.reading is None or now.reading.request.tokenizer is None:
        return None
    name = words(now.reading.tokens.tokenizer)
    return missing(f"the Tokens pane shows {name}, not the model's own vocabulary: Esc, {{vocabulary}} until it does")


def longest_word(now: Facts) -> tuple[str, int]:
    """Returns the word (tokens up to a space) with the most tokens, and their number."""
    best, word, count = ("", 0), "", 0
    for token in now.tokens:
        if token.special or token.text[:1].isspace():
            word, count = "", 0
        word, count = word + token.text, count + (not token.special)
        if count > best[1] and word.strip():
            best = word.strip(), count
    return best


def rare_word(now: Facts, began: Facts) -> CheckResult:
    """A word of the text has at least `PIECES_NEEDED` tokens."""
    if (gap := reading_of_text(now)) is not None:
        return gap
    if (other := other_vocabulary(now)) is not None:
        return other
    word, count = longest_word(now)
    if now.prompt == began.prompt:
        return missing("the text is the same as before")
    if count < PIECES_NEEDED:
        return missing(f"every word is at most {count} piece{'' if count == 1 else 's'}; mistype one, or invent one")
    return done(f"{words(word)} is {count} pieces: to pieces no word is unknown, a rare word just takes more of them.")


def merged(now: Facts, began: Facts) -> CheckResult:
    """The merges of a word are shown from its bytes."""
    found = now.answer(MergesQuestion, Merges)
    if now.screen != "merges":
        return not_yet(now, "the merges are not open", "{pane_tokens} {merges}")
    if found is None or not found.words:
        return missing(WAIT)
    word = found.words[0]
    if word.replay is None:
        return missing("the merges of that word can't be shown; {merges_word_back} {merges_word_on} go to another")
    if now.view != "first":
        return missing("not at the bytes yet: {merges_first}")
    states = word.replay.states
    return done(
        f"{words(word.text)} is {many(len(states[0].parts), 'byte')}; after {many(len(states) - 1, 'merge')}, "
        f"{many(len(word.tokens), 'token')}. {{merges_on}} replays them."
    )


def strawberry(now: Facts, began: Facts) -> CheckResult:
    """The letters are counted, of `STRAWBERRY` or of the learner's own word."""
    if now.screen != "letters":
        gap = reading_of_text(now)
        if gap is not None:
            return gap
        return not_yet(now, "the letters are not counted yet", "{pane_tokens} {letters}")
    if now.reading is None:
        return missing(WAIT)
    if (other := other_vocabulary(now)) is not None:
        return other
    text = "".join(token.text for token in now.tokens)
    if "r" not in text.lower() and now.prompt == began.prompt:
        return missing(f"there is no r in the text, and it has not changed: Esc, {{type}} and type {STRAWBERRY}")
    letter = "r" if "r" in text.lower() else next((c for c in text.lower() if c.isalpha()), "")
    if not letter:
        return missing("there is no letter in the text; type some word")
    found = letters.count([token.bytes for token in now.tokens], letter)
    ids = " ".join(str(token.id) for token in now.tokens[-6:])
    return done(
        f"{words(letter, 4)} occurs {found.total} time{'' if found.total == 1 else 's'}, in {sum(map(bool, found.inside))} of "
        f"{len(found.inside)} tokens. The model gets only ids, … {ids}: it can't look inside."
    )


def ids_seen(now: Facts, began: Facts) -> CheckResult:
    """The Tokens pane shows ids, with the token cursor on a token."""
    if now.screen != "lab":
        return missing("go back to the panes: Esc")
    if now.token_view != "ids":
        return missing("the Tokens pane shows no ids yet: {token_view}")
    if (other := other_vocabulary(now)) is not None:
        return other
    if not now.tokens:
        return missing("there is no text; {type} and type some")
    at = now.reading.following if now.reading is not None else None  # the token under the token cursor
    if at is None:
        if (gap := reading_of_text(now)) is not None:
            return gap
        return missing("the token cursor is at the end: {pane_tokens} {cursor_left}")
    return done(f"{words(at.text)} is number {at.id:,}. The number is a label, a row in a table: it measures nothing.")


def neighbours_words(found: Neighbours) -> str:
    near = found.nearest[0]
    return (
        f"Nearest to {words(found.token.text)} (id {found.token.id:,}) of all {found.width}-number vectors: "
        f"{words(near.token.text)} (id {near.token.id:,}), cosine {near.cosine:.2f}."
    )


def neighbours_seen(now: Facts, began: Facts) -> CheckResult:
    """The embedding neighbours are shown."""
    found = now.answer(NeighboursQuestion, Neighbours)
    if now.screen != "inside" or now.view != "neighbours":
        if now.screen == "inside":
            return missing("the neighbours are not open: {inside_neighbours}")
        return not_yet(now, "the neighbours are not open", "{inside}, then {inside_neighbours}")
    if found is None or not found.nearest:
        return missing(WAIT)
    return done(neighbours_words(found))


def other_neighbours(now: Facts, began: Facts) -> CheckResult:
    """The neighbours of another token are shown."""
    found, before = now.answer(NeighboursQuestion, Neighbours), began.answer(NeighboursQuestion, Neighbours)
    if NeighboursQuestion in now.problems and now.problems != began.problems:
        return missing(foreign(now.problems[NeighboursQuestion]))
    if found is None or not found.nearest or (before is not None and found.token.id == before.token.id):
        return missing("still the same token; {inside_search} types another, {inside_go} goes to a neighbour")
    return done(f"{neighbours_words(found)} Nobody told it: training gave words with similar uses similar vectors.")
