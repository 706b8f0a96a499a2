"""The exception for expected failures of a make target: only its message is printed, without a traceback."""

from __future__ import annotations


class Failure(Exception):
    """The message names what failed, on which object, and what to do about it."""
