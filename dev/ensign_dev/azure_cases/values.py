"""Placeholders of requests, and the values and texts that stand for what varies in an answer."""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Dict, Iterator, Mapping, Pattern

GUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)"

PLACEHOLDER = re.compile(r"\{([A-Za-z][A-Za-z0-9.]*)(:simple)?\}")
# What a text of an answer may contain for something that varies.
PARTS: Dict[str, str] = {
    "any": ".*",
    "digits": r"\d+",
    "guid": GUID,
    "precise": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z",
    "time": TIME,
}
PART = re.compile(r"<([A-Za-z][A-Za-z-]*)>")


class Absent:
    """The value of a field that is not there."""

    def __repr__(self) -> str:
        return "nothing"


ABSENT = Absent()


def _matches(pattern: str) -> Callable[[Any], bool]:
    compiled = re.compile(pattern)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# Values that say what the value of an answer is.
KINDS: Dict[str, Callable[[Any], bool]] = {
    "@absent": lambda value: value is ABSENT,
    "@any": lambda value: value is not ABSENT,
    "@digits": _matches(r"\d+"),
    "@guid": _matches(GUID),
    "@int": _is_int,
    "@null": lambda value: value is None,
    "@present": lambda value: value is not ABSENT and value is not None,
    "@string": lambda value: isinstance(value, str),
    "@time": _matches(TIME),
}


def is_kind(value: Any) -> bool:
    """Whether a value of a case is one of `KINDS`, or looks like one."""
    return isinstance(value, str) and value.startswith("@")


def text_pattern(text: str) -> Pattern[str]:
    """Compiles a text in which `<any>` and the like stand for what varies."""
    parts = PART.split(text)
    literal, names = parts[0::2], parts[1::2]
    pattern = re.escape(literal[0])
    for name, after in zip(names, literal[1:]):
        pattern += PARTS[name] + re.escape(after)
    return re.compile(pattern, re.DOTALL)


def fill(value: Any, bindings: Mapping[str, str]) -> Any:
    """Replaces the placeholders in all texts of a JSON value; a name without a binding is a KeyError."""
    if isinstance(value, str):
        return PLACEHOLDER.sub(lambda found: _bound(found.group(1), found.group(2), bindings), value)
    if isinstance(value, list):
        return [fill(one, bindings) for one in value]
    if isinstance(value, dict):
        return {fill(name, bindings): fill(one, bindings) for name, one in value.items()}
    return value


def _bound(name: str, simple: Any, bindings: Mapping[str, str]) -> str:
    value = bindings[name]
    return value.replace("-", "") if simple else value


def texts(value: Any) -> Iterator[str]:
    """All texts in a JSON value, names of fields included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from texts(one)
    elif isinstance(value, dict):
        for name, one in value.items():
            yield name
            yield from texts(one)


def shown(value: Any) -> str:
    """A value for a message, on one line."""
    return "nothing" if value is ABSENT else json.dumps(value, ensure_ascii=False)
