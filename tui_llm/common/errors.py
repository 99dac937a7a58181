"""`UserError`, the error that users see; `Overtaken`, which stops a computation; other libraries' errors as one line."""

from __future__ import annotations


class UserError(Exception):
    """An error that the user can fix. Its message is one line that says what is wrong and what to do next.

    The message may quote untrusted strings (a file name, a token): pass it through `display.visible` before showing it.
    """


def in_one_line(error: BaseException) -> str:
    """An exception's message as one line, however long: a `UserError` ends with what to do next."""
    return " ".join(str(error).split())


def message_line(error: BaseException) -> str:
    """The message of another library's exception as one line of at most 200 characters; its type if it has none."""
    return in_one_line(error)[:200] or type(error).__name__


class Overtaken(Exception):
    """A newer request supersedes this one; its result is no longer needed."""


def network_reason(error: BaseException) -> str:
    """Why a download failed, in words: "Name or service not known", without urllib's and the system's wrapping."""
    reason = getattr(error, "reason", None) or error
    return str(getattr(reason, "strerror", None) or reason)
