"""The commands of drawing: undo and redo, ghost text, the draw on the cumulative distribution, many draws at once."""

from __future__ import annotations

from tui_llm.tui.kit.command import Command


def _draw(id: str, keys: str, label: str, tooltip: str, action: str, together: str = "") -> Command:
    return Command(id, keys, label, tooltip, "The draw", "draw", action, ("draw",), together=together)


def _many(id: str, keys: str, label: str, tooltip: str, action: str, together: str = "") -> Command:
    return Command(id, keys, label, tooltip, "Draw many", "draw_many", action, ("draw_many",), together=together)


DRAW_COMMANDS: tuple[Command, ...] = (
    _draw("leave_draw", "escape,q,D", "back", "Back to the five panes", "leave"),
    _draw("draw_earlier", "left", "earlier", "Go to the token drawn before", "step(-1)", "token"),
    _draw("draw_later", "right", "later", "Go to the next token; after the last one, to the one still to be drawn", "step(1)", "token"),
    _draw("replay_cooler", "left_square_bracket", "cooler", "Replay the same u at a lower temperature", "temperature(-1)", "replay's temperature"),
    _draw("replay_warmer", "right_square_bracket", "warmer", "Replay the same u at a higher temperature", "temperature(1)", "replay's temperature"),
    _draw("replay_top_p_down", "left_curly_bracket", "top-p −", "Replay the same u with a lower top-p", "top_p(-1)", "its top-p"),
    _draw("replay_top_p_up", "right_curly_bracket", "top-p +", "Replay the same u with a higher top-p", "top_p(1)", "its top-p"),
    _draw("u_down", "minus", "lower u", "Try a u that is lower by 0.01", "move_u(-0.01)", "other u"),
    _draw("u_up", "plus,equals_sign", "higher u", "Try a u that is higher by 0.01", "move_u(0.01)", "other u"),
    _draw("own_u", "r", "own u", "Back to the token's own u, and the replay to its first settings", "own_u"),
    _draw("copy_draw", "y", "copy", "Copy the table (tab-separated)", "copy"),
    _many("leave_many", "escape,q,H", "back", "Back to the five panes", "leave"),
    _many("many_earlier", "left", "earlier", "Draw the token before again and again", "step(-1)", "token"),
    _many("many_later", "right", "later", "Draw the next token; after the last one, the one still to be drawn", "step(1)", "token"),
    _many("fewer_draws", "minus", "fewer", "A tenth of the draws", "more(-1)", "draws"),
    _many("more_draws", "plus,equals_sign", "more", "Ten times the draws: the counts come closer to what is expected", "more(1)", "draws"),
    _many("many_seed", "r", "new seed", "Draw anew with another seed", "seed"),
    _many("many_cooler", "left_square_bracket", "cooler", "Draw at a lower temperature", "temperature(-1)", "temperature"),
    _many("many_warmer", "right_square_bracket", "warmer", "Draw at a higher temperature", "temperature(1)", "temperature"),
    _many("many_top_p_down", "left_curly_bracket", "top-p −", "Draw with a lower top-p", "top_p(-1)", "top-p"),
    _many("many_top_p_up", "right_curly_bracket", "top-p +", "Draw with a higher top-p", "top_p(1)", "top-p"),
    _many("copy_many", "y", "copy", "Copy the table (tab-separated)", "copy"),
)  # fmt: skip
