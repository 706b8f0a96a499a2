"""Builds the control plane of tests/control-plane once, into the cache, and runs it.

    binaries = control_plane.ensure(Progress())
    with control_plane.ControlPlane(binaries) as cluster:
        cluster.kubectl("get", "namespaces")
"""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

from . import cache, children, paths
from .go_module import FLAGS, LINKER_FLAGS, BuildFailed, GoModule, drain, go_environment
from .progress import Progress

KUBECTL_PACKAGE = "k8s.io/kubernetes/cmd/kubectl"
READY_TIMEOUT_SECONDS = 200
STOP_TIMEOUT_SECONDS = 30


class Binaries(NamedTuple):
    """Absolute paths of the two binaries."""

    control_plane: Path
    kubectl: Path

    def environment(self) -> Dict[str, str]:
        """Environment variables that tell tests where the binaries are."""
        return {"ENSIGN_CONTROL_PLANE": str(self.control_plane), "ENSIGN_KUBECTL": str(self.kubectl)}


def chosen() -> Optional[Binaries]:
    """Returns the binaries that the caller's environment names, if it names both."""
    control_plane, kubectl = os.environ.get("ENSIGN_CONTROL_PLANE"), os.environ.get("ENSIGN_KUBECTL")
    if control_plane and kubectl:
        return Binaries(Path(control_plane).resolve(), Path(kubectl).resolve())
    return None


def is_built() -> bool:
    """Whether `ensure` has nothing to build."""
    if chosen() is not None:
        return True
    try:
        return (paths.cache_dir() / "control-plane" / build_key()).is_dir()
    except (OSError, children.CommandFailed):
        return False


def ensure(progress: Progress) -> Binaries:
    """Returns the binaries, and builds them unless a build of the same sources is cached."""
    named = chosen()
    if named is not None:
        return named
    folder = cache.entry("control-plane", build_key(), lambda target: _build(target, progress), progress)
    return Binaries(folder / "control-plane", folder / "kubectl")


def build_key() -> str:
    """Returns a key that changes with everything that affects the binaries."""
    toolchain = children.output(["go", "env", "GOVERSION", "GOOS", "GOARCH"], env=go_environment())
    return cache.key(
        cache.hash_files(paths.CONTROL_PLANE_SOURCE, sources()), " ".join(FLAGS + LINKER_FLAGS), toolchain
    )


def sources() -> List[Path]:
    """Returns the source files of the binaries."""
    root = paths.CONTROL_PLANE_SOURCE
    code = [file for file in root.rglob("*.go") if not file.name.endswith("_test.go")]
    return code + [root / "go.mod", root / "go.sum"]


def kubernetes_version(go_mod: str) -> str:
    """Returns the version of Kubernetes that a go.mod requires, such as v1.37.2."""
    found = re.search(r"^\s*k8s\.io/kubernetes (v\d+\.\d+\.\d+)$", go_mod, re.MULTILINE)
    if found is None:
        raise BuildFailed("tests/control-plane/go.mod does not require a released version of k8s.io/kubernetes")
    return found.group(1)


def version_stamp(version: str, date: str) -> List[str]:
    """Returns linker flags that set the version of the binaries.

    Upstream's release build sets the same variables. Without them, `/version` reports v0.0.0-master.
    """
    major, minor, _ = version[1:].split(".")
    values = {
        "gitVersion": version,
        "gitMajor": major,
        "gitMinor": minor,
        "gitCommit": "unknown",  # Go modules do not record it
        "gitTreeState": "clean",
        "buildDate": date,
    }
    return [
        f"-X {package}.{name}={value}"
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for name, value in values.items()
    ]


def _build(target: Path, progress: Progress) -> None:
    source = paths.CONTROL_PLANE_SOURCE
    version = kubernetes_version((source / "go.mod").read_text())
    module = GoModule("Control plane", source, (".", KUBECTL_PACKAGE))
    module.prefetch(progress)
    when = ["list", "-m", "-f", '{{.Time.Format "2006-01-02T15:04:05Z"}}', "k8s.io/kubernetes"]
    module.build(target, progress, version_stamp(version, module.go(when, 60).strip()))
    for name in ("control-plane", "kubectl"):
        if not os.access(target / name, os.X_OK):
            raise BuildFailed(f"the Go build did not produce `{name}`")


class NotReady(Exception):
    """The control plane did not start or did not respond."""


class ControlPlane:
    """A running control plane. It exits with this process, even if this process is killed."""

    def __init__(self, binaries: Binaries, state: Optional[Path] = None) -> None:
        """Starts it; its state is in the folder `state`, or in a temporary one."""
        self.binaries = binaries
        command = [str(binaries.control_plane), "run", "--stop-on-stdin-eof"]
        if state is not None:
            command += ["--dir", str(state)]
        self._process = children.start(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._lines: "queue.Queue[Optional[str]]" = queue.Queue()
        self._errors: List[str] = []
        self._readers = [
            threading.Thread(target=drain, args=(self._process.stdout, self._lines), daemon=True),
            threading.Thread(target=lambda: self._errors.extend(self._process.stderr), daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        try:
            self.info: Dict[str, Any] = self._response()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> "ControlPlane":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The supervisor's process ID."""
        return self._process.pid

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return Path(self.info["kubeconfig"])

    def command(self, line: str) -> Dict[str, Any]:
        """Sends a command such as `restart kube-apiserver`; returns the response."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._response()

    def kubectl(self, *arguments: str, timeout: float = 60, **options: Any) -> str:
        """Returns the output of kubectl."""
        env = children.environment({"KUBECONFIG": self.kubeconfig})
        return children.output([self.binaries.kubectl, *arguments], timeout=timeout, env=env, **options)

    def errors(self) -> str:
        """Returns its standard error, once it has exited."""
        for reader in self._readers:
            reader.join()
        return "".join(self._errors)

    def stop(self) -> int:
        """Stops it gracefully; returns the exit status."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                pass
        try:
            self._process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            children.end(self._process)
        for reader, stream in zip(self._readers, (self._process.stdout, self._process.stderr)):
            reader.join()
            stream.close()
        return self._process.returncode

    def _response(self) -> Dict[str, Any]:
        try:
            line = self._lines.get(timeout=READY_TIMEOUT_SECONDS)
        except queue.Empty:
            raise NotReady(f"the control plane did not respond for {READY_TIMEOUT_SECONDS} seconds") from None
        if line is None:
            raise NotReady("the control plane exited:\n" + self.errors().strip())
        return dict(json.loads(line))
