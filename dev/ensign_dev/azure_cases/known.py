"""The known differences between the emulator and Azure, and the verdict on each case."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence

from ..failure import Failure
from .case import KNOWN_DIFFERENCES, Case, read_json
from .run import StepDifference
from .values import PART, PARTS, text_pattern

FIELDS = ("id", "differs", "reason")

# Verdicts.
SAME, KNOWN, MANUAL, DIFFERS, OUTDATED = "same", "known", "manual", "differs", "outdated"
GOOD = (SAME, KNOWN, MANUAL)


class Known:
    """What is known to differ in one case; `<any>` and the like stand for what varies."""

    def __init__(self, differs: Sequence[str], reason: str) -> None:
        self.differs = list(differs)
        self.reason = reason

    def is_same(self, found: Sequence[StepDifference]) -> bool:
        """Whether exactly this differs: each difference is listed, and each that is listed was found."""
        lines = [str(one) for one in found]
        patterns = [text_pattern(text) for text in self.differs]
        return all(any(pattern.fullmatch(line) for pattern in patterns) for line in lines) and all(
            any(pattern.fullmatch(line) for line in lines) for pattern in patterns
        )


class Result:
    """What came of a case."""

    def __init__(self, case: Case, found: Sequence[StepDifference], known: "Known | None" = None) -> None:
        self.case = case
        self.found = list(found)
        self.known = known

    @property
    def verdict(self) -> str:
        """One of the verdicts; good ones are in `GOOD`."""
        if self.known is not None:
            return KNOWN if self.found and self.known.is_same(self.found) else OUTDATED
        if self.found:
            return DIFFERS
        return MANUAL if self.case.is_manual else SAME


def load(folder: Path, cases: Sequence[Case]) -> Dict[str, Known]:
    """Reads the list of known differences in the folder of the cases; without the file there are none."""
    file = folder / KNOWN_DIFFERENCES
    if not file.is_file():
        return {}
    try:
        entries = read_json(file)
    except (OSError, ValueError) as error:
        raise Failure(f"{file}: {error}") from error
    known: Dict[str, Known] = {}
    problems: List[str] = []
    if not isinstance(entries, list):
        problems.append("it is not a list")
        entries = []
    ids = {case.id for case in cases}
    for number, entry in enumerate(entries, 1):
        wrong = _wrong(entry, ids, known)
        if wrong:
            problems.append(f"entry {number}: {wrong}")
        else:
            known[entry["id"]] = Known(entry["differs"], entry["reason"])
    if problems:
        raise Failure("\n".join([f"{file} is invalid:", *problems]))
    return known


def _wrong(entry: Any, ids: "set[str]", known: Mapping[str, Known]) -> str:
    if not isinstance(entry, dict) or set(entry) != set(FIELDS):
        return f"needs exactly {', '.join(FIELDS)}"
    lines = entry["differs"]
    if not isinstance(lines, list) or not lines or not all(isinstance(line, str) and line for line in lines):
        return "differs has to be a list of texts"
    unknown = sorted({name for line in lines for name in PART.findall(line) if name not in PARTS})
    if unknown:
        return f"<{unknown[0]}> is unknown"
    if not isinstance(entry["reason"], str) or len(entry["reason"].split()) < 4:
        return "the reason has to be a sentence"
    if entry["id"] not in ids:
        return f"there is no case {entry['id']!r}"
    return f"{entry['id']} is there twice" if entry["id"] in known else ""
