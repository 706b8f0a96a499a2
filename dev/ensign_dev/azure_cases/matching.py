"""Compares an answer with what a case expects."""

from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, Sequence

from .values import ABSENT, KINDS, shown, text_pattern
from .wire import Answer

# Texts are cut in messages, so that one difference stays one readable line.
LONGEST_SHOWN = 600
# Never shown, not even that of a test.
TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*")
# What Entra appends to every message.
TRAILING_IDS = re.compile(r"\s*Trace ID: \S+\s+Correlation ID: \S+\s+Timestamp: [\d:\- ]+Z\s*\Z")


class Difference:
    """One place in which an answer is not as expected."""

    def __init__(self, where: str, expected: Any, got: Any) -> None:
        self.where = where
        self.expected = expected
        self.got = got

    def __str__(self) -> str:
        return f"{self.where}: expected {_cut(self.expected)}, got {_cut(self.got)}"


class Shape:
    """How JSON is compared: whether other fields are allowed, and other entries of lists."""

    def __init__(self, more_fields: bool, more_entries: bool) -> None:
        self.more_fields = more_fields
        self.more_entries = more_entries


EXACT = Shape(more_fields=False, more_entries=False)
BODY = Shape(more_fields=True, more_entries=False)
CONTAINS = Shape(more_fields=True, more_entries=True)


def compare(expect: Mapping[str, Any], answer: Answer) -> List[Difference]:
    """Compares an answer with an `expect` whose placeholders are filled."""
    found = _status(expect["status"], answer)
    if found and is_success(expect["status"]) != is_success(answer.status):
        # Everything else follows from that.
        return found
    body = answer.json()
    found += _errors(expect, body, answer)
    if "body" in expect:
        found += differences(expect["body"], body, "body", EXACT if expect.get("exact") else BODY)
    if "bodyContains" in expect:
        found += differences(expect["bodyContains"], body, "body", CONTAINS)
    found += _keys(expect, body)
    if "bodyEmpty" in expect and answer.body:
        found.append(Difference("body", ABSENT, answer.text()))
    if "count" in expect:
        entries = body.get("value") if isinstance(body, dict) else body
        got = len(entries) if isinstance(entries, list) else ABSENT
        found += differences(expect["count"], got, "number of entries", EXACT)
    for name, value in expect.get("headers", {}).items():
        found += differences(value, answer.headers.get(name.lower(), ABSENT), f"header {name}", EXACT)
    return found


def is_status(expected: Any, status: int) -> bool:
    """Whether a status is the expected one, or one of several, or of a class such as "4xx"."""
    if isinstance(expected, list):
        return any(is_status(one, status) for one in expected)
    return expected == (f"{status // 100}xx" if isinstance(expected, str) else status)


def is_success(status: Any) -> bool:
    """Whether a status, or the first of several, is one of success."""
    return str(_several(status)[0]).startswith("2")


def _status(expected: Any, answer: Answer) -> List[Difference]:
    if is_status(expected, answer.status):
        return []
    got = f"{answer.status} {_cut_text(answer.text())}".strip()
    return [Difference("status", _Words(" or ".join(map(str, _several(expected)))), _Words(got))]


def _errors(expect: Mapping[str, Any], body: Any, answer: Answer) -> List[Difference]:
    found: List[Difference] = []
    error = expect.get("error")
    if isinstance(error, dict):
        found += _arm_error(error, body, answer)
    elif error is not None:
        found += differences(error, body.get("error", ABSENT) if isinstance(body, dict) else ABSENT, "error", EXACT)
    if "aadsts" in expect:
        found += _entra_error(expect["aadsts"], body, answer)
    if "aadstsOneOf" in expect:
        allowed = expect["aadstsOneOf"]
        codes = body.get("error_codes", ABSENT) if isinstance(body, dict) else ABSENT
        if not isinstance(codes, list) or len(codes) != 1 or codes[0] not in allowed:
            found.append(Difference("error_codes", _Words(f"one of {allowed}"), codes))
    if "messageStarts" in expect:
        found += _start_of_message(expect["messageStarts"], body, answer)
    return found


def _arm_error(expected: Mapping[str, Any], body: Any, answer: Answer) -> List[Difference]:
    error = body.get("error", ABSENT) if isinstance(body, dict) else ABSENT
    if not isinstance(error, dict):
        return [Difference("error", _Words("ARM's envelope"), answer.text())]
    found: List[Difference] = []
    for name, value in expected.items():
        got = error.get(name, ABSENT)
        if name == "code" and isinstance(value, list):
            if got not in value:
                found.append(Difference("error.code", _Words(" or ".join(map(shown, value))), got))
        else:
            found += differences(value, got, f"error.{name}", CONTAINS)
    return found


def _entra_error(expected: Mapping[str, Any], body: Any, answer: Answer) -> List[Difference]:
    if not isinstance(body, dict) or "error_codes" not in body:
        return [Difference("error_codes", [expected["code"]], answer.text())]
    found = differences([expected["code"]], body["error_codes"], "error_codes", EXACT)
    if "error" in expected:
        found += differences(expected["error"], body.get("error", ABSENT), "error", EXACT)
    if "message" in expected:
        text = f"AADSTS{expected['code']}: {expected['message']}"
        found += differences(text, _description(body), "error_description", EXACT)
    return found


def _start_of_message(start: str, body: Any, answer: Answer) -> List[Difference]:
    """The start of ARM's or Entra's message; before the latter is the code."""
    message = ABSENT
    if isinstance(body, dict):
        error = body.get("error")
        message = error.get("message", ABSENT) if isinstance(error, dict) else _description(body)
    text = re.sub(r"\AAADSTS\d+: ", "", message) if isinstance(message, str) else answer.text()
    is_same = text_pattern(start + "<any>").fullmatch(text) is not None
    return [] if is_same else [Difference("message", _Words(f"one that starts with {shown(start)}"), text)]


def _description(body: Mapping[str, Any]) -> Any:
    """Entra's message without the IDs and the time at its end."""
    description = body.get("error_description", ABSENT)
    return without_ids(description) if isinstance(description, str) else description


def without_ids(description: str) -> str:
    """A message of Entra without what is different each time."""
    return TRAILING_IDS.sub("", description)


def _keys(expect: Mapping[str, Any], body: Any) -> List[Difference]:
    found: List[Difference] = []
    got = set(body) if isinstance(body, dict) else set()
    for name in sorted(set(expect.get("hasKeys", ())) - got):
        found.append(Difference(f"body.{name}", _Words("a field"), ABSENT))
    if "bodyKeys" in expect:
        wanted = set(expect["bodyKeys"])
        for name in sorted(wanted - got):
            found.append(Difference(f"body.{name}", _Words("a field"), ABSENT))
        for name in sorted(got - wanted):
            found.append(Difference(f"body.{name}", ABSENT, _Words("a field")))
    return found


def differences(expected: Any, got: Any, where: str, shape: Shape) -> List[Difference]:
    """Compares two JSON values; `got` may be ABSENT."""
    if isinstance(expected, str):
        if expected in KINDS:
            return [] if KINDS[expected](got) else [Difference(where, _Words(expected), got)]
        is_same = isinstance(got, str) and text_pattern(expected).fullmatch(got) is not None
    elif isinstance(expected, dict) and isinstance(got, dict):
        return _fields(expected, got, where, shape)
    elif isinstance(expected, list) and isinstance(got, list):
        return _entries(expected, got, where, shape)
    else:
        # In Python, True equals 1.
        is_same = expected == got and isinstance(expected, bool) == isinstance(got, bool)
    return [] if is_same else [Difference(where, expected, got)]


def _fields(expected: Mapping[str, Any], got: Mapping[str, Any], where: str, shape: Shape) -> List[Difference]:
    found: List[Difference] = []
    for name, value in expected.items():
        found += differences(value, got.get(name, ABSENT), f"{where}.{name}", shape)
    if not shape.more_fields:
        found += [Difference(f"{where}.{name}", ABSENT, value) for name, value in got.items() if name not in expected]
    return found


def _entries(expected: Sequence[Any], got: Sequence[Any], where: str, shape: Shape) -> List[Difference]:
    """Compares lists whatever their order."""
    partners = _pairs(expected, got, where, shape)
    left = [entry for index, entry in enumerate(expected) if index not in partners.values()]
    extra = [entry for index, entry in enumerate(got) if index not in partners]
    found: List[Difference] = []
    while left and extra:
        # The most similar ones, so that the difference is small.
        nearest = min(extra, key=lambda entry: len(differences(left[0], entry, where, shape)))
        extra.remove(nearest)
        found += differences(left.pop(0), nearest, f"{where}[]", shape)
    found += [Difference(f"{where}[]", entry, ABSENT) for entry in left]
    if not shape.more_entries:
        found += [Difference(f"{where}[]", ABSENT, entry) for entry in extra]
    return found


def _pairs(expected: Sequence[Any], got: Sequence[Any], where: str, shape: Shape) -> Dict[int, int]:
    """A largest set of pairs of equal entries: the index in `got`, and that in `expected`."""
    equal = [[not differences(one, other, where, shape) for other in got] for one in expected]
    partners: Dict[int, int] = {}

    def assign(index: int, tried: "set[int]") -> bool:
        for other, is_equal in enumerate(equal[index]):
            if is_equal and other not in tried:
                tried.add(other)
                if other not in partners or assign(partners[other], tried):
                    partners[other] = index
                    return True
        return False

    for index in range(len(expected)):
        assign(index, set())
    return partners


class _Words:
    """A text for people, which is shown without quotes."""

    def __init__(self, text: str) -> None:
        self.text = text


def plain(value: Any) -> Any:
    """An expected or received value of a difference as JSON; None if it is absent."""
    if value is ABSENT:
        return None
    return value.text if isinstance(value, _Words) else value


def _several(value: Any) -> List[Any]:
    return value if isinstance(value, list) else [value]


def _cut(value: Any) -> str:
    return _cut_text(value.text if isinstance(value, _Words) else shown(value))


def _cut_text(text: str) -> str:
    text = TOKEN.sub("<token>", re.sub(r"\s*\n\s*", " ", text))
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
