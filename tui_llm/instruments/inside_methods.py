"""The instruments that look inside a model, as Python methods. `tui_llm.open_model` returns an object that has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from tui_llm.common.errors import UserError
from tui_llm.facts.head_scores import LENGTH
from tui_llm.facts.model import Weights
from tui_llm.facts.request import Answer, Question, Request, Target
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.instruments.why.question import Why, WhyQuestion

if TYPE_CHECKING:
    from tui_llm.instruments.ablate.question import Ablation, Effects
    from tui_llm.instruments.heads.question import Heads
    from tui_llm.instruments.patch.question import PatchGrid
    from tui_llm.instruments.steer.question import Steering


class AnswersQuestions(Protocol):
    """What these methods need of an engine."""

    def answer(self, question: Question[Answer]) -> Answer: ...

    def weights(self) -> Weights: ...


Engine = TypeVar("Engine", bound=AnswersQuestions)


class InsideMethods(Generic[Engine]):
    """`engine` answers the questions."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @property
    def weights(self) -> Weights:
        """The model's name, shape, device and, for a run, training step."""
        return self.engine.weights()

    def why(
        self,
        prompt: str,
        *,
        target: str | int | None = None,
        rival: str | int | None = None,
        token: int | None = None,
        start_token: bool = False,
        allow_special: bool = False,
        chat: bool = False,
    ) -> Why:
        """Split the target's logit into what each part of the model adds to it (direct logit attribution).

        token: explain the prediction after this token of the prompt, from 0 (default: the last).
        target: the token to explain; its text or id. By default the text's own next token or, at its end, the most
            probable one.
        rival: the token to compare with (default: the most probable other one).
        The other parameters as in `read`.
        """
        request = request_of(prompt, start_token, allow_special, chat, target=target)
        id, text = (rival, None) if isinstance(rival, int) else (None, rival)
        return self.engine.answer(WhyQuestion(request, token, id, text))

    def heads(
        self,
        text: str | None = None,
        *,
        seed: int = 1,
        length: int = LENGTH,
        start_token: bool = False,
        allow_special: bool = False,
        chat: bool = False,
    ) -> Heads:
        """Induction, previous-token and duplicate-token scores of every head, from 0 to 1, on `length` random tokens that
        are repeated once; or on `text`. The formulas are in `tui_llm.llm.model.head_scores`; `start_token`,
        `allow_special` and `chat` as in `read`, for `text`."""
        from tui_llm.instruments.heads.question import HeadsQuestion

        request = request_of(text or "", start_token, allow_special, chat)
        return self.engine.answer(HeadsQuestion(request, seed, length, own_text=text is not None))

    def ablate(
        self,
        prompt: str,
        *,
        heads: str = "",
        attention: str = "",
        mlps: str = "",
        layers: str = "",
        tokens: str = "",
        mean: bool = False,
        other: str | None = None,
        target: str | int | None = None,
        start_token: bool = False,
        allow_special: bool = False,
        chat: bool = False,
    ) -> Ablation:
        """The target's logit and loss before and after parts of the model are switched off, all of them together.

        heads: as in `0.3,1.2`; attention, mlps, layers: numbers of layers, as in `0,2`; tokens: numbers of tokens of the
            prompt that get no attention. All count from 0.
        mean: replace by the mean over the prompt, not by zero; other: by the values after this prompt, aligned from the
            end.
        target: text or token id; without one, the token that the unchanged model finds most probable.
        The other parameters as in `read`, for `other` too.

        Raises `UserError` if nothing is named, or the model has no such part.
        """
        from tui_llm.facts.interventions import parse_parts
        from tui_llm.instruments.ablate.changes import interventions_of
        from tui_llm.instruments.ablate.question import AblateQuestion

        parts = parse_parts(heads, attention, mlps, layers, tokens)
        if not parts:
            raise UserError("name what to switch off, as in heads='0.3,1.2'")
        request = request_of(prompt, start_token, allow_special, chat, target=target)
        changes = interventions_of(self.engine.answer, request, parts, mean=mean, other=other)
        return self.engine.answer(AblateQuestion(request, changes))

    def effects(
        self,
        prompt: str,
        *,
        mean: bool = False,
        other: str | None = None,
        target: str | int | None = None,
        start_token: bool = False,
        allow_special: bool = False,
        chat: bool = False,
    ) -> Effects:
        """The target's logit and loss with each part of the model alone switched off, for all parts. The parameters as in
        `ablate`."""
        from tui_llm.instruments.ablate.changes import effects_of_all

        request = request_of(prompt, start_token, allow_special, chat, target=target)
        return effects_of_all(self.engine.answer, request, self.weights, mean=mean, other=other)

    def patch(
        self,
        clean: str,
        changed: str,
        *,
        target: str | int | None = None,
        rival: str | int | None = None,
        part: str = "residual",
        start_token: bool = False,
        allow_special: bool = False,
        chat: bool = False,
    ) -> PatchGrid:
        """Activation patching: the target's logit minus its rival's after `changed`, with the value of `part` (`residual`,
        `attention` or `mlp`) at one token replaced by that of `clean`: `effects[layer][token]`. See `PatchQuestion`.

        target, rival: text or token id; by default the likeliest token after `clean`, and the likeliest other one after
            `changed`.
        The other parameters as in `read`, for both prompts.

        Raises `UserError` if the prompts have the same tokens.
        """
        from tui_llm.instruments.patch.question import PARTS, PatchGrid, PatchQuestion

        if part not in PARTS:
            raise UserError(f"{part!r} can't be patched; choose from {', '.join(PARTS)}")
        request = request_of(changed, start_token, allow_special, chat, target=target)
        return PatchGrid(self.engine.answer(PatchQuestion(request, clean, PARTS[part], target_of(rival))))

    def steer(
        self,
        prompt: str,
        toward: str = "",
        away: str = "",
        *,
        layer: int | None = None,
        coefficient: float = 1.0,
        load: str | None = None,
        save: str | None = None,
        force: bool = False,
        max_tokens: int = 24,
        seed: int = 1,
        sampler: SamplerSettings | None = None,
        start_token: bool = False,
        allow_special: bool = False,
        chat: bool = False,
    ) -> Steering:
        """Activation steering: predictions and continuations of `prompt`, as they are and with `coefficient` × a direction
        added to the residual stream before block `layer` (by default the file's, or the middle). See `SteerQuestion`.

        toward, away: the direction is the stream after the first prompt minus that after the second. load: or a
            safetensors file of one. save: also write it there; over an existing file with `force` only.
        start_token, allow_special, chat: as in `read`, for all three prompts.

        Raises `UserError` if there is no such direction, or it is of another width than the model.
        """
        from tui_llm.instruments.steer.question import Direction, SteerQuestion, SteerSaveQuestion

        if load is not None and (toward or away):
            raise UserError("load has a direction already; leave out toward and away")
        layer = self.weights.layers // 2 if layer is None and load is None else layer
        direction = Direction(toward, away, layer, load or "")
        request = request_of(prompt, start_token, allow_special, chat, sampler=sampler)
        check_count(max_tokens)
        made = self.engine.answer(SteerQuestion(request, direction, coefficient, tokens=max_tokens, seed=seed))
        if save is not None:
            self.engine.answer(SteerSaveQuestion(request, direction, save, force))
        return made


def request_of(
    prompt: str,
    start_token: bool = False,
    allow_special: bool = False,
    chat: bool = False,
    *,
    target: str | int | None = None,
    sampler: SamplerSettings | None = None,
    **fields: Any,
) -> Request:
    """The request that a method's parameters ask for, with more fields of `Request`."""
    return Request(
        prompt=prompt,
        target=target_of(target),
        sampler=sampler or SamplerSettings(),
        start_token=start_token,
        allow_special=allow_special,
        chat=chat,
        **fields,
    )


def check_count(max_tokens: int) -> None:
    """Raises `UserError` if that many tokens can't be drawn."""
    if max_tokens < 0:
        raise UserError(f"max_tokens is {max_tokens}; give 0 or more")


def target_of(target: str | int | None) -> Target | None:
    """The target that a text or a token id names."""
    if target is None:
        return None
    return Target(id=target) if isinstance(target, int) else Target(text=target)
