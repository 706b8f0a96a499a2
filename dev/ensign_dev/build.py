"""Builds the control plane and the Rust programs, and shows progress."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, TextIO

from . import children, control_plane, paths
from .failure import Failure
from .progress import Progress


# Always select the whole workspace and the example, even if less is needed: cargo unifies the features of dependencies over
# the selection, so a different selection would compile the dependencies a second time.
SELECTION = ("--locked", "--workspace")
PROGRAMS = ("ensign", "ensign-azure-emulator")
TARGETS = (*(f"--bin={name}" for name in PROGRAMS), "--example=secretless-app")


def cluster(progress: Progress) -> control_plane.Binaries:
    """Returns the control plane and kubectl, built if necessary; cargo downloads the crates in the meantime."""
    if control_plane.is_built():
        return control_plane.ensure(progress)
    progress.say("The first run on a machine builds a Kubernetes control plane. Later runs use the cached build.")
    # Ignore a failure: the build reports it in more detail.
    fetch = children.start(
        ["cargo", "fetch", "--locked"], cwd=paths.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        binaries = control_plane.ensure(progress)
        fetch.wait()
        return binaries
    finally:
        children.end(fetch)


def programs(errors: Optional[TextIO] = None) -> Dict[str, Path]:
    """Builds `ensign`, the Azure emulator and the sample program; returns their paths by name.

    Uses the debug profile: it compiles in a fraction of the time, and the speed of these programs does not matter here.
    """
    return executables(cargo(["build", *SELECTION, *TARGETS], errors))


def cargo(
    arguments: Sequence[str], errors: Optional[TextIO] = None, env: Optional[Dict[str, str]] = None
) -> str:
    """Returns the JSON messages of a cargo build command, one per line; its readable output goes to `errors`."""
    command: "List[children.Argument]" = ["cargo", *arguments]
    with children.start(
        [*command, "--message-format", "json-render-diagnostics"], cwd=paths.ROOT, env=env or children.environment(),
        stdout=subprocess.PIPE, stderr=errors, text=True,
    ) as process:
        try:
            messages, _ = process.communicate()
        finally:
            children.end(process)
    if process.returncode != 0:
        raise Failure(f"`{' '.join(map(str, command))}` failed; see its output above")
    return str(messages)


def executables(messages: str) -> Dict[str, Path]:
    """Returns the executables in cargo's messages, by target name."""
    return {message["target"]["name"]: Path(message["executable"]) for message in artifacts(messages)}


def artifacts(messages: str) -> List[Dict[str, Any]]:
    """Returns cargo's messages about executables."""
    found = [json.loads(line) for line in messages.splitlines() if line.startswith("{")]
    return [one for one in found if one.get("reason") == "compiler-artifact" and one.get("executable")]
