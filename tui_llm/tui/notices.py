"""The terminal bell and a desktop notification: what to send to which terminal. Pure functions of the environment.

OSC 9 is iTerm2's sequence (WezTerm, Ghostty, kitty, Windows Terminal know it), OSC 777 that of urxvt (foot, VTE, Contour). An unknown
terminal gets both; it ignores what it does not know. tmux passes a sequence on that is wrapped in its own (if its option
`allow-passthrough` is on), GNU screen too; both pass on the bell.
"""

from __future__ import annotations

from collections.abc import Mapping

from tui_llm.common.display import truncate, visible

TITLE = "tui-llm"
LONGEST = 200  # cells
ESC, BEL, ST = "\x1b", "\x07", "\x1b\\"
_OSC_9 = ("iTerm.app", "WezTerm", "ghostty", "WarpTerminal")  # values of TERM_PROGRAM
_OSC_777 = ("rxvt", "foot", "contour")  # beginnings of TERM


def bytes_for(text: str, environment: Mapping[str, str]) -> str:
    """Returns what to write to the terminal: the bell, then the notification. `text` may be foreign: it passes the display gate."""
    shown = truncate(visible(text), LONGEST)
    return BEL + "".join(_passed_on(sequence, environment) for sequence in _sequences(shown, environment))


def _sequences(shown: str, environment: Mapping[str, str]) -> list[str]:
    nine = f"{ESC}]9;{TITLE}: {shown}{BEL}"  # the title first: a text such as "4;1" would be a progress bar
    urxvt = f"{ESC}]777;notify;{TITLE};{shown.replace(';', ',')}{BEL}"
    term = environment.get("TERM", "")
    inside = (
        "TMUX" in environment or "STY" in environment
    )  # these variables then name the multiplexer, not the terminal
    if not inside:
        if environment.get("TERM_PROGRAM") in _OSC_9 or {"WT_SESSION", "KITTY_WINDOW_ID"} & environment.keys():
            return [nine]
        if term.startswith(_OSC_777) or "VTE_VERSION" in environment:
            return [urxvt]
    return [nine, urxvt]


def _passed_on(sequence: str, environment: Mapping[str, str]) -> str:
    if "TMUX" in environment:
        return f"{ESC}Ptmux;{sequence.replace(ESC, ESC + ESC)}{ST}"
    if "STY" in environment:
        return f"{ESC}P{sequence}{ST}"
    return sequence
