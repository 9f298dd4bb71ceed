"""The one exception that reaches a user: a mistake in the input, told in one sentence."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input. The message is one sentence: what is wrong, where, and what to do about it."""
