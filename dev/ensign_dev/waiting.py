"""Waiting for facts, never for time to pass."""

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
    """The first answer of `probe` that is not None.

    Fails when `hopeless` says why there will be none, or after `seconds`; `tail` then tells what is known.
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
            known = tail()
            raise Failure(f"waited {seconds:.0f} seconds for {what}, in vain" + (f"; {known}" if known else ""))
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)
