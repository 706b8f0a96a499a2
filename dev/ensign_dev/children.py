"""The environment of child processes, and how they are run and ended.

Nothing we start may reach the cluster or the Azure account that the caller's
shell happens to be configured for.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Set, Union

Argument = Union[str, "os.PathLike[str]"]

# Ambient credentials, targets and settings: dropped from every child's environment.
AMBIENT_PREFIXES = ("AZURE_", "ARM_", "MSI_", "IDENTITY_", "KUBERNETES_", "KUBE_", "KUBECTL_", "HELM_", "ENSIGN_")
AMBIENT_NAMES = ("KUBECONFIG", "KUBERC")
# What a caller may say to the tests themselves.
KEPT_NAMES = (
    "ENSIGN_CACHE_DIR",
    "ENSIGN_CONTROL_PLANE",
    "ENSIGN_KUBECTL",
    "ENSIGN_HELM",
    "ENSIGN_TEST_KUBECONFIG",
    "ENSIGN_TEST_ALLOW_REMOTE",
)
LOOPBACK = ("127.0.0.1", "::1", "localhost")

# What `start` started and `end` has not ended yet, by any thread.
_started: "Set[subprocess.Popen[Any]]" = set()
_lock = threading.Lock()


def environment(
    extra: Optional[Mapping[str, Argument]] = None, base: Optional[Mapping[str, str]] = None
) -> Dict[str, str]:
    """The environment for a child: `base` (the caller's) without what is ambient, plus `extra`."""
    source = os.environ if base is None else base
    kept = {
        name: value
        for name, value in source.items()
        if name in KEPT_NAMES or not (name in AMBIENT_NAMES or name.startswith(AMBIENT_PREFIXES))
    }
    # Without KUBECONFIG, clients fall back to ~/.kube/config. An empty file stops them.
    kept["KUBECONFIG"] = os.devnull
    kept["KUBERC"] = "off"
    # Everything we start listens on loopback: a proxy must not get between.
    for name in ("NO_PROXY", "no_proxy"):
        listed = [entry for entry in kept.get(name, "").split(",") if entry]
        kept[name] = ",".join(listed + [host for host in LOOPBACK if host not in listed])
    kept.update({name: os.fspath(value) for name, value in (extra or {}).items()})
    return kept


def output(command: List[Argument], timeout: float = 60, **options: Any) -> str:
    """What a command prints on standard output; its failure is an exception with its stderr."""
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
    """A command ended with a status other than 0."""

    def __init__(self, command: List[Argument], status: int, stderr: str = "") -> None:
        words = " ".join(os.fspath(word) for word in command)
        super().__init__(f"`{words}` failed with status {status}" + (f":\n{stderr.strip()}" if stderr.strip() else ""))
        self.status = status
        self.stderr = stderr


def start(command: List[Argument], **options: Any) -> "subprocess.Popen[Any]":
    """Start a command in a process group of its own, so that `end` reaches its children too."""
    options.setdefault("env", environment())
    options.setdefault("stdin", subprocess.DEVNULL)
    # Under the lock, so that `end_all` misses none.
    with _lock:
        process = subprocess.Popen(command, start_new_session=True, **options)
        _started.add(process)
    return process


def end(process: "subprocess.Popen[Any]", grace_seconds: float = 5) -> None:
    """End a command that `start` started, with everything in its process group."""
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
    """End every command that `start` started and nobody has ended, all at a time."""
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
    """Run a command with its output shown; its status, or 124 if it took longer than `timeout` seconds."""
    process = start(command, cwd=cwd, env=env if env is not None else environment(), **options)
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return 124
    finally:
        end(process)
