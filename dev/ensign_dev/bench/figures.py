"""The results of a benchmark: figures with what they are compared with, and plots."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Sequence, Tuple


@dataclass(frozen=True)
class Limit:
    """What the same job costs at best, or an external limit, measured in the same run."""

    name: str
    runs: Sequence[float]

    @property
    def median(self) -> float:
        """The median of its runs."""
        return statistics.median(self.runs)


@dataclass(frozen=True)
class Target:
    """What should be reached; `met` is None if it was not measured."""

    text: str
    met: Optional[bool]


@dataclass(frozen=True)
class Figure:
    """One measure, once for each run."""

    name: str
    unit: str
    runs: Sequence[float]
    limit: Optional[Limit] = None
    target: Optional[Target] = None

    def __post_init__(self) -> None:
        if not self.runs or (self.limit is not None and not self.limit.runs):
            raise ValueError(f"{self.name} has no runs")

    @property
    def median(self) -> float:
        """The median of its runs."""
        return statistics.median(self.runs)

    @property
    def ratio(self) -> Optional[float]:
        """The figure as a multiple of its limit."""
        return self.median / self.limit.median if self.limit is not None and self.limit.median else None

    def as_json(self) -> Dict[str, Any]:
        """All its values."""
        found: Dict[str, Any] = {"name": self.name, "unit": self.unit, "median": self.median, "runs": list(self.runs)}
        if self.limit is not None:
            found["limit"] = {"name": self.limit.name, "median": self.limit.median, "runs": list(self.limit.runs)}
            found["ratio"] = self.ratio
        if self.target is not None:
            found["target"] = {"text": self.target.text, "met": self.target.met}
        return found


def at_least(runs: Sequence[float], bound: float, text: str) -> Target:
    """A target that is met when the median is this much, or more."""
    return Target(text, statistics.median(runs) >= bound)


def at_most(runs: Sequence[float], bound: float, text: str) -> Target:
    """A target that is met when the median is this much, or less."""
    return Target(text, statistics.median(runs) <= bound)


@dataclass(frozen=True)
class Series:
    """A line of a plot; a limit is drawn dashed."""

    name: str
    points: Sequence[Tuple[float, float]]
    dashed: bool = False


@dataclass(frozen=True)
class Plot:
    """A plot, written to a file of this name."""

    file: str
    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Part:
    """One part of the benchmark. Notes explain the figures, for example what could not be measured, and why."""

    name: str
    figures: List[Figure]
    plots: List[Plot] = field(default_factory=list)
    notes: List[str] = field(default_factory=list)

    def as_json(self) -> Dict[str, Any]:
        """Everything but the plots' points, which are in the plots."""
        return {
            "name": self.name,
            "figures": [figure.as_json() for figure in self.figures],
            "plots": [plot.file for plot in self.plots],
            "notes": self.notes,
        }
