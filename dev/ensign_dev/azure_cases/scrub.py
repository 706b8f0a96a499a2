"""Keeps out of recorded cases what tells whose they are, or varies: IDs, tokens, addresses, names and times."""

from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, Pattern, Set, Tuple

from .values import GUID, PART, PLACEHOLDER, TIME, texts

# Claims of a token that identify a person, a program or a device.
IDENTIFYING_CLAIMS = (
    "tid", "oid", "appid", "azp", "sub", "upn", "unique_name", "preferred_username", "name", "email", "given_name",
    "family_name", "ipaddr", "puid", "uti", "rh", "sid", "deviceid", "onprem_sid", "app_displayname", "xms_mirid",
)
SHORTEST_SECRET = 5

BARE_GUID = re.compile(r"(?<![0-9a-zA-Z])[0-9a-fA-F]{32}(?![0-9a-zA-Z])")
ADDRESS = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])(?::\d+)?|(?<![\w:])(?:[0-9a-fA-F]{1,4}:){4,}[0-9a-fA-F:]*")
MAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+")
TOKEN = re.compile(r"eyJ[\w-]{8,}[\w.-]*")
DATE = re.compile(
    r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)?"
    r"|(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT"
    r"|\d{1,2}/\d{1,2}/\d{4}(?: \d{1,2}:\d\d:\d\d(?: [AP]M)?)?"
)
LONG_RANDOM = re.compile(r"(?<![\w/+-])(?=[\w+/-]*\d)(?=[\w+/-]*[a-zA-Z])[\w+-]{40,}={0,2}")
# What is replaced, and what stands for it; the order matters.
VARYING: Tuple[Tuple[Pattern[str], str], ...] = (
    (TOKEN, "<any>"),
    (re.compile(rf"(?<![0-9a-fA-F-]){GUID}(?![0-9a-fA-F-])"), "<guid>"),
    (BARE_GUID, "<any>"),
    (re.compile(TIME), "<time>"),
    (DATE, "<any>"),
    (MAIL, "<any>"),
    (ADDRESS, "<any>"),
    (LONG_RANDOM, "<any>"),
)
WHOLE = ((re.compile(GUID), "@guid"), (re.compile(TIME), "@time"))


class Scrubber:
    """Replaces what is known by placeholders, and all else that varies or identifies by what stands for it."""

    def __init__(self, bindings: Mapping[str, str], secrets: Mapping[str, str], literal: Any) -> None:
        """`secrets` maps what something is to the text; what the case itself says, `literal`, stays."""
        named = [(value, "{" + name + "}") for name, value in bindings.items()]
        named += [
            (value.replace("-", ""), "{" + name + ":simple}")
            for name, value in bindings.items()
            if re.fullmatch(GUID, value)
        ]
        # The longest first, because one may be a part of another.
        self._named = sorted(((value, name) for value, name in named if value), key=lambda pair: -len(pair[0]))
        self._secrets = sorted((text for text in secrets.values() if len(text) >= SHORTEST_SECRET), key=len, reverse=True)
        self._kept = literals(literal)

    def value(self, value: Any) -> Any:
        """A JSON value of an answer as a case may have it."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(one) for one in value]
        if isinstance(value, dict):
            return {self._replaced(name): self.value(one) for name, one in value.items()}
        return value

    def text(self, text: str) -> str:
        """A text of an answer as a case may have it."""
        if text not in self._kept:
            for pattern, kind in WHOLE:
                if pattern.fullmatch(text) and not any(text == value for value, _ in self._named):
                    return kind
        # What a case would read as something else.
        text = PLACEHOLDER.sub("<any>", PART.sub("<any>", text))
        text = self._replaced(f"<any>{text[1:]}" if text.startswith("@") else text)
        for pattern, part in VARYING:
            text = pattern.sub(lambda found: found.group() if found.group() in self._kept else part, text)
        return re.sub(r"(?:<any>)+", "<any>", text)

    def _replaced(self, text: str) -> str:
        for value, name in self._named:
            # Not a part of a word: a region's name may be the start of another's.
            text = re.sub(rf"(?<![0-9A-Za-z]){re.escape(value)}(?![0-9A-Za-z])", lambda _: name, text)
        for secret in self._secrets:
            text = re.sub(re.escape(secret), "<any>", text, flags=re.IGNORECASE)
        return text


def literals(document: Any) -> Set[str]:
    """GUIDs, times and the like that a case has itself, so that they are no secret."""
    found: Set[str] = set()
    for text in texts(document):
        for pattern, _ in VARYING:
            found.update(match.group() for match in pattern.finditer(text))
    return found


def identifying(claims: Mapping[str, Any]) -> Dict[str, str]:
    """The texts of a token's claims that must not be published."""
    found: Dict[str, str] = {}
    for name, value in claims.items():
        if isinstance(value, str) and (name in IDENTIFYING_CLAIMS or re.search(GUID, value) or MAIL.search(value)):
            found[f"the token's claim {name}"] = value
            for number, guid in enumerate(re.findall(GUID, value)):
                found[f"the token's claim {name} ({number})"] = guid
    return found


def leaks(text: str, secrets: Mapping[str, str], original: Any) -> List[str]:
    """What is in a written case and must not be: named, and not repeated."""
    found = []
    lower = text.lower()
    for what, secret in secrets.items():
        forms = {secret.lower(), secret.lower().replace("-", "")} if len(secret) >= SHORTEST_SECRET else set()
        # Parts of a token are as bad as all of it.
        forms.update(part for part in secret.lower().split(".") if len(part) >= 16)
        if any(form in lower for form in forms):
            found.append(what)
    kept = literals(original)
    for pattern, what in (
        (TOKEN, "a token"), (re.compile(GUID), "a GUID"), (BARE_GUID, "a GUID without hyphens"),
        (MAIL, "a mail address"), (ADDRESS, "an IP address"), (DATE, "a time"),
    ):
        if any(match.group() not in kept for match in pattern.finditer(text)):
            found.append(what)
    return found
