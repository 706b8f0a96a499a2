"""What injection adds to the creation of a pod, through a real API server: none, webhook, policy.

Each creation in a namespace without grants ("none") is followed by one where pods are injected, over one connection, so
that both see the same machine. First the webhook injects, then the same controller has changed over to policies.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import statistics
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple
from urllib.parse import urlsplit

from .. import environment, paths
from ..failure import Failure
from ..kubectl import Kubectl
from ..waiting import until
from .context import Context
from .figures import Figure, Limit, Part

NAME = "api-server"
GRANTED, PLAIN, ACCOUNT = "shop", "plain", "orders"
CREATIONS, WARM_UP = 300, 30
READY_SECONDS = 60.0
INJECTED_BY = "ensign.dev/injected-by"

# Seconds of each creation, without injection and with it.
Times = Tuple[List[float], List[float]]


class ApiServer:
    """One connection to the API server, as the cluster's administrator."""

    def __init__(self, kubectl: Kubectl, folder: Path) -> None:
        view = kubectl.json("config", "view", "--raw", "--minify")
        cluster, user = view["clusters"][0]["cluster"], view["users"][0]["user"]
        context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        files = []
        for name in ("client-certificate-data", "client-key-data"):
            file = folder / name
            file.touch(mode=0o600)
            file.write_bytes(base64.b64decode(user[name]))
            files.append(file)
        context.load_cert_chain(*files)
        address = urlsplit(cluster["server"])
        self._connection = http.client.HTTPSConnection(address.hostname or "", address.port, context=context, timeout=60)

    def create(self, namespace: str, pod: Dict[str, Any]) -> "tuple[float, Dict[str, Any]]":
        """Creates a pod; returns the time that it took, in seconds, and the pod."""
        body = json.dumps(pod)
        started = time.perf_counter()
        self._connection.request(
            "POST", f"/api/v1/namespaces/{namespace}/pods", body, {"Content-Type": "application/json"}
        )
        answer = self._connection.getresponse()
        text = answer.read()
        seconds = time.perf_counter() - started
        if answer.status != 201:
            raise Failure(f"the API server denied a pod: {text.decode(errors='replace')}")
        return seconds, json.loads(text)


def pod(name: str) -> Dict[str, Any]:
    """A pod of two containers."""
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "serviceAccountName": ACCOUNT, "automountServiceAccountToken": False,
            "containers": [{"name": "app", "image": "app"}, {"name": "sidecar", "image": "sidecar"}],
        },
    }


def measure(server: ApiServer, name: str, count: int) -> Times:
    """Creations without and with injection, alternately."""
    seconds: Times = ([], [])
    for number in range(count + WARM_UP):
        for which, namespace in enumerate((PLAIN, GRANTED)):
            took, created = server.create(namespace, pod(f"{name}-{number}"))
            injected = INJECTED_BY in created["metadata"].get("annotations", {})
            if injected != (namespace == GRANTED):
                raise Failure(f"a pod of namespace {namespace} is {'' if injected else 'not '}injected")
            if number >= WARM_UP:
                seconds[which].append(took)
    return seconds


def run(context: Context) -> Part:
    """The part."""
    own = context.environment(NAME)
    with own.locked(wait=False):
        try:
            return part(_measured(context, own))
        finally:
            own.stop()


def _measured(context: Context, own: environment.Environment) -> Dict[str, List[Times]]:
    own.start(context.programs, 0, die_with_parent=True, mode="webhook")
    kubectl = own.kubectl(context.programs.cluster)
    for file in ("01-namespace", "02-managed-identity", "03-binding"):
        kubectl("apply", "-f", str(paths.ROOT / "examples" / f"{file}.yaml"))
    kubectl("create", "namespace", PLAIN)
    kubectl("create", "serviceaccount", ACCOUNT, "-n", PLAIN)
    kubectl("wait", "--for=condition=Ready", f"mib/{ACCOUNT}", "-n", GRANTED, f"--timeout={READY_SECONDS:.0f}s")
    server = ApiServer(kubectl, own.root)
    found = {"webhook": _runs(context, server, "webhook")}

    own.restart_controller(context.programs, mode="policy", die_with_parent=True)
    until(
        "the webhook to be unregistered",
        lambda: True if not kubectl.json("get", "mutatingwebhookconfiguration", "ensign").get("webhooks") else None,
        READY_SECONDS, lambda: own.registry.ended("controller"), lambda: own.registry.tail("controller"),
    )
    own.registry.stop("webhook")
    found["policy"] = _runs(context, server, "policy")
    return found


def _runs(context: Context, server: ApiServer, mode: str) -> List[Times]:
    def injected() -> Optional[bool]:
        _, created = server.create(GRANTED, pod(f"{mode}-first-{time.monotonic_ns()}"))
        return True if INJECTED_BY in created["metadata"].get("annotations", {}) else None

    until("an injected pod", injected, READY_SECONDS)
    found = []
    for number in range(context.runs):
        context.progress.update(f"{NAME}: {mode}, run {number + 1} of {context.runs} ...")
        found.append(measure(server, f"{mode}-{number}", CREATIONS))
    return found


def part(found: Dict[str, List[Times]]) -> Part:
    """The figures of each mode, compared with those of pods that are not injected."""
    figures = []
    for mode, runs in found.items():
        for name, statistic in (("median", statistics.median), ("p99", p99)):
            plain = [statistic(without) * 1000 for without, _ in runs]
            injected = [statistic(with_) * 1000 for _, with_ in runs]
            figures.append(
                Figure(f"creation of a pod, injected by {mode}, {name}", "ms", injected, Limit("not injected", plain))
            )
    note = f"Pods of two containers with one binding, {CREATIONS} creations each per run, over one connection."
    return Part(NAME, figures, notes=[note])


def p99(seconds: List[float]) -> float:
    """The value that 99 of 100 do not exceed."""
    return sorted(seconds)[max(0, -(-len(seconds) * 99 // 100) - 1)]
