"""Azure itself as the place where cases are asked: a token of the caller's, a polite pace, and a list of what was made."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import ssl
import subprocess
import threading
import time
from typing import Any, Callable, Dict, List, Mapping, Optional, Set

from ..failure import Failure
from .case import Case
from .signing import claims_of
from .target import Issuer, Target
from .wire import Answer, Endpoint, with_query

TOKEN_VARIABLE = "ENSIGN_ARM_TOKEN"
COMMAND_SECONDS = 60.0
# A token is renewed when it has less than this left.
RENEWAL_SECONDS = 300.0
TRIES = 5
REMOVALS = 3
LONGEST_PAUSE_SECONDS = 120.0
USUAL_PAUSE_SECONDS = 10.0
# Names that cannot exist (RFC 6761): nobody serves these issuers.
ISSUER = "https://issuer.ensign-cases.invalid/cluster"
AUTHORIZATION = "/providers/microsoft.authorization/"
LOCK_VERSION = "2016-09-01"
PROVIDER_VERSION = "2021-04-01"


class Tokens:
    """The caller's token for ARM: from an environment variable, or from a command that is run again in time."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._token: Optional[str] = os.environ.get(TOKEN_VARIABLE) or None
        self._is_fixed = self._token is not None
        # All tokens that were used, so that none of them gets into a file.
        self.used: Set[str] = set()

    def current(self) -> str:
        """A token that is valid for some minutes."""
        if self._token is None or (not self._is_fixed and not self._lasts(self._token)):
            self._token = self._fetched()
        self.used.add(self._token)
        return self._token

    @staticmethod
    def _lasts(token: str) -> bool:
        expires = claims_of(token).get("exp")
        return not isinstance(expires, (int, float)) or expires - time.time() > RENEWAL_SECONDS

    def _fetched(self) -> str:
        """Runs the command. Its output is not shown, because a token may be in it."""
        words = shlex.split(self._command)
        try:
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=COMMAND_SECONDS, check=False, text=True
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failure(f"the token command {words[0]} failed: {type(error).__name__}") from error
        if done.returncode != 0:
            raise Failure(f"the token command {words[0]} failed with status {done.returncode}")
        token = _token_in(done.stdout)
        if not claims_of(token).get("tid"):
            raise Failure(f"the token command {words[0]} printed no token of Entra")
        return token


def _token_in(output: str) -> str:
    """The token in the output of a command: all of it, or a field of a JSON object."""
    try:
        document = json.loads(output)
    except ValueError:
        return output.strip()
    if isinstance(document, dict):
        for name in ("accessToken", "access_token", "token"):
            if isinstance(document.get(name), str):
                return str(document[name])
    return document.strip() if isinstance(document, str) else ""


class Pace:
    """A shortest time between two requests, whoever sends them."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Waits for the next turn."""
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + self._seconds
        time.sleep(max(0.0, turn - time.monotonic()))


class PoliteEndpoint(Endpoint):
    """Keeps a pace, and waits as long as Azure asks for; unless it is told to be impatient."""

    def __init__(
        self, base: str, context: ssl.SSLContext, pace: Pace, note: Callable[[str, str, Optional[Answer]], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(base, context)
        self.is_patient = True
        self._pace = pace
        # Told of each request before it is sent, and of its answer.
        self._note = note
        self._sleep = sleep

    def send(self, method: str, target: str, headers: Mapping[str, str], body: Optional[bytes] = None) -> Answer:
        if not self.is_patient:
            return super().send(method, target, headers, body)
        for left in reversed(range(TRIES)):
            self._pace.wait()
            self._note(method, target, None)
            answer = self._tried(method, target, headers, body, left)
            if answer is not None and answer.status == 429 and left:
                self._sleep(retry_after(answer))
            elif answer is not None:
                self._note(method, target, answer)
                if answer.status == 429 or answer.status >= 500:
                    raise Failure(f"{method} {target}: {answer.status} {answer.text()}")
                return answer
        raise Failure(f"{method} {target}: no answer")

    def _tried(
        self, method: str, target: str, headers: Mapping[str, str], body: Optional[bytes], left: int
    ) -> Optional[Answer]:
        """An answer, or None if the request may be sent again: only if that changes nothing."""
        try:
            answer = super().send(method, target, headers, body)
        except Failure:
            if method != "GET" or not left:
                raise
            answer = None
        if answer is None or (answer.status >= 500 and method == "GET" and left):
            self._sleep(USUAL_PAUSE_SECONDS)
            return None
        return answer


def retry_after(answer: Answer) -> float:
    """How long an answer asks to wait, within limits."""
    asked = answer.headers.get("retry-after", "")
    return min(float(asked), LONGEST_PAUSE_SECONDS) if asked.isdigit() else USUAL_PAUSE_SECONDS


class AzureTarget(Target):
    """A subscription, in which all cases share one resource group."""

    def __init__(
        self, arm: str, authority: str, subscription: str, location: str, group: str, tokens: Tokens, pace: float
    ) -> None:
        self.subscription = subscription
        self.location = location
        self.issuer = Issuer(ISSUER, f"{ISSUER}/badkeys", f"{ISSUER}/unreachable")
        self.tokens = tokens
        # Objects beside the group's resources that have to be removed: their paths with the API version.
        self.made: Dict[str, str] = {}
        self._unsure: Set[str] = set()
        self._arm = arm
        self._authority = authority
        self._group = group
        self._pace = Pace(pace)
        # The system's CAs, or those of SSL_CERT_FILE.
        self._context = ssl.create_default_context()
        tenant = claims_of(tokens.current()).get("tid")
        if not isinstance(tenant, str):
            raise Failure("the token names no tenant (tid); is it one for Azure Resource Manager?")
        self.tenant = tenant

    def group(self, case: Case) -> str:
        return self._group

    def arm(self) -> PoliteEndpoint:
        return PoliteEndpoint(self._arm, self._context, self._pace, self._note)

    def authority(self) -> PoliteEndpoint:
        return PoliteEndpoint(self._authority, self._context, self._pace, lambda *_: None)

    def administrator(self) -> str:
        return self.tokens.current()

    def caller(self, rights: Any, audience: str) -> str:
        raise Failure("only the emulator has callers with other rights or tokens")

    def change(self, change: Mapping[str, Any]) -> None:
        if "lock" not in change:
            raise Failure("only the emulator can be told to deny")
        lock = change["lock"] if isinstance(change["lock"], dict) else {"scope": change["lock"]}
        path = f"{lock['scope']}/providers/Microsoft.Authorization/locks/ensign-cases"
        answer = self.request("PUT", path, LOCK_VERSION, {"properties": {"level": lock.get("level", "CanNotDelete")}})
        if answer.status not in (200, 201):
            raise Failure(f"PUT {path}: {answer.status} {answer.text()}")

    def request(self, method: str, path: str, version: str, body: Any = None) -> Answer:
        """Sends a request of the recorder's own to ARM."""
        headers = {"authorization": f"Bearer {self.administrator()}", "accept": "application/json"}
        data = None
        if body is not None:
            headers["content-type"] = "application/json"
            data = json.dumps(body).encode()
        endpoint = self.arm()
        try:
            return endpoint.send(method, with_query(path, api_version=version), headers, data)
        finally:
            endpoint.close()

    def require_provider(self) -> None:
        """Fails if the subscription never used managed identities: then every answer is about that."""
        path = f"/subscriptions/{self.subscription}/providers/Microsoft.ManagedIdentity"
        answer = self.request("GET", path, PROVIDER_VERSION)
        body = answer.json()
        state = body.get("registrationState") if answer.status == 200 and isinstance(body, dict) else None
        if answer.status in (401, 403):
            raise Failure(f"the token can't be used for subscription {self.subscription}: {answer.status} {answer.text()}")
        if state is not None and state != "Registered":
            raise Failure("register the provider first: `az provider register --namespace Microsoft.ManagedIdentity`")

    def remove_made(self, sleep: Callable[[float], None] = time.sleep) -> List[str]:
        """Removes what is not a resource of the group, the latest first; returns the paths of what is left."""
        for left in reversed(range(REMOVALS)):
            for path, version in reversed(list(self.made.items())):
                with contextlib.suppress(Failure):
                    self.request("DELETE", path, version)
            if not self.made or not left:
                break
            sleep(USUAL_PAUSE_SECONDS)
        return list(self.made)

    def _note(self, method: str, target: str, answer: Optional[Answer]) -> None:
        """Remembers what is made: from before the request is sent, until an answer says that it was not."""
        path, _, query = target.partition("?")
        if AUTHORIZATION not in path.lower() or method not in ("PUT", "DELETE"):
            return
        if answer is None:
            if method == "PUT" and path not in self.made:
                versions = [part.partition("=")[2] for part in query.split("&") if part.startswith("api-version=")]
                self.made[path] = versions[0] if versions else LOCK_VERSION
                self._unsure.add(path)
        elif method == "DELETE":
            if answer.status < 300 or answer.status == 404:
                self.made.pop(path, None)
        elif answer.status < 300:
            self._unsure.discard(path)
        elif answer.status < 500 and path in self._unsure:
            self._unsure.discard(path)
            self.made.pop(path, None)
