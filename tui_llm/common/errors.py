"""The one exception that people see. Whatever goes wrong outside this program's own logic ends up as one of these."""

from __future__ import annotations


class UserError(Exception):
    """Something that a person can put right: its text says what is wrong and what to do next, in one line.

    The text may quote foreign strings (a file's name, a token): it passes `display.visible` before any screen.
    """


class Overtaken(Exception):
    """A newer request has arrived: the answer to this one is no longer wanted."""
