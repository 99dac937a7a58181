"""The Python interface, for notebooks and scripts:

from tui_llm import open_model
lab = open_model("nano")
lab.read("The cat sat on the", target=" mat")
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from tui_llm.common.errors import UserError
from tui_llm.common.numbers import counted
from tui_llm.engine import PipelineEngine
from tui_llm.facts.check import CheckReport
from tui_llm.facts.interventions import Intervention
from tui_llm.facts.prediction import GeneratedToken
from tui_llm.facts.preference import DPOSettings, PairChange, PreferenceRecipe, RankedPair
from tui_llm.facts.reading import Reading
from tui_llm.facts.request import Answer, Question, Request
from tui_llm.facts.sampler import SamplerSettings
from tui_llm.facts.tokens import Tokenization
from tui_llm.instruments.inside_methods import InsideMethods, check_count, request_of
from tui_llm.instruments.prefer.question import Preferred, PreferTextQuestion
from tui_llm.llm.check import checks
from tui_llm.session.tokenization import tokenization

if TYPE_CHECKING:
    from tui_llm.facts.policy import PolicyRecipe
    from tui_llm.instruments.compare_models.question import ModelComparison
    from tui_llm.instruments.reward.question import RewardRun
    from tui_llm.instruments.sft.question import SftState


class LanguageModel(InsideMethods[PipelineEngine]):
    """An open model. Every method raises `UserError` on bad input, with a line that says what to do.

    `engine` is the app's own engine (`tui_llm.facts.engine.Engine`).
    """

    def __init__(self, name: str, device: str = "auto", weights: str = "fp32") -> None:
        engine = PipelineEngine(device, weights)
        engine.open(name)
        super().__init__(engine)

    def tokens(self, text: str, *, allow_special: bool = False) -> Tokenization:
        """The text's tokens in the model's vocabulary."""
        vocabulary = self.engine.tokenizer
        return tokenization(vocabulary, vocabulary.encode(text, allow_special=allow_special))

    def read(
        self,
        prompt: str,
        *,
        target: str | int | None = None,
        sampler: SamplerSettings | None = None,
        position: int | None = None,
        scores: bool = False,
        top: int = 20,
        start_token: bool = False,
        allow_special: bool = False,
        chat: bool = False,
        interventions: Sequence[Intervention] = (),
    ) -> Reading:
        """The prediction for the token after `prompt`, or after its first `position` tokens.

        target: text or token id to compute the loss for.
        scores: also score how each token was predicted.
        top: number of candidates to return.
        start_token: prepend `<|endoftext|>`; allow_special: `<|endoftext|>` in the prompt is the special token.
        chat: apply the model's chat template to the prompt.
        interventions: changes of the model's parts for this reading.

        Raises `UserError` with the reading's `problem` if nothing can be predicted, and if the text has no such `position`.
        """
        changes = tuple(interventions)
        request = request_of(prompt, start_token, allow_special, chat, target=target, sampler=sampler,
                             position=position, scores=scores, top=top, interventions=changes)  # fmt: skip
        if top < 1:
            raise UserError(f"top is {top}; give 1 or more")
        if position is not None:
            count = len(self.engine.ids(request))
            if not 0 <= position <= count:
                raise UserError(f"position is {position}; the text has {counted(count, 'token')}: give 0 to {count}")
        reading = self.engine.read(request)
        problem = reading.problem or (reading.loss.problem if reading.loss else None)
        if problem:
            raise UserError(problem)
        return reading

    def generate(
        self,
        prompt: str,
        *,
        max_tokens: int = 100,
        seed: int = 1,
        sampler: SamplerSettings | None = None,
        start_token: bool = False,
        allow_special: bool = False,
        chat: bool = False,
        interventions: Sequence[Intervention] = (),
    ) -> Iterator[GeneratedToken]:
        """Sample tokens after `prompt`, yielding each as soon as it is drawn. The same seed gives the same tokens.
        `start_token`, `allow_special`, `chat` and `interventions` as in `read`."""
        check_count(max_tokens)
        changes = tuple(interventions)
        request = request_of(prompt, start_token, allow_special, chat, sampler=sampler, interventions=changes)
        return self.engine.generate(request, seed=seed, count=max_tokens)

    def write(
        self,
        prompt: str,
        *,
        max_tokens: int = 100,
        seed: int = 1,
        sampler: SamplerSettings | None = None,
        start_token: bool = False,
        allow_special: bool = False,
        chat: bool = False,
        interventions: Sequence[Intervention] = (),
    ) -> str:
        """The text of the tokens that `generate` yields, without the prompt."""
        made = self.generate(
            prompt,
            max_tokens=max_tokens,
            seed=seed,
            sampler=sampler,
            start_token=start_token,
            allow_special=allow_special,
            chat=chat,
            interventions=interventions,
        )
        return b"".join(token.bytes for token in made).decode("utf-8", "replace")

    def reward(
        self,
        prompt: str,
        score: str | Callable[[str], float],
        samples: int = 8,
        *,
        steps: int = 20,
        seed: int = 1,
        recipe: PolicyRecipe | None = None,
        start_token: bool = False,
        allow_special: bool = False,
        chat: bool = False,
    ) -> RewardRun:
        """Policy gradient on a copy of the weights: in each step `samples` answers to the prompt are drawn and scored.

        score: a rule, such as `contains:happy` (`tui_llm.llm.learn.reward.KINDS` lists them), or a function of an
            answer's text that returns a finite number.
        recipe: the other settings; its `samples` are replaced.

        The result's `mean_rewards` and `kl` have a number for each step: mean reward, and KL to the opened model in nats a
        token, of the policy that drew the step's answers.
        """
        from tui_llm.facts.policy import PolicyRecipe
        from tui_llm.instruments.reward.question import RewardQuestion

        chosen = dataclasses.replace(recipe or PolicyRecipe(), samples=samples)
        request = request_of(prompt, start_token, allow_special, chat)
        rule, function = (score, None) if isinstance(score, str) else ("function", score)
        return self.engine.answer(
            RewardQuestion(request, steps, rule, chosen, seed, ahead=False, fresh=True, score=function)
        )

    def prefer(
        self,
        prompt: str,
        chosen: str,
        rejected: str,
        beta: float = 0.1,
        *,
        steps: int = 1,
        learning_rate: float | None = None,
        length_normalized: bool = False,
        sft_weight: float = 0.0,
        start_token: bool = False,
        allow_special: bool = False,
        chat: bool = False,
    ) -> PairChange:
        """Learn to prefer `chosen` to `rejected` as the answer to `prompt`: steps of DPO on a copy of the weights. The
        open model does not change. The settings are those of `DPOSettings` and `PreferenceRecipe`; `start_token`,
        `allow_special` and `chat` as in `read`."""
        recipe = _recipe(beta, steps, learning_rate, length_normalized, sft_weight)
        request = request_of(prompt, start_token, allow_special, chat)
        return self.engine.answer(PreferTextQuestion(request, chosen, rejected, recipe)).changes[0]

    def rank(
        self,
        pairs: Sequence[tuple[str, str, str]],
        beta: float = 0.1,
        *,
        steps: int = 1,
        learning_rate: float | None = None,
        length_normalized: bool = False,
        sft_weight: float = 0.0,
        keep: str | None = None,
        force: bool = False,
    ) -> Preferred:
        """Learn the pairs (prompt, chosen, rejected) one after the other on one copy of the weights, as the app's Prefer
        does. The open model does not change. The result's `changes` has what each pair changed, its `agreements` with how
        many the copy agreed before it learned them. Settings as in `prefer`.

        keep: also write the copy as a model folder: a name for the models folder, or a path; with `force`, over an
            existing one.
        """
        from tui_llm.instruments.prefer.question import PreferQuestion, SavePreferredQuestion

        recipe = _recipe(beta, steps, learning_rate, length_normalized, sft_weight)
        encode = self.engine.tokenizer.encode_after
        ranked = tuple(
            RankedPair(
                tuple(self.engine.ids(Request(prompt=prompt))), tuple(encode(chosen)), tuple(encode(rejected)), recipe
            )
            for prompt, chosen, rejected in pairs
        )
        preferred = self.engine.answer(PreferQuestion(Request(), ranked))
        if keep is not None:
            self.engine.answer(SavePreferredQuestion(Request(), ranked, keep, force))
        return preferred

    def sft(
        self,
        pairs: Sequence[tuple[str, str]],
        steps: int = 12,
        *,
        learning_rate: float = 5e-4,
        keep: str | None = None,
        force: bool = False,
    ) -> SftState:
        """Supervised fine-tuning of a copy of the weights on (question, answer) pairs: AdamW on the loss of the answers'
        tokens, all pairs in each step. The open model does not change. The result has each answer token's loss and the
        greedy answers, before and after.

        keep: also write the copy as a model folder: a name for the models folder, or a path; with `force`, over an
            existing one.

        Raises `UserError` if a pair has no answer or does not fit the context, or the loss is no longer finite.
        """
        from tui_llm.instruments.sft.question import InstructQuestion, SftQuestion
        from tui_llm.llm.data.instruction_pairs import checked

        made = checked(pairs)
        state = self.engine.answer(SftQuestion(Request(), made, steps, learning_rate))
        if keep is not None:
            self.engine.answer(InstructQuestion(Request(), made, steps, learning_rate, keep, force=force))
        return state

    def compare(
        self,
        prompt: str,
        *others: str,
        seed: int = 1,
        max_tokens: int = 30,
        sampler: SamplerSettings | None = None,
        start_token: bool = False,
        allow_special: bool = False,
        chat: bool = False,
    ) -> ModelComparison:
        """Compare the model with one or two `others` on a prompt: predictions, KL in both directions, losses, and a
        continuation of each, drawn with the same uniform numbers. A weight format can follow a name: `nano:int8`. Raises
        `UserError` if one can't be opened."""
        from tui_llm.instruments.compare_models.question import CompareModelsQuestion

        check_count(max_tokens)
        request = request_of(prompt, start_token, allow_special, chat, sampler=sampler)
        return self.engine.answer(CompareModelsQuestion(request, others, seed, max_tokens))

    def ask(self, question: Question[Answer]) -> Answer:
        """Answer an instrument's question, one of `tui_llm.instruments.NAME.question`."""
        return self.engine.answer(question)

    def __repr__(self) -> str:
        w = self.weights
        step = "" if w.step is None else f", step {w.step:,}"
        return f"<{w.name}{step}: {w.parameters:,} parameters, {w.layers} layers of {w.heads} heads, context {w.context}{'' if w.dtype == 'fp32' else f', {w.dtype} weights'}, on {w.device}>"


def _recipe(
    beta: float, steps: int, learning_rate: float | None, length_normalized: bool, sft_weight: float
) -> PreferenceRecipe:
    recipe = PreferenceRecipe(DPOSettings(beta, length_normalized, sft_weight), steps=steps)
    return recipe if learning_rate is None else dataclasses.replace(recipe, learning_rate=learning_rate)


def open_model(name: str = "nano", device: str = "auto", weights: str = "fp32") -> LanguageModel:
    """Open a shipped model, a run's newest checkpoint, a model folder, a GGUF file or a checkpoint of another program.

    device: auto, cpu, cuda or mps.
    weights: fp32, exact; half, 16 bits per weight; or int8, 8 bits per weight. The latter two are faster on a CPU and
        change the results.

    Raises `UserError` if there is no such model, or it is damaged.
    """
    return LanguageModel(name, device, weights)


def check_model(name: str) -> CheckReport:
    """Examine a model's name, folder or file, as `tui-llm check` does. Raises `UserError` if there is none."""
    return checks.check_model(name)
