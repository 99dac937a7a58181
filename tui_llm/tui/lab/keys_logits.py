"""The commands of the Logits & softmax pane, its sampler, and the screens that it opens."""

from __future__ import annotations

from tui_llm.tui.kit.command import Command


def _pane(
    id: str, key: str, label: str, tooltip: str, action: str, footer: bool = False, importance: int = 0
) -> Command:
    return Command(
        id, key, label, tooltip, "Logits", "logits", action, ("logits",) if footer else (), importance=importance
    )


def _steps(scope: str, group: str, prefix: str) -> tuple[Command, ...]:
    return tuple(
        Command(prefix + id, key, label, tooltip, group, scope, action, together=together)
        for id, key, label, tooltip, action, together in (
            ("top_k_down", "left_parenthesis", "top-k −", "Lower top-k: fewer tokens are kept", "top_k(-1)", "top-k"),
            ("top_k_up", "right_parenthesis", "top-k +", "Raise top-k: more tokens are kept, all in the end", "top_k(1)", "top-k"),
            ("min_p_down", "less_than_sign", "min-p −", "Lower min-p: less likely tokens are kept too", "min_p(-1)", "min-p"),
            ("min_p_up", "greater_than_sign", "min-p +", "Raise min-p: only tokens near the likeliest are kept", "min_p(1)", "min-p"),
        )
    )  # fmt: skip


LOGITS_COMMANDS: tuple[Command, ...] = (
    _pane("stages", "C", "stages", "Show the stages from logit to probability, page by page, or the overview again",
          "stages", footer=True, importance=1),
    _pane("find_token", "F", "find", "Find a token in the whole vocabulary, by text or id", "table('find')", footer=True),
    _pane("find_next", "N", "next match", "Go to the next token that matches", "table('next')", importance=-1),
    _pane("row_order", "O", "order", "Order the rows by probability, id, text or length", "table('order')"),
    _pane("what_if", "e", "what if", "What if the row's token had another logit? Type it", "table('change')", footer=True),
    _pane("what_if_undo", "E", "undo what if", "Give the model its own logits back", "table('undo')", importance=-1),
    _pane("temperatures", "T", "temperatures", "See temperatures side by side", "table('temperatures')"),
    _pane("append_row", "a", "append", "Choose the row's token by hand: put it after the text", "table('append')"),
    Command("scratch", "X", "scratch table", "Type tokens and logits of your own, and see softmax", "Logits", "lab", "scratch"),
    *_steps("lab", "Sampler", ""),
    Command("sampler_form", "K", "sampler", "Type all sampler settings: temperature, top-k, top-p, min-p, repetition penalty",
            "Sampler", "lab", "sampler_form", ("logits", "generate")),
    # The sampler's form
    Command("use_sampler", "ctrl+s", "use", "Use these settings", "Sampler form", "sampler", "use", ("sampler",)),
    Command("leave_sampler", "escape", "cancel", "Back, with the settings as they were", "Sampler form", "sampler", "leave", ("sampler",)),
    # Temperatures side by side
    Command("type_temperatures", "e,enter", "other temperatures", "Type other temperatures, such as 0.5, 1, 2",
            "Temperatures", "temperatures", "type_temperatures", ("temperatures",)),
    Command("copy_temperatures", "y", "copy", "Copy the columns as a table (tab-separated)", "Temperatures", "temperatures",
            "copy", ("temperatures",)),
    Command("leave_temperatures", "escape,q,T", "back", "Back to the table", "Temperatures", "temperatures", "leave", ("temperatures",)),
    # The scratch table
    Command("type_scratch", "i,slash", "type", "Type tokens and logits", "Scratch table", "scratch", "type", ("scratch",)),
    Command("scratch_stages", "C", "stages", "Show the stages from logit to probability, page by page", "Scratch table",
            "scratch", "stages", ("scratch",)),
    Command("scratch_cooler", "left_square_bracket", "cooler", "Lower the temperature (0 is greedy)", "Scratch table",
            "scratch", "temperature(-1)", ("scratch",), together="temperature"),
    Command("scratch_warmer", "right_square_bracket", "warmer", "Raise the temperature", "Scratch table", "scratch",
            "temperature(1)", ("scratch",), together="temperature"),
    Command("scratch_top_p_down", "left_curly_bracket", "top-p −", "Lower top-p: fewer tokens are kept", "Scratch table",
            "scratch", "top_p(-1)", ("scratch",), together="top-p"),
    Command("scratch_top_p_up", "right_curly_bracket", "top-p +", "Raise top-p: more tokens are kept", "Scratch table",
            "scratch", "top_p(1)", ("scratch",), together="top-p"),
    *_steps("scratch", "Scratch table", "scratch_"),
    Command("scratch_sampler", "K", "sampler", "Type all sampler settings", "Scratch table", "scratch", "sampler_form", ("scratch",)),
    Command("scratch_temperatures", "T", "temperatures", "See temperatures side by side", "Scratch table", "scratch",
            "temperatures", ("scratch",)),
    Command("copy_scratch", "y", "copy", "Copy the table (tab-separated)", "Scratch table", "scratch", "copy", ("scratch",)),
    Command("leave_scratch", "escape,q,X", "back", "Back to the five panes", "Scratch table", "scratch", "leave", ("scratch",)),
)  # fmt: skip
