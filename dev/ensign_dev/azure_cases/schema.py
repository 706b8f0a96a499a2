"""What a case may consist of."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Sequence, Set, Tuple

from .values import KINDS, PART, PARTS, PLACEHOLDER, is_kind, texts

AREAS = ("arm-msi", "arm-authorization", "arm-front", "arm-resources", "entra")
EVIDENCE = ("recorded", "spec", "documented", "reported")
METHODS = ("GET", "PUT", "PATCH", "POST", "DELETE", "HEAD")
# Settings of a case's `given` that are numbers or switches.
NUMBERS = (
    "writeLatencyMs", "propagationSeconds", "principalReplicationSeconds", "rolePropagationSeconds", "readLagSeconds",
    "readReplicas",
)
SWITCHES = ("publishedLimits",)
LISTS = ("unregisteredProviders",)
PLACEHOLDERS = (
    "subscription", "group", "tenant", "location", "identities", "new", "absent", "guid", "guid2", "absentGuid",
    "clientId", "identityName", "issuer", "issuer.badkeys", "issuer.unreachable", "caller.clientId", "caller.objectId",
    "otherSubscription", "otherTenant",
)
RIGHTS = ("none", "read", "all")
CLAIMS = ("iss", "sub", "aud", "exp", "iat", "nbf", "jti")
FORM_FIELDS = ("client_id", "scope", "grant_type", "client_assertion_type", "client_assertion", "client_secret")
# What a change can make, and the fields that it may have beside its scope.
CHANGES: Dict[str, Tuple[str, ...]] = {"lock": ("level",), "denyPolicy": ("name", "resourceType")}
LEVELS = ("CanNotDelete", "ReadOnly")
STEPS = ("request", "parallel", "burst", "change", "manual")
ARM_ERROR = ("code", "message", "target", "details", "additionalInfo")
# Checks of one answer, by the name of the field in `expect`.
ANSWER = (
    "status", "error", "aadsts", "aadstsOneOf", "messageStarts", "body", "exact", "bodyContains", "bodyKeys", "hasKeys",
    "bodyEmpty", "count", "headers",
)


class Checker:
    """Collects what is wrong with a case."""

    def __init__(self) -> None:
        self.problems: List[str] = []
        self._names: Set[str] = set(PLACEHOLDERS)

    def case(self, document: Any) -> None:
        """Checks a whole case."""
        if not self._object(document, "the case", ("id", "area", "evidence", "source", "steps"), ("note", "given")):
            return
        self._text(document["id"], "id")
        self._one_of(document["area"], "area", AREAS)
        self._one_of(document["evidence"], "evidence", EVIDENCE)
        self._list(document["source"], "source", self._text)
        self._text(document.get("note", "-"), "note")
        self._given(document.get("given", {}))
        self._list(document["steps"], "step", self._step)

    def _given(self, given: Any) -> None:
        if not self._object(given, "given", (), (*NUMBERS, *SWITCHES, *LISTS, "trust")):
            return
        for name in NUMBERS:
            self._of_type(given.get(name, 0), f"given.{name}", int)
        for name in SWITCHES:
            self._of_type(given.get(name, True), f"given.{name}", bool)
        for name in LISTS:
            if name in given:
                self._list(given[name], f"given.{name}", self._text)
        if "trust" in given and self._object(given["trust"], "given.trust", ("issuer", "subject"), ("audience",)):
            for name, value in given["trust"].items():
                self._text(value, f"given.trust.{name}")
            self._placeholders(given["trust"], "given.trust")

    def _step(self, step: Any, where: str) -> None:
        kinds = [kind for kind in STEPS if isinstance(step, dict) and kind in step]
        if len(kinds) != 1:
            self._add(where, f"needs exactly one of {', '.join(STEPS)}")
            return
        needed: Dict[str, Sequence[str]] = {"request": ("expect",), "parallel": ("expect",), "burst": ("expect", "count")}
        optional = ("save",) if kinds[0] == "request" else ()
        if self._object(step, where, (kinds[0], *needed.get(kinds[0], ())), optional):
            getattr(self, f"_{kinds[0]}")(step, where)

    def _request(self, step: Mapping[str, Any], where: str) -> None:
        self._one_request(step["request"], f"{where}.request")
        self._answer(step["expect"], f"{where}.expect")
        save = step.get("save", {})
        if self._object(save, f"{where}.save", (), tuple(save) if isinstance(save, dict) else ()):
            for name, path in save.items():
                self._text(path, f"{where}.save.{name}")
                if not PLACEHOLDER.fullmatch("{" + name + "}"):
                    self._add(f"{where}.save", f"{name!r} is not a name of a placeholder")
                self._names.add(name)

    def _parallel(self, step: Mapping[str, Any], where: str) -> None:
        self._list(step["parallel"], f"{where}.parallel", self._one_request)
        expect = step["expect"]
        if self._object(expect, f"{where}.expect", ("oneOf", "others"), ()):
            self._status(expect["oneOf"], f"{where}.expect.oneOf")
            self._answer(expect["others"], f"{where}.expect.others")

    def _burst(self, step: Mapping[str, Any], where: str) -> None:
        self._one_request(step["burst"], f"{where}.burst")
        self._of_type(step["count"], f"{where}.count", int)
        if self._object(step["expect"], f"{where}.expect", ("last",), ()):
            self._answer(step["expect"]["last"], f"{where}.expect.last")

    def _change(self, step: Mapping[str, Any], where: str) -> None:
        change, at = step["change"], f"{where}.change"
        if not self._object(change, at, (), tuple(CHANGES)):
            return
        if len(change) != 1:
            self._add(at, f"needs exactly one of {', '.join(CHANGES)}")
        for name, value in change.items():
            if isinstance(value, str):
                self._text(value, f"{at}.{name}")
            elif self._object(value, f"{at}.{name}", ("scope",), CHANGES[name]):
                for field, text in value.items():
                    self._text(text, f"{at}.{name}.{field}")
                self._one_of(value.get("level", LEVELS[0]), f"{at}.{name}.level", LEVELS)
        self._placeholders(change, at)

    def _manual(self, step: Mapping[str, Any], where: str) -> None:
        self._text(step["manual"], f"{where}.manual")

    # Requests

    def _one_request(self, request: Any, where: str) -> None:
        if isinstance(request, dict) and "token" in request:
            if self._object(request, where, ("token",), ()):
                self._token(request["token"], f"{where}.token")
        elif isinstance(request, dict) and "authority" in request:
            if self._object(request, where, ("authority",), ()):
                self._path(request["authority"], f"{where}.authority")
        elif self._object(request, where, ("method", "path"), ("apiVersion", "body", "auth")):
            self._one_of(request["method"], f"{where}.method", METHODS)
            self._path(request["path"], f"{where}.path")
            if request.get("apiVersion") is not None:
                self._text(request["apiVersion"], f"{where}.apiVersion")
            if "auth" in request:
                self._auth(request["auth"], f"{where}.auth")
        self._placeholders(request, where)

    def _path(self, path: Any, where: str) -> None:
        self._text(path, where)
        if isinstance(path, str) and not path.startswith(("/", "{identities}")):
            self._add(where, f"{path!r} does not start with / or {{identities}}")

    def _auth(self, auth: Any, where: str) -> None:
        if auth == "none":
            return
        if isinstance(auth, str):
            self._add(where, f'{auth!r} is neither "none" nor an object')
        elif self._object(auth, where, (), ("rights", "audience")):
            if not auth:
                self._add(where, "needs rights or audience")
            if "audience" in auth:
                self._text(auth["audience"], f"{where}.audience")
            if isinstance(auth.get("rights"), list):
                self._list(auth["rights"], f"{where}.rights", self._text)
            elif "rights" in auth:
                self._one_of(auth["rights"], f"{where}.rights", RIGHTS)

    def _token(self, token: Any, where: str) -> None:
        if not self._object(token, where, (), ("assertion", "tenant", "omit", *FORM_FIELDS)):
            return
        for name in ("tenant", *FORM_FIELDS):
            self._text(token.get(name, "-"), f"{where}.{name}")
        for name in token.get("omit", []):
            self._one_of(name, f"{where}.omit", FORM_FIELDS)
        assertion = token.get("assertion", {})
        if isinstance(assertion, str):
            self._text(assertion, f"{where}.assertion")
        elif self._object(assertion, f"{where}.assertion", (), (*CLAIMS, "kid", "alg")):
            for name in ("exp", "iat", "nbf"):
                if assertion.get(name) is not None:
                    self._of_type(assertion[name], f"{where}.assertion.{name}", int)

    # Expected answers

    def _answer(self, expect: Any, where: str) -> None:
        if not self._object(expect, where, ("status",), ANSWER):
            return
        self._status(expect["status"], f"{where}.status")
        self._error(expect, where)
        if "exact" in expect and ("body" not in expect or expect["exact"] is not True):
            self._add(where, "exact is true, and belongs to body")
        if expect.get("bodyEmpty", True) is not True:
            self._add(where, "bodyEmpty is true if it is there")
        for name in ("bodyKeys", "hasKeys"):
            if name in expect:
                self._list(expect[name], f"{where}.{name}", self._text)
        self._of_type(expect.get("count", 0), f"{where}.count", int)
        headers = expect.get("headers", {})
        if self._object(headers, f"{where}.headers", (), tuple(headers) if isinstance(headers, dict) else ()):
            for name, value in headers.items():
                self._text(value, f"{where}.headers.{name}")
        self._placeholders(expect, where)
        self._values(expect, where)

    def _error(self, expect: Mapping[str, Any], where: str) -> None:
        error = expect.get("error", "-")
        if isinstance(error, str):
            self._text(error, f"{where}.error")
        elif self._object(error, f"{where}.error", (), ARM_ERROR):
            if not error:
                self._add(f"{where}.error", "is empty")
            code = error.get("code", "-")
            for one in code if isinstance(code, list) else [code]:
                self._text(one, f"{where}.error.code")
            self._text(error.get("message", "-"), f"{where}.error.message")
        if "aadsts" in expect and self._object(expect["aadsts"], f"{where}.aadsts", ("code",), ("error", "message")):
            self._of_type(expect["aadsts"]["code"], f"{where}.aadsts.code", int)
            for name in ("error", "message"):
                self._text(expect["aadsts"].get(name, "-"), f"{where}.aadsts.{name}")
        if "aadstsOneOf" in expect:
            self._list(expect["aadstsOneOf"], f"{where}.aadstsOneOf", lambda one, at: self._of_type(one, at, int))
        self._text(expect.get("messageStarts", "-"), f"{where}.messageStarts")

    def _status(self, status: Any, where: str) -> None:
        for one in status if isinstance(status, list) and status else [status]:
            is_class = isinstance(one, str) and len(one) == 3 and one[0] in "12345" and one[1:] == "xx"
            is_number = isinstance(one, int) and not isinstance(one, bool) and 100 <= one < 600
            if not is_class and not is_number:
                self._add(where, f"{one!r} is not a status")

    def _values(self, expect: Mapping[str, Any], where: str) -> None:
        for text in texts(expect):
            if is_kind(text) and text not in KINDS:
                self._add(where, f"{text} is unknown; known: {' '.join(KINDS)}")
            for name in PART.findall(text):
                if name not in PARTS:
                    self._add(where, f"<{name}> is unknown; known: {' '.join(f'<{part}>' for part in PARTS)}")

    def _placeholders(self, value: Any, where: str) -> None:
        for text in texts(value):
            for found in PLACEHOLDER.finditer(text):
                if found.group(1) not in self._names:
                    self._add(where, f"{found.group(0)} is neither a placeholder nor saved by an earlier step")

    # Shared code

    def _add(self, where: str, problem: str) -> None:
        self.problems.append(f"{where}: {problem}")

    def _object(self, value: Any, where: str, needed: Sequence[str], optional: Sequence[str]) -> bool:
        if not isinstance(value, dict):
            self._add(where, "is not an object")
            return False
        unknown = [name for name in value if name not in needed and name not in optional]
        missing = [name for name in needed if name not in value]
        if unknown:
            self._add(where, f"has unknown fields: {', '.join(unknown)}")
        if missing:
            self._add(where, f"lacks {', '.join(missing)}")
        return not missing and not unknown

    def _list(self, value: Any, where: str, check: Callable[[Any, str], None]) -> None:
        if not isinstance(value, list) or not value:
            self._add(where, "is not a list with at least one entry")
            return
        for number, one in enumerate(value, 1):
            check(one, f"{where} {number}")

    def _text(self, value: Any, where: str) -> None:
        if not isinstance(value, str) or not value:
            self._add(where, "is not a text")

    def _of_type(self, value: Any, where: str, kind: type) -> None:
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self._add(where, f"is not {'a number' if kind is int else 'true or false'}")

    def _one_of(self, value: Any, where: str, known: Sequence[Any]) -> None:
        if value not in known:
            self._add(where, f"{value!r} is unknown; known: {', '.join(map(str, known))}")
