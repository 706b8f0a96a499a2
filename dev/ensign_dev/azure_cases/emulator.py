"""The emulator as the place where cases are asked: one process for cases that need the same settings."""

from __future__ import annotations

import hashlib
import json
import os
import select
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from .. import children, paths
from ..failure import Failure
from .case import Case
from .schema import LISTS
from .target import Issuer, Target, access_token, exchange, token_form
from .wire import Endpoint, trusting

BINARY_VARIABLE = "ENSIGN_AZURE_EMULATOR_BIN"
NAME = "ensign-azure-emulator"
START_SECONDS = 30.0
STOP_SECONDS = 10.0
# Nothing listens on this port.
UNREACHABLE = "https://127.0.0.1:1/unreachable"
# The flags for what a case's `given` asks for.
FLAGS = {
    "writeLatencyMs": ("--write-latency", "{}ms"),
    "propagationSeconds": ("--propagation-delay", "{}s"),
    "principalReplicationSeconds": ("--principal-replication-delay", "{}s"),
    "rolePropagationSeconds": ("--role-propagation-delay", "{}s"),
    "readLagSeconds": ("--read-lag", "{}s"),
}
CALLERS_GROUP = "callers"
OTHER_SUBSCRIPTION = "50b00000-0000-4000-8000-0000000000ff"
OTHER_TENANT = "7e000000-0000-4000-8000-0000000000ff"
# What a case's `given` asks for and no flag can be told: fields of the emulator's state.
STATE_FIELDS = ("readReplicas",)
LONG_AGO = "2020-01-01T00:00:00Z"


def binary(given: Optional[str] = None) -> Path:
    """The emulator's program: the given one, that of the tests, or the one that cargo built."""
    chosen = given or os.environ.get(BINARY_VARIABLE)
    path = Path(chosen) if chosen else paths.target_dir() / "debug" / NAME
    if not path.is_file():
        raise Failure(f"{path} is missing; build it with `cargo build --package {NAME}`")
    return path


class Process:
    """A running emulator."""

    def __init__(self, program: Path, flags: Sequence[str] = ()) -> None:
        self._log = tempfile.TemporaryFile()
        command: "List[children.Argument]" = [program, "--stop-on-stdin-eof", "--log", "warn", *flags]
        self._process = children.start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log)
        try:
            self.info: Dict[str, Any] = self._announced(program)
        except BaseException:
            self.stop()
            raise
        self.context = trusting(self.info["ca_file"])
        self.base: str = self.info["arm_endpoint"]

    def _announced(self, program: Path) -> Dict[str, Any]:
        ready, _, _ = select.select([self._process.stdout], [], [], START_SECONDS)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            self._log.seek(0)
            raise Failure(f"{program} did not start: {self._log.read().decode(errors='replace').strip()}")
        announced = json.loads(line)
        assert isinstance(announced, dict)
        return announced

    def control(self, method: str, path: str, document: Any = None) -> Any:
        """Asks the emulator's own API."""
        endpoint = Endpoint(self.base, self.context)
        try:
            body = None if document is None else json.dumps(document).encode()
            answer = endpoint.send(method, f"/_emulator/{path}", {"content-type": "application/json"}, body)
        finally:
            endpoint.close()
        if not 200 <= answer.status < 300:
            raise Failure(f"{method} /_emulator/{path}: {answer.status} {answer.text()}")
        return answer.json() if answer.body else None

    def stop(self) -> None:
        """Ends the process."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        children.end(self._process)
        self._log.close()


class ServedIssuer(Issuer):
    """An issuer whose documents an emulator of its own serves, by fault rules that answer with them.

    So nobody has to make certificates, and the emulator that reads the documents has a CA to trust.
    """

    def __init__(self, program: Path) -> None:
        self._process = Process(program)
        base = self._process.base
        super().__init__(f"{base}/good", f"{base}/badkeys", UNREACHABLE)
        rules = [self._rule(f"/{name}/.well-known/", self._discovery(url)) for name, url in self._served()]
        rules += [self._rule("/good/keys", {"keys": [self.key.jwk()]}), self._rule("/badkeys/keys", {"keys": "none"})]
        self._process.control("PUT", "faults", rules)
        self.ca_file: str = self._process.info["ca_file"]

    def _served(self) -> List[Tuple[str, str]]:
        return [("good", self.url), ("badkeys", self.bad_keys)]

    def _discovery(self, url: str) -> Dict[str, Any]:
        return {"issuer": url, "jwks_uri": f"{url}/keys", "response_types_supported": ["id_token"]}

    def _rule(self, path: str, document: Any) -> Dict[str, Any]:
        action = {"status": 200, "body": document}
        return {"match": {"method": "GET", "pathContains": path}, "times": 1_000_000_000, "action": action}

    def stop(self) -> None:
        """Ends the process."""
        self._process.stop()


class EmulatorTarget(Target):
    """An emulator with a resource group for each of its cases, and with an identity for each kind of caller."""

    def __init__(self, program: Path, flags: Sequence[str], cases: Sequence[Case], issuer: Issuer) -> None:
        trusted = ["--issuer-ca-file", issuer.ca_file] if isinstance(issuer, ServedIssuer) else []
        self._process = Process(program, [*flags, *trusted])
        info = self._process.info
        self.subscription = info["subscription_id"]
        self.tenant = info["tenant_id"]
        self.location = info["location"]
        self.issuer = issuer
        self._administrator: str = self._process.control("GET", "arm-token")["access_token"]
        self._lock = threading.Lock()
        self._callers: Dict[Tuple[str, str], str] = {}
        try:
            self._seed(cases)
        except BaseException:
            self.stop()
            raise

    def _seed(self, cases: Sequence[Case]) -> None:
        callers = {caller_name(rights): rights for case in cases for rights in case.rights}
        groups = [{"name": name} for name in [CALLERS_GROUP, *map(self.group, cases)]]
        given = cases[0].given
        state = self._process.control("GET", "state")
        [own] = state["subscriptions"]
        own["resourceGroups"] += groups
        if "unregisteredProviders" in given:
            own["unregisteredProviders"] = given["unregisteredProviders"]
        state["subscriptions"].append({"id": OTHER_SUBSCRIPTION, "tenantId": OTHER_TENANT})
        state["identities"] = [self._caller(*one) for one in sorted(callers.items())]
        state.update({name: given[name] for name in STATE_FIELDS if name in given})
        self._process.control("PUT", "state", state)

    def more_bindings(self) -> Dict[str, str]:
        return {"otherSubscription": OTHER_SUBSCRIPTION, "otherTenant": OTHER_TENANT}

    def _caller(self, name: str, rights: Any) -> Dict[str, Any]:
        trust = {"name": "trust", "issuer": self.issuer.url, "subject": name, "writtenAt": LONG_AGO}
        return {
            "id": f"/subscriptions/{self.subscription}/resourceGroups/{CALLERS_GROUP}/providers"
            f"/Microsoft.ManagedIdentity/userAssignedIdentities/{name}",
            "armRights": {"actions": rights} if isinstance(rights, list) else rights,
            "federatedIdentityCredentials": [trust],
        }

    def group(self, case: Case) -> str:
        return f"cases-{case.id}"

    def arm(self) -> Endpoint:
        return Endpoint(self._process.base, self._process.context)

    def authority(self) -> Endpoint:
        return Endpoint(self._process.base, self._process.context)

    def administrator(self) -> str:
        return self._administrator

    def caller(self, rights: Any, audience: str) -> str:
        key = (caller_name(rights), audience)
        with self._lock:
            if key not in self._callers:
                self._callers[key] = self._exchanged(*key)
            return self._callers[key]

    def _exchanged(self, name: str, audience: str) -> str:
        identities = self._process.control("GET", "state")["identities"]
        client_id = next(one["clientId"] for one in identities if one["name"] == name)
        authority = self.authority()
        try:
            form = token_form(client_id, self.issuer.token({"sub": name}), audience)
            return access_token(exchange(authority, self.tenant, form), f"a token of {name} for {audience}")
        finally:
            authority.close()

    def change(self, change: Mapping[str, Any]) -> None:
        state = self._process.control("GET", "state")
        for name, value in change.items():
            made = {"scope": value} if isinstance(value, str) else dict(value)
            if name == "lock":
                state["locks"].append(made)
            else:
                state["denyPolicies"].append({"name": "deny", **made})
        self._process.control("PUT", "state", state)

    def stop(self) -> None:
        """Ends the process."""
        self._process.stop()


def caller_name(rights: Any) -> str:
    """The name of the identity with some rights: a word, or a list of actions."""
    if isinstance(rights, str):
        return f"caller-{rights}"
    return f"caller-{hashlib.sha256(json.dumps(rights).encode()).hexdigest()[:8]}"


def flags(case: Case) -> List[str]:
    """The emulator's flags for what a case's `given` asks for."""
    found: List[str] = []
    for name, value in sorted(case.given.items()):
        if name in FLAGS:
            flag, form = FLAGS[name]
            found += [flag, form.format(value)]
    return [*found, "--published-limits"] if case.given.get("publishedLimits") else found


def sharing(case: Case) -> Tuple[str, ...]:
    """Cases with the same key can be asked of the same emulator at the same time.

    Limits on the rate of requests hold for all callers, and a change replaces the emulator's whole state.
    """
    in_state = [f"{name}={case.given[name]}" for name in (*STATE_FIELDS, *LISTS) if name in case.given]
    apart = [case.id] if case.changes or case.given.get("publishedLimits") else []
    return (*flags(case), *in_state, *apart)


def needs_issuer(cases: Sequence[Case]) -> bool:
    """Whether a token issuer has to be there."""
    return any(case.uses_workload or case.rights or "{issuer" in json.dumps(case.document) for case in cases)
