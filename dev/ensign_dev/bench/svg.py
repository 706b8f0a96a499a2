"""Minimal plots as SVG: axes, ticks, units and a legend."""

from __future__ import annotations

import math
from typing import List, Sequence, Tuple
from xml.sax.saxutils import escape

from .figures import Plot, Series

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 84, 24, 48, 64
LEGEND_LINE = 20
MAX_LOG_TICKS = 10
# Distinguishable on screen, in print and with color blindness (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
FONT = "font-family='system-ui, sans-serif'"


class Axis:
    """Maps values to positions along one direction."""

    def __init__(self, values: Sequence[float], is_log: bool, start: float, end: float) -> None:
        if not values:
            raise ValueError("nothing to plot")
        if is_log and min(values) <= 0:
            raise ValueError("a logarithmic axis can't show 0 or negative values")
        self.is_log, self._start, self._end = is_log, start, end
        if is_log:
            self.ticks = _log_ticks(min(values), max(values))
        else:
            self.ticks = _even_ticks(min(0.0, *values), max(values))

    def place(self, value: float) -> float:
        """The position of a value."""
        low, high, at = self._scale(self.ticks[0]), self._scale(self.ticks[-1]), self._scale(value)
        return self._start + (at - low) / (high - low) * (self._end - self._start)

    def _scale(self, value: float) -> float:
        return math.log10(value) if self.is_log else value


def _log_ticks(low: float, high: float) -> List[float]:
    """Ticks that cover `low` to `high`: 1, 2, 5, 10 and so on, or only powers of ten if these are too many."""
    first, last = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1
    for factors in ((1, 2, 5), (1,)):
        all_ticks = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
        below = max(tick for tick in all_ticks if tick <= low * (1 + 1e-9))
        above = min(tick for tick in all_ticks if tick >= high * (1 - 1e-9) and tick > below)
        ticks = [tick for tick in all_ticks if below <= tick <= above]
        if len(ticks) <= MAX_LOG_TICKS:
            break
    return ticks


def _even_ticks(low: float, high: float) -> List[float]:
    span = (high - low) or 1.0
    raw = span / 5
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw - 1e-12)
    first = math.floor(low / step + 1e-9)
    last = math.ceil((low + span) / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def number(value: float) -> str:
    """Formats a number for people: 0.25, 12, 1,000."""
    if value == 0:
        return "0"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def render(plot: Plot) -> str:
    """Renders the plot as an SVG document."""
    xs = [x for series in plot.series for x, _ in series.points]
    ys = [y for series in plot.series for _, y in series.points]
    top = TOP + LEGEND_LINE * len(plot.series)
    height = HEIGHT + LEGEND_LINE * len(plot.series)
    across = Axis(xs, plot.log_x, LEFT, WIDTH - RIGHT)
    up = Axis(ys, plot.log_y, height - BOTTOM, top)
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' role='img'>",
        f"<title>{escape(plot.title)}</title>",
        f"<rect width='{WIDTH}' height='{height}' fill='#ffffff'/>",
        _text(LEFT, 26, plot.title, "start", 16, weight="600"),
        *_grid(across, up, top, height),
        _text((LEFT + WIDTH - RIGHT) / 2, height - 16, plot.x_label, "middle", 13),
        f"<g transform='translate(20 {(top + height - BOTTOM) / 2:.1f}) rotate(-90)'>"
        f"{_text(0, 0, plot.y_label, 'middle', 13)}</g>",
    ]
    for index, series in enumerate(plot.series):
        parts += _series(series, COLOURS[index % len(COLOURS)], across, up, TOP + LEGEND_LINE * index)
    return "\n".join([*parts, "</svg>", ""])


def _grid(across: Axis, up: Axis, top: float, height: float) -> List[str]:
    bottom = height - BOTTOM
    parts = []
    for tick in up.ticks:
        y = up.place(tick)
        parts.append(f"<line x1='{LEFT}' y1='{y:.1f}' x2='{WIDTH - RIGHT}' y2='{y:.1f}' stroke='#e3e3e3'/>")
        parts.append(_text(LEFT - 8, y + 4, number(tick), "end", 12))
    for tick in across.ticks:
        x = across.place(tick)
        parts.append(f"<line x1='{x:.1f}' y1='{bottom}' x2='{x:.1f}' y2='{bottom + 5}' stroke='#555555'/>")
        parts.append(_text(x, bottom + 20, number(tick), "middle", 12))
    parts.append(f"<path d='M{LEFT} {top}V{bottom}H{WIDTH - RIGHT}' fill='none' stroke='#555555'/>")
    return parts


def _series(series: Series, colour: str, across: Axis, up: Axis, legend_y: float) -> List[str]:
    places: List[Tuple[float, float]] = [(across.place(x), up.place(y)) for x, y in series.points]
    dashes = " stroke-dasharray='6 4'" if series.dashed else ""
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts = [f"<polyline points='{line}' fill='none' stroke='{colour}' stroke-width='2'{dashes}/>"]
    if len(places) <= 40 and not series.dashed:
        parts += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{colour}'/>" for x, y in places]
    y = legend_y + 4
    parts.append(f"<line x1='{LEFT}' y1='{y}' x2='{LEFT + 26}' y2='{y}' stroke='{colour}' stroke-width='2'{dashes}/>")
    parts.append(_text(LEFT + 34, y + 4, series.name, "start", 12))
    return parts


def _text(x: float, y: float, text: str, anchor: str, size: int, weight: str = "400") -> str:
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' font-size='{size}' font-weight='{weight}' "
        f"fill='#222222' {FONT}>{escape(text)}</text>"
    )
