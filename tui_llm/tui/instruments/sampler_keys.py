"""The keys that change the sampler's settings step by step: those of the lab's sampler and of the scratch table's."""

from __future__ import annotations

from tui_llm.tui.kit.command import Command, CommandFactory


def temperature_keys(make: CommandFactory, prefix: str = "") -> tuple[Command, ...]:
    """Temperature and top-p."""
    return (
        make(prefix + "cooler", "left_square_bracket", "cooler", "Lower the temperature (0 is greedy)", "temperature(-1)", together="temperature"),
        make(prefix + "warmer", "right_square_bracket", "warmer", "Raise the temperature", "temperature(1)", together="temperature"),
        make(prefix + "top_p_down", "left_curly_bracket", "top-p −", "Lower top-p: fewer tokens are kept", "top_p(-1)", together="top-p"),
        make(prefix + "top_p_up", "right_curly_bracket", "top-p +", "Raise top-p: more tokens are kept", "top_p(1)", together="top-p"),
    )  # fmt: skip


def cut_keys(make: CommandFactory, prefix: str = "") -> tuple[Command, ...]:
    """Top-k and min-p: in no footer."""
    return (
        make(prefix + "top_k_down", "left_parenthesis", "top-k −", "Lower top-k: fewer tokens are kept", "top_k(-1)", footer=(), together="top-k"),
        make(prefix + "top_k_up", "right_parenthesis", "top-k +", "Raise top-k: more tokens are kept, finally all", "top_k(1)", footer=(), together="top-k"),
        make(prefix + "min_p_down", "less_than_sign", "min-p −", "Lower min-p: less likely tokens are kept too", "min_p(-1)", footer=(), together="min-p"),
        make(prefix + "min_p_up", "greater_than_sign", "min-p +", "Raise min-p: only tokens near the likeliest are kept", "min_p(1)", footer=(), together="min-p"),
    )  # fmt: skip
