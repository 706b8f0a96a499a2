"""Which cases can be replayed on Azure without harm, and how what differs becomes a case."""

from __future__ import annotations

import copy
import time
from typing import Any, Callable, Collection, Dict, List, Mapping, Optional, Tuple

from ..failure import Failure
from .azure import AzureTarget, PoliteEndpoint
from .case import Case, check
from .matching import CONTAINS, EXACT, Difference, compare, differences, is_success, without_ids
from .run import CaseRun
from .scrub import Scrubber
from .values import ABSENT
from .wire import Answer

BURSTS, LOCKS = "bursts", "locks"
INCLUDABLE = (BURSTS, LOCKS)
# Delays that only the emulator can be told to have.
EMULATED = ("propagationSeconds", "principalReplicationSeconds", "rolePropagationSeconds", "readLagSeconds", "readReplicas")
# Entra gives these answers before it reads the keys of an issuer.
BEFORE_KEYS = (7000216, 700016, 70025, 700211, 700212, 700213, 7002138, 90002)
GROUP = "/subscriptions/{subscription}/resourcegroups/{group}"
# What may be read outside of the group: it is the same for everybody, or nothing.
PUBLIC = (
    "/metadata/",
    "/subscriptions/{subscription}/providers/microsoft.authorization/roledefinitions",
    "/subscriptions/{subscription}/resourcegroups/{absent}",
)
# Lists that contain what others made, unless they are filtered.
SHARED_LISTS = ("/roledefinitions", "/roleassignments", "/locks", "/policyassignments")
SETTLE_PAUSE_SECONDS = 5.0
# Answers that tell of the caller's rights, token or subscription.
OF_THE_CALLER = (
    "AuthorizationFailed", "LinkedAuthorizationFailed", "DenyAssignmentAuthorizationFailed", "RequestDisallowedByPolicy",
    "MissingSubscriptionRegistration", "ReadOnlyDisabledSubscription", "SubscriptionNotFound", "ScopeLocked",
    "ExpiredAuthenticationToken", "InvalidAuthenticationToken", "InvalidAuthenticationTokenTenant", "Directory_QuotaExceeded",
)
# Azure answers this to a write that has to be tried again later.
LATER = ("PrincipalNotFound", "MS Graph resource not found")


def skipped(case: Case, include: Collection[str]) -> Optional[str]:
    """Why a case is not replayed; None if it is."""
    if case.is_manual:
        return "nothing to ask"
    if any("denyPolicy" in change for change in case.changes):
        return "a policy definition is not in the resource group"
    if case.changes and LOCKS not in include:
        return f"makes a lock, which stays if this program is killed; --include {LOCKS}"
    if any("burst" in step for step in case.steps) and BURSTS not in include:
        return f"provokes throttling, which others notice too; --include {BURSTS}"
    if any("parallel" in step for step in case.steps):
        return "which of several requests wins is chance"
    if any(name in case.given for name in EMULATED):
        return "Azure's delays can't be chosen"
    if "unregisteredProviders" in case.given:
        return "a subscription where providers are not registered is needed"
    if any("{other" in request.get("path", "") for request in case.requests()):
        return "a subscription of another tenant is needed"
    if any(isinstance(request.get("auth"), dict) for request in case.requests()):
        return "needs a caller with other rights or another token"
    outside = [request for request in case.requests() if "method" in request and not _is_inside(request)]
    if outside:
        return f"{outside[0]['method']} {outside[0]['path']} is outside of the resource group"
    lists = [request["path"] for request in case.requests() if "method" in request and _lists_others(request)]
    if lists:
        return f"{lists[0]} lists what others made"
    if any(_needs_keys(case, step) for step in case.steps):
        return "needs an issuer that the internet can reach"
    return None


def _is_inside(request: Mapping[str, Any]) -> bool:
    path = request["path"].partition("?")[0].replace("{identities}", f"{GROUP}/providers/identities").lower()
    if any(part in (".", "..") for part in path.replace("%2e", ".").split("/")):
        return False
    return path.startswith(f"{GROUP}/") or (request["method"] == "GET" and path.startswith((*PUBLIC, GROUP)))


def _lists_others(request: Mapping[str, Any]) -> bool:
    path, _, query = request["path"].partition("?")
    return path.rstrip("/").lower().endswith(SHARED_LISTS) and " eq " not in query


def _needs_keys(case: Case, step: Mapping[str, Any]) -> bool:
    if "token" not in step.get("request", {}):
        return False
    if case.given.get("trust", {}).get("issuer") == "{issuer.unreachable}":
        return False
    return step["expect"].get("aadsts", {}).get("code") not in BEFORE_KEYS


def writes(case: Case) -> List[str]:
    """What a case writes, with its placeholders."""
    found = [_write(request) for request in case.requests() if request.get("method", "GET") != "GET"]
    if case.uses_workload:
        found.append("PUT {identities}/{identityName}")
    if "trust" in case.given:
        found.append("PUT {identities}/{identityName}/federatedIdentityCredentials/trust")
    return list(dict.fromkeys(found))


def _write(request: Mapping[str, Any]) -> str:
    body = request.get("body")
    properties = body.get("properties") if isinstance(body, dict) else None
    role = properties.get("roleDefinitionId") if isinstance(properties, dict) else None
    with_role = f" (role {role.rsplit('/', 1)[-1]})" if isinstance(role, str) else ""
    return f"{request['method']} {request['path']}{with_role}"


def _require_fact(answer: Answer) -> None:
    """Fails if an answer tells of this caller or this subscription, and not of Azure."""
    body = answer.json()
    error = body.get("error") if isinstance(body, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    if code in OF_THE_CALLER:
        raise Failure(f"{answer.status} {answer.text()}")


class Replay(CaseRun):
    """A case asked of Azure, whose writes take a while to be seen everywhere."""

    def __init__(
        self, case: Case, target: AzureTarget, settle_seconds: float, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        super().__init__(case, target)
        self._settle_seconds = settle_seconds
        self._sleep = sleep

    def ask(self, request: Mapping[str, Any], expect: Mapping[str, Any]) -> Tuple[Answer, List[Difference]]:
        """Asks again for a while if the answer differs and asking changes nothing."""
        deadline = time.monotonic() + self._settle_seconds
        while True:
            answer, found = super().ask(request, expect)
            is_repeatable = request.get("method", "GET") == "GET" or any(word in answer.text() for word in LATER)
            if found:
                _require_fact(answer)
            if not found or not is_repeatable or time.monotonic() >= deadline:
                return answer, found
            self._sleep(SETTLE_PAUSE_SECONDS)

    def burst(
        self, request: Mapping[str, Any], count: int, expect: Mapping[str, Any]
    ) -> Tuple[Answer, List[Difference]]:
        endpoint = self.arm
        if isinstance(endpoint, PoliteEndpoint):
            endpoint.is_patient = False
        for _ in range(count - 1):
            self.send(request)
        answer, found = super().ask(request, expect)
        if isinstance(endpoint, PoliteEndpoint):
            endpoint.is_patient = True
        return answer, found

    @property
    def failure(self) -> Optional[str]:
        """Why the case could not be asked to its end, if so."""
        failed = [str(one) for one in self.found if one.difference.where == "no answer"]
        return failed[0] if failed else None

    def recorded(self, scrubber: Scrubber, source: str) -> Dict[str, Any]:
        """The case as Azure answered it: only the expectations that differ are replaced."""
        document: Dict[str, Any] = copy.deepcopy(dict(self.case.document))
        document.update(evidence="recorded", source=[source])
        for number in sorted({one.step for one in self.found}):
            step = document["steps"][number - 1]
            expect = step["expect"]["last"] if "burst" in step else step["expect"]
            new = expectation(expect, self.fill(expect), self.answers[number], scrubber)
            if "burst" in step:
                step["expect"] = {"last": new}
            else:
                step["expect"] = new
        return document

    def problems_of(self, document: Mapping[str, Any]) -> List[str]:
        """What is wrong with a recorded case: it has to be valid, and to expect what was answered."""
        problems = check(document)
        if problems:
            return problems
        for number, answer in self.answers.items():
            step = document["steps"][number - 1]
            expect = step["expect"]["last"] if "burst" in step else step["expect"]
            problems += [f"step {number}: {one}" for one in compare(self.fill(expect), answer)]
        return problems


def expectation(old: Mapping[str, Any], filled: Mapping[str, Any], answer: Answer, scrubber: Scrubber) -> Dict[str, Any]:
    """What a case has to expect instead, by the answer that it got; what was right stays as it was."""
    if is_success(old["status"]) != is_success(answer.status):
        new = {"status": answer.status, **_anew(answer, scrubber)}
    else:
        new = {}
        for name in old:
            if name not in ("exact", "headers"):
                new.update(_corrected(name, old, filled, answer, scrubber))
    if "headers" in old:
        new["headers"] = {
            name: _header(name, value, filled["headers"][name], answer, scrubber) for name, value in old["headers"].items()
        }
    return new


def _header(name: str, old: str, filled: str, answer: Answer, scrubber: Scrubber) -> str:
    got = answer.headers.get(name.lower(), ABSENT)
    value = merged(old, filled, got, scrubber)
    # Numbers in headers are counters, except for this one.
    is_counter = value == got and str(got).isdigit() and name.lower() != "content-length"
    return "@digits" if is_counter else str(value)


def _corrected(
    name: str, old: Mapping[str, Any], filled: Mapping[str, Any], answer: Answer, scrubber: Scrubber
) -> Dict[str, Any]:
    """One check of an answer: as it was, if the answer passes it."""
    together = (name, "exact") if name == "body" and "exact" in old else (name,)
    alone = {"status": answer.status, **{one: filled[one] for one in together}}
    if not compare(alone, answer):
        return {one: old[one] for one in together}
    body = answer.json()
    if name == "status":
        return {"status": answer.status}
    if name == "error" and isinstance(old["error"], dict) and isinstance(body, dict) and isinstance(body.get("error"), dict):
        return {"error": merged(old["error"], filled["error"], body["error"], scrubber, only_named=True)}
    if name == "bodyContains" and body is not ABSENT:
        return {name: merged(old[name], filled[name], body, scrubber, only_named=True)}
    if name == "body" and body is not ABSENT:
        only_named = "exact" not in old
        value = merged(old["body"], filled["body"], body, scrubber, only_named)
        return {"body": value} if only_named else {"body": value, "exact": True}
    if name in ("hasKeys", "bodyKeys") and isinstance(body, dict) and body:
        named = [key for key in old[name] if key in body]
        return {name: named if name == "hasKeys" and named else sorted(body)}
    if name == "count":
        entries = body.get("value") if isinstance(body, dict) else body
        if isinstance(entries, list):
            return {"count": len(entries)}
    return _anew(answer, scrubber)


def _anew(answer: Answer, scrubber: Scrubber) -> Dict[str, Any]:
    """What to expect of a body of which nothing is known."""
    body = answer.json()
    if not answer.body:
        return {"bodyEmpty": True}
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        return {"error": {name: scrubber.value(body["error"].get(name, "@absent")) for name in ("code", "message")}}
    if isinstance(body, dict) and isinstance(body.get("error_codes"), list) and len(body["error_codes"]) == 1:
        code = body["error_codes"][0]
        message = without_ids(str(body.get("error_description", ""))).removeprefix(f"AADSTS{code}: ")
        return {"aadsts": {"code": code, "error": scrubber.value(body.get("error")), "message": scrubber.text(message)}}
    return {} if body is ABSENT else {"body": scrubber.value(body), "exact": True}


def merged(old: Any, filled: Any, got: Any, scrubber: Scrubber, only_named: bool = False) -> Any:
    """What to expect of one value: as before where that was right, otherwise what came, scrubbed."""
    if not differences(filled, got, "", CONTAINS if only_named else EXACT):
        return old
    if got is ABSENT:
        return "@absent"
    if isinstance(old, dict) and isinstance(got, dict) and set(old) == set(filled):
        fields = {name: merged(old[name], filled[name], got.get(name, ABSENT), scrubber, only_named) for name in old}
        if only_named:
            return fields
        fields = {name: value for name, value in fields.items() if value != "@absent"}
        return {**fields, **scrubber.value({name: value for name, value in got.items() if name not in old})}
    return scrubber.value(got)
