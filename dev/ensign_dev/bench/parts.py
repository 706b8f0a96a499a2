"""The parts of the benchmark, by name, in the order in which they run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, List, Sequence

from ..failure import Failure
from . import admission, api_server
from .context import Context
from .figures import Part


@dataclass(frozen=True)
class Entry:
    """A part that can be run; one with `only_named` runs only when it is asked for."""

    name: str
    run: Callable[[Context], Part]
    only_named: bool = False


def registry() -> List[Entry]:
    """All parts."""
    return [
        Entry(admission.NAME, admission.run),
        Entry(api_server.NAME, api_server.run),
    ]


def chosen(names: Sequence[str], entries: Sequence[Entry]) -> List[Entry]:
    """The parts of these names; without names, all that need not be named."""
    unknown = [name for name in names if name not in {entry.name for entry in entries}]
    if unknown:
        raise Failure(f"no part {', '.join(unknown)}; there are: {', '.join(entry.name for entry in entries)}")
    return [entry for entry in entries if (entry.name in names if names else not entry.only_named)]
