"""Reads cases, and rejects everything in them that the runner does not know: a typo must not pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

from ..failure import Failure
from .schema import Checker
from .values import PLACEHOLDER, texts

KNOWN_DIFFERENCES = "differences.json"


class Case:
    """A valid case."""

    def __init__(self, document: Mapping[str, Any], path: Optional[Path] = None) -> None:
        self.document = document
        self.path = path
        self.id: str = document["id"]
        self.area: str = document["area"]
        self.evidence: str = document["evidence"]
        self.given: Dict[str, Any] = dict(document.get("given") or {})
        self.steps: List[Dict[str, Any]] = list(document["steps"])

    def requests(self) -> List[Dict[str, Any]]:
        """All requests of all steps."""
        found: List[Dict[str, Any]] = []
        for step in self.steps:
            found += [step[kind] for kind in ("request", "burst") if kind in step]
            found += step.get("parallel", [])
        return found

    @property
    def changes(self) -> List[Dict[str, Any]]:
        """What the steps change beside Azure's own API."""
        return [step["change"] for step in self.steps if "change" in step]

    @property
    def is_manual(self) -> bool:
        """Whether there is nothing to ask."""
        return not self.requests()

    @property
    def uses_workload(self) -> bool:
        """Whether there has to be an identity of a workload."""
        used = {found.group(1) for text in texts(self.steps) for found in PLACEHOLDER.finditer(text)}
        return (
            "trust" in self.given
            or not used.isdisjoint(("clientId", "identityName"))
            or any("token" in request for request in self.requests())
        )

    @property
    def rights(self) -> List[Any]:
        """The rights of the callers other than an administrator."""
        callers = [request.get("auth") for request in self.requests()]
        return [auth.get("rights", "all") for auth in callers if isinstance(auth, dict)]


def load(folder: Path) -> List[Case]:
    """Reads all cases of a folder; fails if there is none, or one is invalid."""
    files = sorted(file for file in folder.glob("*.json") if file.name != KNOWN_DIFFERENCES)
    if not files:
        raise Failure(f"{folder} has no cases (*.json)")
    problems: List[str] = []
    cases: List[Case] = []
    for file in files:
        found = problems_of(file)
        if isinstance(found, Case):
            cases.append(found)
        else:
            problems += [f"{file.name}: {problem}" for problem in found]
    seen: Dict[str, Path] = {}
    for case in cases:
        path = case.path or folder
        if case.id in seen:
            problems.append(f"{path.name}: {seen[case.id].name} has the same id, {case.id}")
        seen[case.id] = path
    if problems:
        raise Failure("\n".join(["these cases are invalid:", *problems]))
    return cases


def problems_of(file: Path) -> "Case | List[str]":
    """The case in a file, or what is wrong with it."""
    try:
        document = read_json(file)
    except (OSError, ValueError) as error:
        return [str(error)]
    problems = check(document)
    return problems or Case(document, file)


def check(document: Any) -> List[str]:
    """What is wrong with a case; nothing if it is valid."""
    checker = Checker()
    checker.case(document)
    return checker.problems


def read_json(file: Path) -> Any:
    """Reads JSON in which no object has a field twice."""
    return json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_once)


def _once(pairs: "Sequence[tuple[str, Any]]") -> Dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"a field is there twice: {', '.join(twice)}")
    return dict(pairs)


def chosen(cases: Sequence[Case], only: Sequence[str]) -> List[Case]:
    """The cases with these IDs, or all."""
    unknown = sorted(set(only) - {case.id for case in cases})
    if unknown:
        raise Failure(f"there is no case {', '.join(unknown)}; --list shows all")
    return [case for case in cases if not only or case.id in only]
