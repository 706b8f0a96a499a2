#!/usr/bin/env python3
"""Measure what injection adds to the creation of a pod, through a real API server: none, webhook, policy.

Each creation in a namespace without grants ("none") is followed by one where pods are injected, over one connection, so
that both see the same machine. First the webhook injects, then the same controller has changed over to policies.
Prints the medians and their ratios, and JSON with --json. Use an idle machine; --release measures an optimised webhook.
"""

import sys

if sys.version_info < (3, 9):
    sys.exit("Python 3.9 or newer is needed (this is %s)" % sys.version.split()[0])

import argparse
import base64
import http.client
import json
import ssl
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, List, Optional
from urllib.parse import urlsplit

from ensign_dev import build, children, control_plane, environment, main, paths, preflight
from ensign_dev.failure import Failure
from ensign_dev.progress import Progress
from ensign_dev.waiting import until

ROOT = paths.ROOT / "target" / "latency"
GRANTED, PLAIN, ACCOUNT = "shop", "plain", "orders"
READY_SECONDS = 60.0


class ApiServer:
    """One connection to the API server, as the cluster's administrator."""

    def __init__(self, kubectl: Any, folder: Path) -> None:
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
        """How long a creation took, in seconds, and the pod."""
        body = json.dumps(pod)
        started = time.perf_counter()
        self._connection.request(
            "POST", f"/api/v1/namespaces/{namespace}/pods", body, {"Content-Type": "application/json"}
        )
        answer = self._connection.getresponse()
        text = answer.read()
        seconds = time.perf_counter() - started
        if answer.status != 201:
            raise Failure(f"the API server refused a pod: {text.decode(errors='replace')}")
        return seconds, json.loads(text)


def pod(name: str) -> Dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "serviceAccountName": ACCOUNT, "automountServiceAccountToken": False,
            "containers": [{"name": "app", "image": "app"}, {"name": "sidecar", "image": "sidecar"}],
        },
    }


def measure(server: ApiServer, mode: str, count: int) -> Dict[str, List[float]]:
    """Seconds of each creation, without injection and with it, by turns."""
    seconds: Dict[str, List[float]] = {PLAIN: [], GRANTED: []}
    for number in range(-count // 10, count):
        for namespace in (PLAIN, GRANTED):
            took, created = server.create(namespace, pod(f"{mode}-{number + count}"))
            injected = "ensign.dev/injected-by" in created["metadata"].get("annotations", {})
            if injected != (namespace == GRANTED):
                raise Failure(f"a pod of namespace {namespace} is {'' if injected else 'not '}injected")
            if number >= 0:  # the first ones warm everything up
                seconds[namespace].append(took)
    return seconds


def latency() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="creations each (default: 1000)")
    parser.add_argument("--json", action="store_true", help="print JSON too")
    parser.add_argument("--release", action="store_true", help="build and measure the release profile")
    arguments = parser.parse_args()
    preflight.require("demo", control_plane.is_built())
    progress = Progress()
    own = environment.Environment(ROOT, progress)
    with own.locked(wait=False):
        cluster = build.cluster(progress)
        ensign = release() if arguments.release else build.programs()["ensign"]
        try:
            report = run(own, environment.Programs(ensign, cluster), arguments.count)
        finally:
            own.stop()
    for mode, figures in report.items():
        print(
            f"{mode:8} {figures['median_ms']:6.2f} ms, without injection {figures['plain_median_ms']:6.2f} ms: "
            f"{figures['ratio']:.2f} times as long (p99: {figures['ratio_p99']:.2f} times)"
        )
    if arguments.json:
        print(json.dumps(report, indent=2))
    return 0


def release() -> Path:
    command = ["cargo", "build", "--locked", "--release", "--features", "emulator", "--bin", "ensign"]
    if subprocess.run(command, cwd=paths.ROOT, env=children.environment(), check=False).returncode != 0:
        raise Failure(f"`{' '.join(command)}` failed; its words are above")
    return paths.ROOT / "target" / "release" / "ensign"


def run(own: environment.Environment, programs: environment.Programs, count: int) -> Dict[str, Dict[str, float]]:
    own.start(programs, 0, leashed=True, mode="webhook")
    kubectl = own.kubectl(programs.cluster)
    for file in ("01-namespace", "02-managed-identity", "03-binding"):
        kubectl("apply", "-f", str(paths.ROOT / "examples" / f"{file}.yaml"))
    kubectl("create", "namespace", PLAIN)
    kubectl("create", "serviceaccount", ACCOUNT, "-n", PLAIN)
    kubectl("wait", "--for=condition=Ready", f"mib/{ACCOUNT}", "-n", GRANTED, f"--timeout={READY_SECONDS:.0f}s")
    server = ApiServer(kubectl, ROOT)
    report = {"webhook": figures(measured(server, "webhook", count))}

    own.restart_controller(programs, mode="policy", leashed=True)
    until(
        "the webhook to be registered no longer",
        lambda: True if not kubectl.json("get", "mutatingwebhookconfiguration", "ensign").get("webhooks") else None,
        READY_SECONDS, lambda: own.registry.ended("controller"), lambda: own.registry.tail("controller"),
    )
    own.registry.stop("webhook")
    report["policy"] = figures(measured(server, "policy", count))
    return report


def measured(server: ApiServer, mode: str, count: int) -> Dict[str, List[float]]:
    def injected() -> Optional[bool]:
        _, created = server.create(GRANTED, pod(f"{mode}-first-{time.monotonic_ns()}"))
        return True if "ensign.dev/injected-by" in created["metadata"].get("annotations", {}) else None

    until("an injected pod", injected, READY_SECONDS)
    return measure(server, mode, count)


def figures(seconds: Dict[str, List[float]]) -> Dict[str, float]:
    plain, granted = sorted(seconds[PLAIN]), sorted(seconds[GRANTED])
    last = max(0, len(plain) * 99 // 100 - 1)
    return {
        "creations": len(plain),
        "plain_median_ms": statistics.median(plain) * 1000,
        "median_ms": statistics.median(granted) * 1000,
        "ratio": statistics.median(granted) / statistics.median(plain),
        "ratio_p99": granted[last] / plain[last],
    }


if __name__ == "__main__":
    main.run(latency)
