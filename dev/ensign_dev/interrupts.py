"""Ctrl-C, SIGTERM and SIGHUP: they interrupt the work in progress, but never the cleanup after it."""

from __future__ import annotations

import contextlib
import signal
import sys
from types import FrameType
from typing import Iterator, List, Optional

OTHERS = (signal.SIGTERM, signal.SIGHUP)


def end_as_ctrl_c_does() -> None:
    """Makes SIGTERM and SIGHUP raise KeyboardInterrupt, unless the caller ignores them."""
    for number in OTHERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Defers interrupts until the end of the block."""
    came: List[int] = []

    def note(number: int, _frame: Optional[FrameType]) -> None:
        if not came:
            print("cleaning up; please wait ...", file=sys.stderr, flush=True)
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, *OTHERS)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def _interrupt(_number: int, _frame: Optional[FrameType]) -> None:
    raise KeyboardInterrupt
