"""Waits for conditions instead of sleeping for a fixed time."""

from __future__ import annotations

import time
from typing import Callable, Optional, TypeVar

from .failure import Failure

FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 0.3

Fact = TypeVar("Fact")


def until(
    what: str,
    probe: Callable[[], Optional[Fact]],
    seconds: float,
    hopeless: Callable[[], Optional[str]] = lambda: None,
    tail: Callable[[], str] = lambda: "",
) -> Fact:
    """Polls `probe` until it returns something other than None, and returns that.

    Fails as soon as `hopeless` returns a reason why it never will, or after `seconds`, with the details from `tail`.
    """
    deadline = time.monotonic() + seconds
    pause = FIRST_PAUSE_SECONDS
    while True:
        found = probe()
        if found is not None:
            return found
        reason = hopeless()
        if reason is not None:
            raise Failure(f"waited for {what}, but {reason}")
        if time.monotonic() > deadline:
            details = tail()
            raise Failure(f"timed out after {seconds:.0f} seconds waiting for {what}" + (f"; {details}" if details else ""))
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)
