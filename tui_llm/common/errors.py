"""The exceptions of this package: every error that users see is a `UserError`."""

from __future__ import annotations


class UserError(Exception):
    """An error that the user can fix. Its message is one line that says what is wrong and what to do next.

    The message may quote untrusted strings (a file name, a token): pass it through `display.visible` before showing it.
    """


class Overtaken(Exception):
    """A newer request supersedes this one; its result is no longer needed."""
