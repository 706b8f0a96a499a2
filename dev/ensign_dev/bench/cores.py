"""Separate cores for the measured process and its client."""

from __future__ import annotations

import contextlib
import os
from typing import Iterator, NamedTuple, Optional


class Cores(NamedTuple):
    """One core for a server, another for its clients."""

    server: int
    client: int


def cores() -> Optional[Cores]:
    """The first and the last core that this process may use; None if there is only one."""
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(allowed[0], allowed[-1]) if len(allowed) > 1 else None


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """Pins processes that this thread starts within the block to this core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
