"""The Guess screen: bet on the next token of a text, and be scored in bits beside the models."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import ClassVar

from rich.text import Text

from tui_llm.common import numbers
from tui_llm.common.display import fit, visible, visible_token
from tui_llm.facts.tokens import Token
from tui_llm.instruments.guess.game import MOST, RULE, Guess, GuessGame
from tui_llm.instruments.guess.question import Bet, Bets, BetsQuestion, GuessRound, RoundQuestion
from tui_llm.tui.instruments.open_keys import GUESS
from tui_llm.tui.kit import format as fmt
from tui_llm.tui.kit.command import WAY_OUT, CommandFactory, bindings
from tui_llm.tui.kit.full import FullScreen, Lazy
from tui_llm.tui.kit.over import Row
from tui_llm.tui.kit.text import wrapped
from tui_llm.tui.state.context import LabContext
from tui_llm.tui.state.openers import opens

STEP = 10  # percent that an arrow adds to a bet
OPEN = GUESS
_key = CommandFactory("guess", "Guess")
KEYS = (
    _key("guess_go", "enter", "guess", "Guess with these bets, or with none; then go to the next token, and from the score to a new game", "go", importance=8),
    # Before the list sees them, which would scroll sideways.
    _key("guess_less", "left,minus", "bet", f"Bet {STEP} % less on the token under the cursor", f"bet_more({-STEP})", priority=True, together="bet", importance=7),
    _key("guess_more", "right,plus", "bet", f"Bet {STEP} % more on the token under the cursor", f"bet_more({STEP})", priority=True, together="bet", importance=7),
    *(
        _key(f"guess_{digit}", str(digit), f"{digit}0 %", f"Bet {digit}0 % on the token under the cursor", f"bet({digit * STEP})", footer=())
        for digit in range(1, 10)
    ),
    _key("guess_none", "0", "no bet", "Remove the bet on the token under the cursor", "bet(0)", footer=()),
    _key("guess_type", "t", "type", "Type tokens that are not in the list, with their percents", "type", importance=6),
    _key("guess_new", "n", "new", "Start a new game, at another place of the texts", "new", importance=5),
    _key("guess_text", "m", "my text", "Switch between the prompt's text and a held-out paragraph", "text", importance=4),
    _key("guess_copy", "y", "copy", "Copy the guesses as a table (tab-separated)", "copy"),
    _key("close_guess", "escape,q,Q", "back", "Back to the five panes", "close", importance=WAY_OUT),
)  # fmt: skip


@opens("guess", LabContext.is_open)
class GuessScreen(FullScreen):
    """Shows, one after another: the bets on a token, what the bets and the models gave to it, and at last the score."""

    shows_text = False  # its own passages
    TITLE_WORDS: ClassVar[str] = "Guess"
    own_keys = KEYS
    BINDINGS = bindings(KEYS)

    def __init__(self, context: LabContext) -> None:
        super().__init__()
        self.context = context
        self.own_text = False
        self.game: GuessGame | None = None
        self.shown: Guess | None = None  # the guess whose result is shown
        self.rows: list[Token] = []  # the choices, and the tokens that were typed
        self.bets: dict[int, int] = {}  # id → percent
        self._reading_bets = False  # typed bets are being read
        self.problem = ""

    def on_mount(self) -> None:
        super().on_mount()
        self._deal()

    def _deal(self) -> None:
        self.game = self.shown = None
        self.problem, self._reading_bets = "", False
        text = self.context.lab.prompt if self.own_text else None
        question = RoundQuestion(self.context.lab.current_request(), text, random.randrange(10_000))
        self.context.questions.ask(self, question, self._dealt, self._fail)
        self._refill()

    def _dealt(self, round: GuessRound) -> None:
        self.game = GuessGame(round)
        self._begin_turn()

    def _begin_turn(self) -> None:
        assert self.game is not None
        turn = self.game.turn
        self.shown, self.bets, self.problem = None, {}, ""
        self.rows = list(turn.choices) if turn is not None else []
        self._refill()

    def _fail(self, problem: str) -> None:
        self.problem, self._reading_bets = problem, False
        self._refill()

    @property
    def betting(self) -> bool:
        return self.game is not None and self.game.turn is not None and self.shown is None

    def _refill(self) -> None:
        if self.is_mounted:
            self.listing.can_select = self.betting
            self.refill()
            self.listing.on_focus()

    # ── what is shown ────────────────────────────────────────────────────────────────────────────────────────────

    def subject(self) -> str:
        if self.game is None:
            return ""
        made, of = len(self.game.guesses), len(self.game.round.turns)
        source = self.game.round.source
        source = f"held out: {source}" if source else "the lab's text"
        at = "the score" if self.shown is None and made == of else f"token {min(made + self.betting, of)} of {of}"
        return f"{at} · {source}"

    def content(self, width: int) -> tuple[list[Text], Sequence[Text]]:
        game = self.game
        head = wrapped(Text(visible(self.problem), style=self.style("bad")), width) if self.problem else []
        if game is None:
            hint = "n: try again · m: another text" if self.problem else "computing …"
            return head, [Text(hint, style=self.style("muted"))]
        if self.shown is not None:
            return [*self._text(self.shown.turn.before, width, self.shown.turn.token), *head], self._result(width)
        if game.turn is None:
            return head, self._score(width)
        head = [*self._text(game.turn.before, width), *head]
        if game.guesses:
            head += wrapped(Text(self._so_far(), style=self.style("muted")), width)
        else:
            head += wrapped(Text(RULE, style=self.style("muted")), width)
        laid = sum(self.bets.values())
        room = min(36, max(8, width - 40))
        title = "  " + fit("the next token", room - 2) + "your bet".rjust(9)
        title += f"   the other {100 - laid} %: as unigram"
        head.append(Text(fit(title, width), style=self.style("muted"), no_wrap=True))
        return head, Lazy(len(self.rows), lambda at: self._row(at, room))

    def _text(self, before: str, width: int, token: Token | None = None) -> list[Text]:
        """The end of the text, and the token that was guessed, or a blank."""
        room = max(2, self.listing.size.height - 15)
        text = Text(visible(before[-room * width :]))
        text.append("▁▁▁" if token is None else visible_token(token.text), self.style("accent"))
        lines = wrapped(text, width)
        return [*lines[-room:], Text()]

    def _row(self, at: int, room: int) -> Text:
        token = self.rows[at]
        percent = self.bets.get(token.id, 0)
        line = Text("▸ " if at == self.listing.cursor else "  ", no_wrap=True)
        line.append(fit(visible_token(token.text), room - 2), self.style("strong"))
        if not percent:
            return line.append("–".rjust(9), self.style("muted"))
        line.append(f"{percent} %".rjust(9), self.style("accent"))
        return line.append("   " + fmt.bar(percent / 100, 24), self.style("bar"))

    def _names(self) -> list[str]:
        assert self.game is not None
        return ["you", *(visible(one.name) for one in self.game.round.opponents)]

    def _so_far(self) -> str:
        assert self.game is not None
        count = len(self.game.guesses)
        means = zip(self._names(), self.game.totals, strict=True)
        return "bits per token so far: " + " · ".join(f"{name} {fmt.number(total / count)}" for name, total in means)

    def _result(self, width: int) -> list[Text]:
        made, game = self.shown, self.game
        assert made is not None and game is not None
        hit = any(bet.token.id == made.turn.token.id for bet in made.bets)
        line = Text("the token is ").append(visible_token(made.turn.token.text), self.style("accent"))
        on = ", ".join(f"{bet.percent} % on {visible_token(bet.token.text)}" for bet in made.bets) or "nothing"
        lines = wrapped(line.append(f"; you bet {on}", self.style("good" if hit else "muted")), width)
        values = zip((made.probability, *made.turn.probabilities), (made.bits, *made.turn.bits), strict=True)
        rows = [
            (name, numbers.percent(p), fmt.number(bits), bits)
            for name, (p, bits) in zip(self._names(), values, strict=True)
        ]
        lines += self._table(("", "raw p", "bits"), rows, width)
        likeliest = ", ".join(f"{visible_token(token.text)} {numbers.percent(p)}" for token, p in made.turn.favourites)
        lines += [Text(), *wrapped(Text(f"likeliest for {self._names()[-1]}, raw p: {likeliest}"), width)]
        more = "the next token" if game.turn is not None else "the score"
        return [*lines, *wrapped(Text(self._so_far()), width), Text(f"Enter: {more}", style=self.style("accent"))]

    def _score(self, width: int) -> list[Text]:
        game = self.game
        assert game is not None
        count, round = len(game.guesses), game.round
        names = self._names()
        lines = wrapped(Text(f"{numbers.counted(count, 'token')}; fewer bits are better", self.style("strong")), width)
        rows = [
            (name, fmt.number(total / count), fmt.number(total), total / count)
            for name, total in zip(names, game.totals, strict=True)
        ]
        rows.append(("uniform", fmt.number(round.uniform), fmt.number(round.uniform * count), round.uniform))
        lines += self._table(("", "bits per token", "bits in all"), rows, width)
        about = f"unigram: {round.opponents[0].about}; uniform: log2 {round.weights.vocabulary:,}"
        lines += wrapped(Text(about, style=self.style("muted")), width)
        won = game.beaten()
        lines += [Text(), *wrapped(Text(f"you beat {names[-1]} at {len(won)} of {numbers.counted(count, 'token')}", self.style("strong")), width)]  # fmt: skip
        if won:
            header = ("token", "your bits", f"bits of {names[-1]}")
            beaten = [(visible_token(one.turn.token.text), fmt.number(one.bits), fmt.number(one.turn.bits[-1]), None) for one in won]  # fmt: skip
            lines += self._table(header, beaten, width)
        return [*lines, Text(), Text("Enter: a new game · y: copy the guesses", style=self.style("accent"))]

    def _table(
        self, header: tuple[str, str, str], rows: Sequence[tuple[str, str, str, float | None]], width: int
    ) -> list[Text]:
        """Three columns and, where there is a number of bits, its bar: full at the bits of a uniform guess."""
        assert self.game is not None
        first = min(20, max(6, width - 34))
        cells = max(10, len(header[1])), max(10, len(header[2]) + 2)
        lines = [Text(fit(header[0], first) + header[1].rjust(cells[0]) + header[2].rjust(cells[1]), self.style("muted"), no_wrap=True)]  # fmt: skip
        for name, one, two, bits in rows:
            line = Text(no_wrap=True).append(fit(name, first), self.style("strong"))
            line.append(one.rjust(cells[0]) + two.rjust(cells[1]))
            room = min(40, width - line.cell_len - 2)
            if bits is not None and room > 4:
                line.append("  " + fmt.bar(bits / self.game.round.uniform, room), self.style("bar"))
            lines.append(line)
        return lines

    def table(self) -> Iterable[Row]:
        if self.game is None:
            return
        yield "position", "id", "token", "bets", *(f"{name}_bits" for name in self._names())
        for made in self.game.guesses:
            bets = " ".join(f"{visible_token(bet.token.text)}:{bet.percent}" for bet in made.bets)
            token, bits = made.turn.token, (made.bits, *made.turn.bits)
            yield str(made.turn.position), str(token.id), visible(token.text), bets, *map(repr, bits)

    # ── actions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def action_go(self) -> None:
        if self._reading_bets:
            return  # they count for this token
        if self.shown is not None:
            self._begin_turn()
        elif self.betting and self.game is not None:
            tokens = {token.id: token for token in self.rows}
            self.shown = self.game.guess([Bet(tokens[id], percent) for id, percent in self.bets.items() if percent])
            self.problem = ""
            self._refill()
        elif self.game is not None:
            self._deal()

    def action_bet(self, percent: int) -> None:
        """Bets `percent` on the token under the cursor, or what the other bets leave of `MOST`."""
        at = self.listing.cursor
        if self.betting and at is not None and at < len(self.rows):
            self._set(self.rows[at].id, percent)
            self.refill()

    def action_bet_more(self, step: int) -> None:
        at = self.listing.cursor
        if at is not None and at < len(self.rows):
            self.action_bet(self.bets.get(self.rows[at].id, 0) + step)

    def _set(self, id: int, percent: int) -> None:
        others = sum(self.bets.values()) - self.bets.get(id, 0)
        self.bets[id] = max(0, min(percent, MOST - others))

    def action_type(self) -> None:
        from tui_llm.tui.kit.ask import AskScreen

        if not self.betting or self.game is None or self.game.turn is None:
            return
        turn = self.game.turn

        def answered(text: str | None) -> None:
            if text and self.betting:
                self._reading_bets = True
                question = BetsQuestion(self.context.lab.current_request(), text, turn.before, turn.choices)
                self.context.questions.ask(self, question, typed, self._fail)

        def typed(found: Bets) -> None:
            self._reading_bets = False
            if self.betting and self.game is not None and self.game.turn is turn:
                self._typed(found)

        hint = "mat 50 floor 20: percents on tokens · +ing 50: without a leading space"
        self.app.push_screen(AskScreen("Your bets", hint), answered)

    def _typed(self, found: Bets) -> None:
        notes = list(found.notes)
        for bet in found.bets:
            if all(token.id != bet.token.id for token in self.rows):
                self.rows.append(bet.token)
            self._set(bet.token.id, bet.percent)
            if (left := self.bets[bet.token.id]) < bet.percent:
                notes.append(f"only {left} % was left for {visible_token(bet.token.text)}: at most {MOST} % can be bet")
        self.problem = "; ".join(notes)
        self._refill()

    def action_new(self) -> None:
        self._deal()

    def action_text(self) -> None:
        self.own_text = not self.own_text
        self._deal()
