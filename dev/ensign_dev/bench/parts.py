"""The parts of the benchmark, by name, in the order in which they run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, List, Optional, Sequence, Tuple

from ..failure import Failure
from . import admission, api_server, controller
from .context import Context
from .figures import Part


@dataclass(frozen=True)
class Entry:
    """A part, and the driver in benches/ that it needs, if any. With `only_named`, it runs only if it is requested by name."""

    name: str
    run: Callable[[Context], Part]
    driver: Optional[str] = None
    only_named: bool = False


def registry() -> List[Entry]:
    """All parts."""
    return [
        Entry(admission.NAME, admission.run, admission.DRIVER),
        Entry(api_server.NAME, api_server.run),
        Entry("reconcile", controller.reconcile, controller.DRIVER),
        Entry("limits", controller.limits, controller.DRIVER),
        Entry("steady", controller.steady, controller.DRIVER),
        Entry("restart", controller.restart, controller.DRIVER),
        Entry("failover", controller.failover, controller.DRIVER),
        Entry("one", controller.one, controller.DRIVER),
        Entry("memory", controller.memory, controller.DRIVER),
        Entry("soak", controller.soak, controller.DRIVER, only_named=True),
    ]


def chosen(names: Sequence[str], entries: Sequence[Entry]) -> List[Entry]:
    """Returns the parts with these names; without names, all except those with `only_named`."""
    unknown = [name for name in names if name not in {entry.name for entry in entries}]
    if unknown:
        raise Failure(f"unknown part {', '.join(unknown)}; known: {', '.join(entry.name for entry in entries)}")
    return [entry for entry in entries if (entry.name in names if names else not entry.only_named)]


def drivers(entries: Sequence[Entry]) -> Tuple[str, ...]:
    """Returns the drivers that these parts need, without duplicates."""
    return tuple(sorted({entry.driver for entry in entries if entry.driver is not None}))
