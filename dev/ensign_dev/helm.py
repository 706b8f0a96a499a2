"""helm for the chart tests, built once into the cache from the tool in tests/helm/go.mod."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import List, NamedTuple, Optional

from . import cache, children, paths
from .failure import Failure
from .go_module import BuildFailed, GoModule, build_key
from .progress import Progress

PACKAGE = "helm.sh/helm/v4/cmd/helm"
TIMEOUT_SECONDS = 120.0


def ensure(progress: Progress) -> Path:
    """Returns the binary, and builds it unless a build of the same version is cached."""
    chosen = os.environ.get("ENSIGN_HELM")
    if chosen:
        return Path(chosen).resolve()
    key = build_key(paths.HELM_SOURCE)
    return cache.entry("helm", key, lambda target: _build(target, progress), progress) / "helm"


def _build(target: Path, progress: Progress) -> None:
    module = GoModule("helm", paths.HELM_SOURCE, [PACKAGE])
    module.prefetch(progress)
    module.build(target, progress)
    if not os.access(target / "helm", os.X_OK):
        raise BuildFailed("the Go build did not produce `helm`")


class Result(NamedTuple):
    """The result of a command."""

    status: int
    out: str
    error: str


class Helm:
    """helm with its own home and at most one cluster, never the caller's."""

    def __init__(self, program: Path, home: Path, kubeconfig: Optional[Path] = None) -> None:
        self.program = program
        home.mkdir(parents=True, exist_ok=True)
        folders = {f"HELM_{name}_HOME": home / name.lower() for name in ("CACHE", "CONFIG", "DATA")}
        self._env = children.environment({**folders, "KUBECONFIG": kubeconfig or os.devnull})

    def try_(self, *arguments: children.Argument, timeout: float = TIMEOUT_SECONDS) -> Result:
        """Runs a command that may fail."""
        command: List[children.Argument] = [self.program, *arguments]
        try:
            result = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=timeout,
                env=self._env,
            )
        except subprocess.TimeoutExpired:
            raise Failure(f"`helm {arguments[0]}` took longer than {timeout:.0f} seconds") from None
        return Result(result.returncode, result.stdout, result.stderr)

    def __call__(self, *arguments: children.Argument, timeout: float = TIMEOUT_SECONDS) -> str:
        """Returns the output of a command; raises `Failure` with its error message if it fails."""
        result = self.try_(*arguments, timeout=timeout)
        if result.status != 0:
            words = " ".join(os.fspath(one) for one in arguments)
            raise Failure(f"`helm {words}` failed: {(result.error or result.out).strip()}")
        return result.out
