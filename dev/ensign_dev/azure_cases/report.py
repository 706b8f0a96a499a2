"""What came of all cases, for people and for programs."""

from __future__ import annotations

import json
from typing import Dict, List, Sequence

from .known import DIFFERS, GOOD, KNOWN, MANUAL, OUTDATED, SAME, Result
from .matching import plain

WORDS = {
    SAME: "as Azure",
    KNOWN: "known to differ",
    MANUAL: "to check by hand",
    DIFFERS: "different",
    OUTDATED: "not as listed among the known differences",
}


def text(results: Sequence[Result]) -> str:
    """A line for each case that is not simply as expected, one for each difference, and a summary."""
    lines: List[str] = []
    for result in results:
        if result.verdict == SAME:
            continue
        lines.append(f"{result.case.id}: {WORDS[result.verdict]}")
        if result.verdict == MANUAL:
            continue
        lines += [f"    {one}" for one in result.found]
        if result.known is not None:
            if result.verdict == OUTDATED:
                lines += [f"    listed: {one}" for one in result.known.differs]
                if not result.found:
                    lines.append("    it does not differ anymore: remove it from the list")
            else:
                lines.append(f"    because: {result.known.reason}")
    return "\n".join([*lines, summary(results)])


def summary(results: Sequence[Result]) -> str:
    """How many cases there are of each verdict."""
    counts: Dict[str, int] = {}
    for result in results:
        counts[result.verdict] = counts.get(result.verdict, 0) + 1
    parts = [f"{counts[verdict]} {WORDS[verdict]}" for verdict in WORDS if verdict in counts]
    return f"{len(results)} cases: {', '.join(parts)}"


def machine_readable(results: Sequence[Result]) -> str:
    """The results as JSON."""
    return json.dumps({"ok": all_good(results), "cases": [_entry(result) for result in results]}, indent=2)


def _entry(result: Result) -> Dict[str, object]:
    entry: Dict[str, object] = {
        "id": result.case.id,
        "area": result.case.area,
        "evidence": result.case.evidence,
        "verdict": result.verdict,
        "differences": [
            {
                "step": one.step,
                "where": one.difference.where,
                "expected": plain(one.difference.expected),
                "got": plain(one.difference.got),
                "text": str(one),
            }
            for one in result.found
        ],
    }
    if result.known is not None:
        entry["known"] = {"differs": result.known.differs, "reason": result.known.reason}
    return entry


def all_good(results: Sequence[Result]) -> bool:
    """Whether nothing differs but what is known to."""
    return all(result.verdict in GOOD for result in results)
