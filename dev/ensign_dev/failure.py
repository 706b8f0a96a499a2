"""The one exception that ends a make target with its message alone, without a traceback."""

from __future__ import annotations


class Failure(Exception):
    """Something did not work; the message says what, on which object, and what to do."""
