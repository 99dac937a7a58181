"""Measure learning from preferences on this machine, and print each figure with its goal.

    python scripts/figures_preference.py [CHOICES]

The shipped model, on the CPU with two threads, in the real app at 120×40. A DPO step: two answers of 32 tokens, from the key
of the choice until its result is drawn, which includes learning it, both answers read again, KL and the pair's row on disk.
A reward step: 8 answers of 24 tokens, drawn, scored, learned and read again; beside the same answers drawn and learned one by
one. Then the presets of Reward, 20 steps each.
"""

from __future__ import annotations

import asyncio
import os
import platform
import statistics
import sys
import tempfile
import time

PROMPT = "Once upon a time, there was a little"
CHOICES = 12


def row(what: str, value: float, goal: float | None = None) -> None:
    met = "" if goal is None else f"  goal ≤ {1000 * goal:g} ms  {'met' if value <= goal else 'NOT MET'}"
    print(f"{what:62} {1000 * value:8.0f} ms{met}", flush=True)


async def choices(count: int) -> tuple[list[float], list[float], list[float]]:
    """Returns the seconds of each choice, the processor's seconds for it, and the seconds of each drawing of two answers."""
    from tui_llm.engine import PipelineEngine
    from tui_llm.llm.model import device
    from tui_llm.tui.app import LabApp
    from tui_llm.tui.instruments.prefer.prefer import PreferScreen

    device.use_threads(2)
    app = LabApp(lambda: PipelineEngine("cpu"), prompt=PROMPT)
    learned, used, drew = [], [], []
    async with app.run_test(size=(120, 40)) as pilot:
        while app.lab_screen.reading is None:
            await pilot.pause(0.05)
        await pilot.press("escape", "j")
        while not isinstance(app.screen, PreferScreen):
            await pilot.pause(0.05)
        screen = app.screen
        while screen.two is None:
            await asyncio.sleep(0.001)
        while len(learned) < count:
            assert screen.two is not None
            full = all(len(one.ids) == 32 for one in (screen.two.left, screen.two.right))
            if full:
                began, worked = time.perf_counter(), time.process_time()
                screen.action_choose(0)
                while screen.chosen is None or "margin" not in drawn(app):
                    await asyncio.sleep(0.005)
                learned.append(time.perf_counter() - began)
                used.append(time.process_time() - worked)
            began = time.perf_counter()
            screen.action_next() if full else screen.action_neither()
            while screen.two is None or "← A" not in drawn(app):
                await asyncio.sleep(0.005)
            drew.append(time.perf_counter() - began)
    return learned, used, drew


def drawn(app: object) -> str:
    """The screen's text."""
    strips = app.screen._compositor.render_strips()  # type: ignore[attr-defined]
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


def reward_steps(count: int) -> tuple[list[float], list[float]]:
    """Returns the seconds of each step on a group, and of each group drawn and learned answer by answer; in turn."""
    import torch

    from tui_llm.engine import PipelineEngine
    from tui_llm.facts.policy import PolicySettings
    from tui_llm.facts.sampler import SamplerSettings
    from tui_llm.instruments.reward.question import PRESETS
    from tui_llm.llm.learn.policy_gradient import group_advantages, policy_step
    from tui_llm.llm.learn.undoable import UndoableCopy, set_learning_rate
    from tui_llm.llm.model import device, fast_decode
    from tui_llm.llm.predict.draw_group import draw_group, row_seed
    from tui_llm.llm.predict.generate import generate
    from tui_llm.llm.predict.window import Window

    engine = PipelineEngine("cpu")
    engine.open("nano")
    ids, size = engine.tokenizer.encode(PRESETS[0].prompt), engine.tokenizer.size
    copy, settings = UndoableCopy(engine.gpt), PolicySettings()

    def learn(rows: list[tuple[list[int], tuple[int, ...]]], advantages: list[float]) -> None:
        def step(model: object, optimizer: torch.optim.Optimizer) -> None:
            set_learning_rate(optimizer, 1e-6)
            tokens = sum(len(prompt) + len(answer) for prompt, answer in rows)
            with device.threads(engine.gpt.config.parameters() * tokens):
                policy_step(model, optimizer, rows, advantages, engine.gpt, settings, size, longest=24)

        copy.take(step)

    def advantages_of(answers: list[tuple[int, ...]]) -> list[float]:
        rewards = torch.tensor([float(sum(answer) % 7) for answer in answers], dtype=torch.float64)
        return group_advantages(rewards).tolist()

    def together(seeds: list[int]) -> None:
        drawn = draw_group(copy.model, ids, seeds, size=size, count=24)
        answers = [one.ids for one in drawn]
        learn([(ids, answer) for answer in answers], advantages_of(answers))

    def one_by_one(seeds: list[int]) -> None:
        answers = []
        for seed in seeds:
            window = Window(fast_decode.predictor(copy.model), size)

            def logits(so_far: list[int], window: Window = window) -> object:
                window.feed(so_far)
                return window.logits()

            steps = generate(logits, ids, SamplerSettings(), seed=seed, count=24, bytes_of=engine.bytes_of)
            answers.append(tuple(step.id for step in steps))
        for answer, advantage in zip(answers, advantages_of(answers), strict=True):
            learn([(ids, answer)], [advantage])

    times: tuple[list[float], list[float]] = [], []
    for number in range(count + 1):
        for at, run in enumerate((together, one_by_one)):
            began = time.perf_counter()
            run([row_seed(1, 8 * number + row) for row in range(8)])
            if number:  # the first makes the copy
                times[at].append(time.perf_counter() - began)
    return times


def presets() -> None:
    from tui_llm.api import LanguageModel
    from tui_llm.instruments.reward.question import PRESETS, hacking

    lab = LanguageModel("nano", "cpu")
    for preset in PRESETS:
        run = lab.reward(preset.prompt, preset.spec, recipe=preset.recipe)
        means, first, last = run.mean_rewards, run.steps[0], run.steps[-1]
        print(
            f"preset {preset.name} ({preset.spec}), 20 steps: mean reward {means[0]:.3f} → {means[-1]:.3f}, KL {last.kl:.2f}, distinct answers {first.distinct} → {last.distinct}"
        )
        print("   " + " ".join(f"{mean:.2f}" for mean in means))
        if preset is PRESETS[0]:
            print(f"   goal: from under 0.2 to over 0.6  {'met' if means[0] < 0.2 and means[-1] > 0.6 else 'NOT MET'}")
        else:
            print(f"   goal: said to be hacked  {'met' if hacking(run.steps) else 'NOT MET'}")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else CHOICES
    os.environ["TUI_LLM_HOME"] = tempfile.mkdtemp(prefix="tui-llm-figures-")
    import torch

    torch.set_num_threads(2)
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}")
    learned, used, drew = asyncio.run(choices(count))
    row("the first choice, which makes the copy, seen on screen", learned[0])
    if rest := learned[1:]:
        row(f"a DPO step of two 32-token answers, seen on screen, median of {len(rest)}", statistics.median(rest), 0.3)
        row("the longest of them", max(rest))
        row("the processor's time for it, which other processes don't delay", statistics.median(used[1:]), 0.3)
    row("drawing two answers of up to 32 tokens, median", statistics.median(drew))
    group, single = (statistics.median(times) for times in reward_steps(5))
    row("a reward step, 8 draws of 24 tokens, drawing included, median of 5", group, 1.0)
    ratio = single / group
    print(
        f"{'   the same answers drawn and learned one by one':62} {1000 * single:8.0f} ms  goal ≥ 4 ×: {ratio:.1f} ×  {'met' if ratio >= 4 else 'NOT MET'}"
    )
    presets()


if __name__ == "__main__":
    main()
