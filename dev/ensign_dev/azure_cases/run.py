"""Asks what a case's steps ask, and compares the answers."""

from __future__ import annotations

import json
import secrets
import threading
import uuid
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from ..failure import Failure
from .case import Case
from .matching import Difference, compare, is_status
from .signing import claims_of
from .target import ARM_AUDIENCE, SUBJECT, TOKEN_AUDIENCE, Target, exchange, token_form
from .values import ABSENT, PLACEHOLDER, fill, texts
from .wire import Answer, Endpoint, with_query

# The API version with which the identity of a workload is created.
SETUP_VERSION = "2024-11-30"
PARALLEL_SECONDS = 60.0


class StepDifference:
    """A difference, and the step in which it is; step 0 is what `given` asks for."""

    def __init__(self, step: int, difference: Difference) -> None:
        self.step = step
        self.difference = difference

    def __str__(self) -> str:
        return f"step {self.step}: {self.difference}" if self.step else f"given: {self.difference}"


class CaseRun:
    """One case, asked of one target."""

    def __init__(self, case: Case, target: Target) -> None:
        self.case = case
        self.target = target
        self.bindings = bindings(case, target)
        self.found: List[StepDifference] = []
        # The answers that were compared, by the number of the step.
        self.answers: Dict[int, Answer] = {}
        self.arm = target.arm()
        self._authority = target.authority()

    def run(self) -> List[StepDifference]:
        """Asks everything; returns what differs."""
        try:
            if self._attempt(0, self._prepare):
                for number, step in enumerate(self.case.steps, 1):
                    if not self._attempt(number, lambda: self._step(number, step)):
                        break
        finally:
            self.arm.close()
            self._authority.close()
        return self.found

    def _attempt(self, number: int, act: Callable[[], List[Difference]]) -> bool:
        """Runs a step; returns false if the case can't go on."""
        try:
            self.found += [StepDifference(number, one) for one in act()]
        except Failure as failure:
            self.found.append(StepDifference(number, Difference("no answer", "an answer", str(failure))))
            return False
        return True

    def _prepare(self) -> List[Difference]:
        """Creates the identity of the workload, and the credential that `given` names."""
        if not self.case.uses_workload:
            return []
        name = self.bindings["identityName"]
        path = f"{self.bindings['identities']}/{name}"
        created = self._created(path, {"location": self.target.location})
        self.bindings["clientId"] = created["properties"]["clientId"]
        trust = self.fill(self.case.given.get("trust"))
        if trust:
            properties = {
                "issuer": trust["issuer"],
                "subject": trust["subject"],
                "audiences": [trust.get("audience", TOKEN_AUDIENCE)],
            }
            self._created(f"{path}/federatedIdentityCredentials/trust", {"properties": properties})
        return []

    def _created(self, path: str, body: Mapping[str, Any]) -> Dict[str, Any]:
        answer = self.send({"method": "PUT", "path": path, "apiVersion": SETUP_VERSION, "body": body})
        created = answer.json()
        if answer.status not in (200, 201) or not isinstance(created, dict):
            raise Failure(f"PUT {path}: {answer.status} {answer.text()}")
        return created

    def _step(self, number: int, step: Mapping[str, Any]) -> List[Difference]:
        if "request" in step:
            answer, found = self.ask(step["request"], step["expect"])
            self.answers[number] = answer
            self._save(step.get("save", {}), answer)
            return found
        if "parallel" in step:
            return self._parallel(step)
        if "burst" in step:
            answer, found = self.burst(step["burst"], step["count"], step["expect"]["last"])
            self.answers[number] = answer
            return found
        if "change" in step:
            self.target.change(self.fill(step["change"]))
        return []

    def _save(self, save: Mapping[str, str], answer: Answer) -> None:
        for name, path in save.items():
            value = at(answer.json(), path)
            if not isinstance(value, str):
                raise Failure(f"{path} is to be saved as {name}, and the answer has no such text")
            self.bindings[name] = value

    def _parallel(self, step: Mapping[str, Any]) -> List[Difference]:
        """Sends all requests at once: exactly one has to get a status of `oneOf`, the others the answer of `others`."""
        answers: List[Optional[Answer]] = [None] * len(step["parallel"])
        failures: List[str] = []
        ready = threading.Barrier(len(answers))

        def send(index: int, request: Mapping[str, Any], token: Optional[str]) -> None:
            endpoint = self.target.arm()
            try:
                endpoint.open()
                ready.wait(PARALLEL_SECONDS)
                answers[index] = self._arm_request(request, token, endpoint)
            except (Failure, threading.BrokenBarrierError) as error:
                ready.abort()
                failures.append(str(error) or type(error).__name__)
            finally:
                endpoint.close()

        threads = [
            threading.Thread(target=send, args=(index, self.fill(request), self._bearer(request)), daemon=True)
            for index, request in enumerate(step["parallel"])
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PARALLEL_SECONDS)
        complete = [answer for answer in answers if answer is not None]
        if failures or len(complete) != len(answers):
            raise Failure("; ".join(failures) or "a parallel request was not answered in time")
        expect = self.fill(step["expect"])
        others = [answer for answer in complete if not is_status(expect["oneOf"], answer.status)]
        found = [difference for answer in others for difference in compare(expect["others"], answer)]
        if len(others) != len(complete) - 1:
            statuses = [answer.status for answer in complete]
            found.append(Difference("statuses", f"one of {expect['oneOf']}, and others", statuses))
        return found

    def ask(self, request: Mapping[str, Any], expect: Mapping[str, Any]) -> Tuple[Answer, List[Difference]]:
        """Sends one request; returns the answer, and what differs."""
        answer = self.send(request)
        return answer, compare(self.fill(expect), answer)

    def burst(
        self, request: Mapping[str, Any], count: int, expect: Mapping[str, Any]
    ) -> Tuple[Answer, List[Difference]]:
        """Sends one request many times; returns the last answer, and what differs in it."""
        for _ in range(count - 1):
            self.send(request)
        return self.ask(request, expect)

    # Requests

    def send(self, request: Mapping[str, Any]) -> Answer:
        """Sends one request, whose placeholders are not filled yet."""
        token = self._bearer(request)
        request = self.fill(request)
        if "token" in request:
            return self._token_request(request["token"])
        if "authority" in request:
            return self._authority.send("GET", request["authority"], {})
        return self._arm_request(request, token, self.arm)

    def _arm_request(self, request: Mapping[str, Any], token: Optional[str], endpoint: Endpoint) -> Answer:
        headers: Dict[str, str] = {"accept": "application/json"}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        body = None
        if "body" in request:
            headers["content-type"] = "application/json"
            body = json.dumps(request["body"]).encode()
        elif request["method"] in ("PUT", "PATCH", "POST"):
            body = b""
        path = with_query(request["path"], api_version=request.get("apiVersion"))
        return endpoint.send(request["method"], path, headers, body)

    def _bearer(self, request: Mapping[str, Any]) -> Optional[str]:
        """The token of the caller, who gets known as `{caller.…}`."""
        auth = request.get("auth")
        if auth == "none" or "method" not in request:
            return None
        token = self.target.administrator()
        if isinstance(auth, dict):
            token = self.target.caller(auth.get("rights", "all"), auth.get("audience", ARM_AUDIENCE))
        claims = claims_of(token)
        for name, claim in (("caller.clientId", "appid"), ("caller.objectId", "oid")):
            if isinstance(claims.get(claim), str):
                self.bindings[name] = claims[claim]
        return token

    def _token_request(self, token: Mapping[str, Any]) -> Answer:
        trust = self.fill(self.case.given.get("trust")) or {}
        usual = {
            "iss": trust.get("issuer", self.target.issuer.url),
            "sub": trust.get("subject", SUBJECT),
            "aud": [trust.get("audience", TOKEN_AUDIENCE)],
        }
        changes = token.get("assertion", {})
        assertion = changes if isinstance(changes, str) else self.target.issuer.token({**usual, **changes})
        form = token_form(self.bindings["clientId"], assertion)
        form.update({name: value for name, value in token.items() if name not in ("assertion", "tenant", "omit")})
        for name in token.get("omit", ()):
            form.pop(name, None)
        return exchange(self._authority, token.get("tenant", self.target.tenant), form)

    def fill(self, value: Any) -> Any:
        """Replaces all placeholders."""
        unbound = {
            found.group(1)
            for text in texts(value)
            for found in PLACEHOLDER.finditer(text)
            if found.group(1) not in self.bindings
        }
        if unbound:
            raise Failure(f"no value is known for {', '.join(sorted(unbound))}")
        return fill(value, self.bindings)


def bindings(case: Case, target: Target) -> Dict[str, str]:
    """The values of a case's placeholders that are known from the start."""
    group = target.group(case)
    own = secrets.token_hex(4)
    return {
        "subscription": target.subscription,
        "group": group,
        "tenant": target.tenant,
        "location": target.location,
        "identities": f"/subscriptions/{target.subscription}/resourceGroups/{group}"
        "/providers/Microsoft.ManagedIdentity/userAssignedIdentities",
        "new": f"new-{own}",
        "absent": f"absent-{own}",
        "identityName": f"workload-{own}",
        **{name: str(uuid.uuid4()) for name in ("guid", "guid2", "absentGuid")},
        "issuer": target.issuer.url,
        "issuer.badkeys": target.issuer.bad_keys,
        "issuer.unreachable": target.issuer.unreachable,
        **target.more_bindings(),
    }


def at(value: Any, path: str) -> Any:
    """The value at a path such as `properties.principalId` or `value.0.name`; ABSENT if there is none."""
    for name in path.split("."):
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            return ABSENT
    return value
