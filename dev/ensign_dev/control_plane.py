"""The control plane of tests/control-plane: built once into the cache, and run.

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
from typing import Any, Dict, IO, List, NamedTuple, Optional

from . import cache, children, paths
from .progress import Progress, duration

KUBECTL_PACKAGE = "k8s.io/kubernetes/cmd/kubectl"
# Every build of any package of this module uses these flags and no others:
# Go's build cache keeps one result per set of flags.
FLAGS = ("-trimpath", "-buildvcs=false", "-tags=selinux,notest,grpcnotrace")
LINKER_FLAGS = ("-s", "-w")
# Fewer collections, a good deal faster; the memory is given in preflight.
GO_ENVIRONMENT = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOGC": "400"}
MEMORY_PER_COMPILER_BYTES = 1 << 30

LIST_TIMEOUT_SECONDS = 30 * 60
BUILD_TIMEOUT_SECONDS = 90 * 60
READY_TIMEOUT_SECONDS = 200
STOP_TIMEOUT_SECONDS = 30


class Binaries(NamedTuple):
    """Absolute paths of the two programs."""

    control_plane: Path
    kubectl: Path

    def environment(self) -> Dict[str, str]:
        """How tests are told where they are."""
        return {"ENSIGN_CONTROL_PLANE": str(self.control_plane), "ENSIGN_KUBECTL": str(self.kubectl)}


class BuildFailed(Exception):
    """The Go build did not succeed; the message has the compiler's words."""


def go_environment() -> Dict[str, str]:
    """The environment of every go command in the module."""
    return children.environment(GO_ENVIRONMENT)


def chosen() -> Optional[Binaries]:
    """Binaries that the caller's environment names, if it names both."""
    control_plane, kubectl = os.environ.get("ENSIGN_CONTROL_PLANE"), os.environ.get("ENSIGN_KUBECTL")
    if control_plane and kubectl:
        return Binaries(Path(control_plane).resolve(), Path(kubectl).resolve())
    return None


def is_built() -> bool:
    """Whether `ensure` would have nothing to build."""
    if chosen() is not None:
        return True
    try:
        return (paths.cache_dir() / "control-plane" / build_key()).is_dir()
    except (OSError, children.CommandFailed):
        return False


def ensure(progress: Progress) -> Binaries:
    """The binaries, built first if no earlier build of the same sources is cached."""
    named = chosen()
    if named is not None:
        return named
    folder = cache.entry("control-plane", build_key(), lambda target: _build(target, progress), progress)
    return Binaries(folder / "control-plane", folder / "kubectl")


def build_key() -> str:
    """Changes with whatever changes the binaries."""
    toolchain = children.output(["go", "env", "GOVERSION", "GOOS", "GOARCH"], env=go_environment())
    return cache.key(
        cache.hash_files(paths.CONTROL_PLANE_SOURCE, sources()), " ".join(FLAGS + LINKER_FLAGS), toolchain
    )


def sources() -> List[Path]:
    """The files that go into the binaries."""
    root = paths.CONTROL_PLANE_SOURCE
    code = [file for file in root.rglob("*.go") if not file.name.endswith("_test.go")]
    return code + [root / "go.mod", root / "go.sum"]


def kubernetes_version(go_mod: str) -> str:
    """The version of Kubernetes that a go.mod requires, such as v1.37.2."""
    found = re.search(r"^\s*k8s\.io/kubernetes (v\d+\.\d+\.\d+)$", go_mod, re.MULTILINE)
    if found is None:
        raise BuildFailed("tests/control-plane/go.mod requires no released version of k8s.io/kubernetes")
    return found.group(1)


def version_stamp(version: str, date: str) -> List[str]:
    """Linker flags by which the binaries know their version.

    Upstream's release build sets the same variables. Without them `/version` says v0.0.0-master.
    """
    major, minor, _ = version[1:].split(".")
    values = {
        "gitVersion": version,
        "gitMajor": major,
        "gitMinor": minor,
        "gitCommit": "unknown",  # a module does not tell the commit it was made from
        "gitTreeState": "clean",
        "buildDate": date,
    }
    return [
        f"-X {package}.{name}={value}"
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for name, value in values.items()
    ]


def prefetch(progress: Progress) -> int:
    """Download what the build needs; how many packages are left to compile."""
    compiled = "not installed but available in build cache"
    template = '{{if and .Stale (ne .StaleReason "%s")}}{{.ImportPath}}{{end}}' % compiled
    downloads = 0

    def show(line: str) -> None:
        nonlocal downloads
        if line.startswith("go: downloading "):
            downloads += 1
            progress.update(f"Control plane: {downloads} modules downloaded ({line.split(' ', 2)[2]})")

    command = ["go", "list", "-deps", *FLAGS, "-f", template, ".", KUBECTL_PACKAGE]
    out = _go(command, LIST_TIMEOUT_SECONDS, show, progress)
    return len(out.splitlines())


def _build(target: Path, progress: Progress) -> None:
    started = time.monotonic()
    progress.say("Control plane: fetching its Go modules ...")
    total = prefetch(progress)
    progress.say(f"Control plane: compiling {total} Go packages; later runs find them in the cache ...")
    version = kubernetes_version((paths.CONTROL_PLANE_SOURCE / "go.mod").read_text())
    date = _go(["go", "list", "-m", "-f", '{{.Time.Format "2006-01-02T15:04:05Z"}}', "k8s.io/kubernetes"], 60).strip()
    done = 0

    def show(line: str) -> None:
        nonlocal done
        if line and not line.startswith(("#", "go: ")) and " " not in line:
            done += 1
        step = f"{done} of {total} packages" if done < total else "linking"
        progress.update(f"Control plane: {step}, {duration(time.monotonic() - started)}")

    linker = " ".join([*LINKER_FLAGS, *version_stamp(version, date)])
    command = ["go", "build", "-v", f"-p={_compilers()}", *FLAGS, f"-ldflags={linker}", "-o", f"{target}/"]
    _go([*command, ".", KUBECTL_PACKAGE], BUILD_TIMEOUT_SECONDS, show, progress)
    for name in ("control-plane", "kubectl"):
        if not os.access(target / name, os.X_OK):
            raise BuildFailed(f"the Go build made no `{name}`")
    progress.say(f"Control plane: built in {duration(time.monotonic() - started)}.")


def _compilers() -> int:
    from .preflight import available_memory

    available = available_memory()
    by_memory = available // MEMORY_PER_COMPILER_BYTES if available else 1
    return max(1, min(len(os.sched_getaffinity(0)), by_memory))


def _go(
    command: List[str], timeout: float, show: Any = None, progress: Optional[Progress] = None
) -> str:
    """Run a go command in the module: its standard output, with `show` called for each line of its stderr.

    `show` gets an empty line about every second too, so that it can tell the time.
    """
    process = children.start(
        command, cwd=paths.CONTROL_PLANE_SOURCE, env=go_environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    errors: "queue.Queue[Optional[str]]" = queue.Queue()
    out: List[str] = []
    readers = [
        threading.Thread(target=_drain, args=(process.stderr, errors), daemon=True),
        threading.Thread(target=lambda: out.append(process.stdout.read()), daemon=True),
    ]
    kept: List[str] = []
    deadline = time.monotonic() + timeout
    try:
        for reader in readers:
            reader.start()
        while True:
            try:
                line = errors.get(timeout=1)
            except queue.Empty:
                line = ""
            if line is None:
                break
            if line:
                kept.append(line)
            if show is not None:
                show(line)
            if time.monotonic() > deadline:
                raise BuildFailed(f"`{' '.join(command[:2])}` took longer than {duration(timeout)}")
        if process.wait() != 0:
            words = "\n".join(kept[-30:])
            raise BuildFailed(f"`{' '.join(command[:2])}` in tests/control-plane failed:\n{words}")
    finally:
        children.end(process)
        for reader, stream in zip(readers, (process.stderr, process.stdout)):
            reader.join()
            stream.close()
        if progress is not None:
            progress.done()
    return "".join(out)  # whole, because its reader has ended


def _drain(stream: "IO[str]", into: "queue.Queue[Optional[str]]") -> None:
    for line in stream:
        into.put(line.rstrip("\n"))
    into.put(None)


class NotReady(Exception):
    """The control plane did not start, or did not answer."""


class ControlPlane:
    """A running control plane that ends with this process, even if this process is killed."""

    def __init__(self, binaries: Binaries, state: Optional[Path] = None) -> None:
        """Start it; its state lives in the folder `state`, or in a temporary one."""
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
            threading.Thread(target=_drain, args=(self._process.stdout, self._lines), daemon=True),
            threading.Thread(target=lambda: self._errors.extend(self._process.stderr), daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        try:
            self.info: Dict[str, Any] = self._answer()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> "ControlPlane":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process that holds the others."""
        return self._process.pid

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return Path(self.info["kubeconfig"])

    def command(self, line: str) -> Dict[str, Any]:
        """Send a command such as `restart kube-apiserver`; its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def kubectl(self, *arguments: str, timeout: float = 60, **options: Any) -> str:
        """What kubectl prints."""
        env = children.environment({"KUBECONFIG": self.kubeconfig})
        return children.output([self.binaries.kubectl, *arguments], timeout=timeout, env=env, **options)

    def errors(self) -> str:
        """What it said on standard error; only once it has ended."""
        for reader in self._readers:
            reader.join()
        return "".join(self._errors)

    def stop(self) -> int:
        """Stop it in order; the exit status."""
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

    def _answer(self) -> Dict[str, Any]:
        try:
            line = self._lines.get(timeout=READY_TIMEOUT_SECONDS)
        except queue.Empty:
            raise NotReady(f"the control plane said nothing for {READY_TIMEOUT_SECONDS} seconds") from None
        if line is None:
            raise NotReady("the control plane ended:\n" + self.errors().strip())
        return dict(json.loads(line))
