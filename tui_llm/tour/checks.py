"""The named checks of lesson files: a table from name to `NamedCheck`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tui_llm.tour import checks_assistant as assistant
from tui_llm.tour import checks_general as general
from tui_llm.tour import checks_model as model
from tui_llm.tour import checks_numbers as numbers
from tui_llm.tour import checks_text as text
from tui_llm.tour.facts import CheckResult, Facts, done, missing
from tui_llm.tour.step import Check

SCREENS = ("lab", "draw", "draw_many", "vocabularies", "merges", "scratch", "letters", "inside", "temperatures", "pairs", "learn", "learned", "samples", "batch", "compare", "compare_models", "sft", "chat", "prefer", "reward", "ablate", "why", "heads", "run_heads", "patch", "steer", "block", "backward", "lens_grid")  # fmt: skip
PANES = ("tokens", "logits", "loss", "training", "generate")
VIEWS = ("text", "ids", "bytes")
BIG = 1e12  # the largest number that a lesson file may give


@dataclass(frozen=True, slots=True)
class CheckValue:
    """A value that a check takes. `kind` is text, texts, number, whole, flag or answers (texts and numbers)."""

    kind: str
    about: str
    required: bool = False
    choices: tuple[str, ...] = ()
    least: float = 0.0
    most: float = BIG


@dataclass(frozen=True, slots=True)
class NamedCheck:
    """A check by its name. `make` returns it for the values of a lesson file and the key of the part's question.

    `key` is the key that the part's question must have, `form` its form; `asks` says whether the check needs a question.
    """

    make: Callable[[Mapping[str, Any], str], Check]
    about: str
    values: Mapping[str, CheckValue] = field(default_factory=dict)
    asks: bool = False
    key: str = ""
    form: str = ""


def _fixed(check: Check, about: str, *, key: str = "", form: str = "") -> NamedCheck:
    return NamedCheck(lambda _values, _key: check, about, {}, bool(key), key, form)


def confirmed(_values: Mapping[str, Any], key: str) -> Check:
    """The learner has confirmed the text."""

    def check(now: Facts, _began: Facts) -> CheckResult:
        if key not in now.typed:
            return missing("{tour_answer} when you have read this")
        return done("Read.")

    return check


CHECKS: Mapping[str, NamedCheck] = {
    # with values of the lesson's own
    "text": NamedCheck(general.text, "the prompt is as wanted, and typing has ended", {
        "exact": CheckValue("text", "the whole prompt"),
        "contains": CheckValue("texts", "texts that are in it"),
        "tokens": CheckValue("whole", "at least so many tokens", least=1),
        "tokens_most": CheckValue("whole", "at most so many tokens", least=1),
        "not_ascii": CheckValue("flag", "it has a character beyond ASCII"),
        "changed": CheckValue("flag", "it is another text than when the part began"),
    }),
    "answer": NamedCheck(general.answer, "the part's question has been answered", {
        "answers": CheckValue("answers", "right answers: texts (capitals and doubled spaces don't count) or numbers; without them any answer does"),
        "within": CheckValue("number", "how far a number may be off"),
        "hint": CheckValue("text", "what to say after a wrong answer"),
    }, asks=True),
    "confirmed": NamedCheck(confirmed, "the learner has pressed F5 and Enter", asks=True),
    "screen": NamedCheck(general.screen, "a screen is open", {
        "screen": CheckValue("text", "its name", required=True, choices=SCREENS),
        "view": CheckValue("text", "the view that it shows", choices=("attention", "lens", "neighbours", "first")),
        "keys": CheckValue("text", "the keys that open it, to say while it is not open"),
    }),
    "pane": NamedCheck(general.pane, "a pane has the focus", {
        "pane": CheckValue("text", "its name", required=True, choices=PANES),
        "view": CheckValue("text", "what the Tokens pane shows under each token", choices=VIEWS),
    }),
    "target": NamedCheck(general.target, "the loss is measured on a target without a doubled or forgotten space", {
        "target": CheckValue("text", "exactly this target, its leading space included"),
        "loss_least": CheckValue("number", "the least loss, in nats, summed over its tokens"),
        "loss_most": CheckValue("number", "the largest loss, in nats, summed over its tokens"),
    }),
    "sampler": NamedCheck(general.sampler, "temperature and top-p are set", {
        "temperature": CheckValue("number", "the temperature", most=5.0),
        "top_p": CheckValue("number", "top-p", most=1.0),
    }),
    "generated": NamedCheck(general.generated, "tokens were generated after the prompt", {
        "tokens": CheckValue("whole", "at least so many", least=1),
    }),
    "run": NamedCheck(general.run, "the watched run has been evaluated, and has come so far", {
        "steps": CheckValue("whole", "at least so many steps", least=1),
        "loss_below": CheckValue("number", "its last validation loss is below this, in nats per token"),
        "ended": CheckValue("flag", "it has ended"),
    }),
    # of the tour
    "own_text": _fixed(text.own_text, "the prompt has at least four tokens"),
    "predicted": _fixed(text.predicted, "the number of training pairs was guessed", key="pairs"),
    "counted": _fixed(text.counted, "the list of training pairs is open"),
    "file_counted": _fixed(text.file_counted, "the tokens of a text file were counted", key="file", form="file"),
    "compared": _fixed(text.compared, "the vocabularies are shown side by side"),
    "rare_word": _fixed(text.rare_word, "a word of the changed prompt has at least three tokens"),
    "merged": _fixed(text.merged, "the merges of a word are shown from its bytes"),
    "strawberry": _fixed(text.strawberry, "the letters of the prompt are counted"),
    "ids_seen": _fixed(text.ids_seen, "the Tokens pane shows ids, and the token cursor is on a token"),
    "neighbours_seen": _fixed(text.neighbours_seen, "the neighbours of a token's embedding are shown"),
    "other_neighbours": _fixed(text.other_neighbours, "the neighbours of another token are shown"),
    "staged": _fixed(numbers.staged, "the logits table shows the stages of softmax, at temperature 1 and top-p 1"),
    "own_logits": _fixed(numbers.own_logits, "the scratch table has at least two tokens"),
    "changed_logit": _fixed(numbers.changed_logit, "a logit of the scratch table was changed"),
    "likely_target": _fixed(numbers.likely_target, "the likeliest token is the target, and the Loss pane has the focus"),
    "unlikely_target": _fixed(numbers.unlikely_target, "a token of the target has a probability of at most 1 %"),
    "gradient_seen": _fixed(numbers.gradient_seen, "the bars of p − y are shown"),
    "pinned": _fixed(numbers.pinned, "a prompt is pinned"),
    "learned": _fixed(numbers.learned, "an optimizer step was taken on another text, in Learn this"),
    "undone": _fixed(numbers.undone, "the steps of Learn this were undone"),
    "started": _fixed(model.started, "a run was started"),
    "unigram": _fixed(model.unigram, "the run's validation loss is below the unigram line"),
    "bigram": _fixed(model.bigram, "the run's validation loss is below the bigram line"),
    "watched": _fixed(model.watched, "the screen “How it learned” is open"),
    "greedy": _fixed(model.greedy, "a token was chosen at temperature 0"),
    "cold": _fixed(model.cold, "a token was drawn at temperature 0.5"),
    "replayed": _fixed(model.replayed, "the draw is replayed at temperature 2"),
    "drawn_often": _fixed(model.drawn_often, "the next token was drawn many times"),
    "nucleus": _fixed(model.nucleus, "top-p was lowered"),
    "table": _fixed(model.table, "the logits of the scratch table are shown at several temperatures"),
    "attended": _fixed(model.attended, "the attention view is open"),
    "lensed": _fixed(model.lensed, "the logit lens is open"),
    "attributed": _fixed(model.attributed, "the parts of a token's logit are listed"),
    "switched_off": _fixed(model.switched_off, "a part of the model is switched off"),
    "switched_on": _fixed(model.switched_on, "every part of the model is on"),
    "decided": _fixed(model.decided, "exactly one word of the prompt was changed"),
    "continued": _fixed(model.continued, "at temperature 0, the model has continued a question"),
    "tuned": _fixed(model.tuned, "the model was fine-tuned on the learner's pairs", key="instruct", form="pairs"),
    "answers": _fixed(model.answers, "the fine-tuned model has answered"),
    "two_answers": _fixed(assistant.two_answers, "two different answers are drawn in Prefer"),
    "ranked": _fixed(assistant.ranked, "six pairs of answers were ranked"),
    "rewarded": _fixed(assistant.rewarded, "five steps were taken on a rule that rewards the word happy"),
    "hacked": _fixed(assistant.hacked, "the rule that counts the word happy was hacked"),
}  # fmt: skip
"""By the name that a lesson file uses; those of the tour take no values."""
