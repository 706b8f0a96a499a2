"""kubectl with an explicit kubeconfig, never the caller's."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

from . import children
from .failure import Failure

TIMEOUT_SECONDS = 60.0


class Result(NamedTuple):
    """The result of a command."""

    status: int
    out: str
    error: str


class Kubectl:
    """kubectl with a kubeconfig."""

    def __init__(self, program: Path, kubeconfig: Path, cache: Path) -> None:
        self.program = program
        self.kubeconfig = kubeconfig
        self._cache = cache

    def try_(self, *arguments: str, stdin: Optional[str] = None, timeout: float = TIMEOUT_SECONDS) -> Result:
        """Runs a command that may fail."""
        # Each environment has its own discovery cache: ports are reused, and the cache is keyed by host and port.
        command: "List[children.Argument]" = [
            self.program, "--kubeconfig", self.kubeconfig, "--cache-dir", self._cache,
            f"--request-timeout={timeout:.0f}s", *arguments,
        ]
        given: Dict[str, Any] = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
        try:
            result = subprocess.run(
                command, capture_output=True, text=True, check=False,
                timeout=timeout + 10, env=children.environment(), **given,
            )
        except subprocess.TimeoutExpired:
            raise Failure(f"`kubectl {_shown(arguments)}` took longer than {timeout + 10:.0f} seconds") from None
        return Result(result.returncode, result.stdout, result.stderr)

    def __call__(self, *arguments: str, stdin: Optional[str] = None, timeout: float = TIMEOUT_SECONDS) -> str:
        """Returns the output of a command; raises `Failure` with its error message if it fails."""
        result = self.try_(*arguments, stdin=stdin, timeout=timeout)
        if result.status != 0:
            raise Failure(f"`kubectl {_shown(arguments)}` failed: {(result.error or result.out).strip()}")
        return result.out

    def json(self, *arguments: str) -> Dict[str, Any]:
        """Returns the decoded object or list that a command prints."""
        return dict(json.loads(self(*arguments, "-o", "json")))

    def token(
        self,
        namespace: str,
        service_account: str,
        expiration_seconds: int,
        audience: Optional[str] = None,
        pod: Optional["PodReference"] = None,
    ) -> str:
        """Requests a service account token (TokenRequest), bound to a pod if one is given."""
        arguments = ["create", "token", service_account, "-n", namespace, f"--duration={expiration_seconds}s"]
        if audience is not None:
            arguments += ["--audience", audience]
        if pod is not None:
            arguments += ["--bound-object-kind", "Pod", "--bound-object-name", pod.name, "--bound-object-uid", pod.uid]
        return self(*arguments).strip()


class PodReference(NamedTuple):
    """A pod that a token is bound to."""

    name: str
    uid: str


def _shown(arguments: "tuple[str, ...]") -> str:
    return " ".join(arguments)
