"""Starts, runs and terminates child processes.

No child process may reach the cluster or the Azure account that the caller's shell happens to be configured for.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Set, Union

Argument = Union[str, "os.PathLike[str]"]

# Ambient credentials, targets and settings: removed from every child's environment.
AMBIENT_PREFIXES = ("AZURE_", "ARM_", "MSI_", "IDENTITY_", "KUBERNETES_", "KUBE_", "KUBECTL_", "HELM_", "ENSIGN_")
AMBIENT_NAMES = ("KUBECONFIG", "KUBERC")
# Settings of the tests themselves.
KEPT_NAMES = (
    "ENSIGN_CACHE_DIR",
    "ENSIGN_CONTROL_PLANE",
    "ENSIGN_KUBECTL",
    "ENSIGN_HELM",
    "ENSIGN_TEST_KUBECONFIG",
    "ENSIGN_TEST_ALLOW_REMOTE",
)
LOOPBACK = ("127.0.0.1", "::1", "localhost")

# Processes that `start` started and `end` has not terminated yet, from all threads.
_started: "Set[subprocess.Popen[Any]]" = set()
_lock = threading.Lock()


def environment(
    extra: Optional[Mapping[str, Argument]] = None, base: Optional[Mapping[str, str]] = None
) -> Dict[str, str]:
    """Returns the environment for a child: `base` (default: the caller's) without ambient settings, plus `extra`."""
    source = os.environ if base is None else base
    kept = {
        name: value
        for name, value in source.items()
        if name in KEPT_NAMES or not (name in AMBIENT_NAMES or name.startswith(AMBIENT_PREFIXES))
    }
    # Without KUBECONFIG, clients fall back to ~/.kube/config. An empty file prevents that.
    kept["KUBECONFIG"] = os.devnull
    kept["KUBERC"] = "off"
    # All servers that are started listen on loopback and must be reached without a proxy.
    for name in ("NO_PROXY", "no_proxy"):
        listed = [entry for entry in kept.get(name, "").split(",") if entry]
        kept[name] = ",".join(listed + [host for host in LOOPBACK if host not in listed])
    kept.update({name: os.fspath(value) for name, value in (extra or {}).items()})
    return kept


def output(command: List[Argument], timeout: float = 60, **options: Any) -> str:
    """Returns the standard output of a command; raises `CommandFailed` with its standard error if it fails."""
    given = options.pop("input", None)
    if given is not None:
        options["stdin"] = subprocess.PIPE
    with start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options) as process:
        try:
            out, error = process.communicate(given, timeout)
        finally:
            end(process)
    if process.returncode != 0:
        raise CommandFailed(command, process.returncode, error)
    return str(out)


class CommandFailed(Exception):
    """A command exited with a status other than 0."""

    def __init__(self, command: List[Argument], status: int, stderr: str = "") -> None:
        words = " ".join(os.fspath(word) for word in command)
        super().__init__(f"`{words}` failed with status {status}" + (f":\n{stderr.strip()}" if stderr.strip() else ""))
        self.status = status
        self.stderr = stderr


def start(command: List[Argument], **options: Any) -> "subprocess.Popen[Any]":
    """Starts a command in its own process group, so that `end` reaches its children too."""
    options.setdefault("env", environment())
    options.setdefault("stdin", subprocess.DEVNULL)
    # Under the lock, so that `end_all` does not miss a process.
    with _lock:
        process = subprocess.Popen(command, start_new_session=True, **options)
        _started.add(process)
    return process


def end(process: "subprocess.Popen[Any]", grace_seconds: float = 5) -> None:
    """Terminates a command that `start` started, with its whole process group."""
    for how, wait in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, grace_seconds)):
        if process.poll() is not None and how is signal.SIGTERM:
            continue
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            pass
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            continue
    with _lock:
        _started.discard(process)


def end_all(grace_seconds: float = 5) -> None:
    """Terminates every command that `start` started and that is not terminated yet, concurrently."""
    with _lock:
        processes = list(_started)
    threads = [threading.Thread(target=end, args=(process, grace_seconds), daemon=True) for process in processes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run(
    command: List[Argument], cwd: Path, timeout: float, env: Optional[Dict[str, str]] = None, **options: Any
) -> int:
    """Runs a command and shows its output; returns its exit status, or 124 if it exceeded `timeout` seconds."""
    process = start(command, cwd=cwd, env=env if env is not None else environment(), **options)
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return 124
    finally:
        end(process)
