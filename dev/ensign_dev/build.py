"""What has to be built: the control plane and the Rust programs, each with its progress shown."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, TextIO

from . import children, control_plane, paths
from .failure import Failure
from .progress import Progress


# The whole workspace is selected even where not all of it is needed, and the example is always built: which features of
# dependencies are on depends on both, and another choice would compile those dependencies a second time.
SELECTION = ("--locked", "--workspace")
PROGRAMS = ("ensign", "ensign-azure-emulator")
TARGETS = (*(f"--bin={name}" for name in PROGRAMS), "--example=secretless-app")


def cluster(progress: Progress) -> control_plane.Binaries:
    """The control plane and kubectl; while they are compiled, cargo's downloads come in beside."""
    if control_plane.is_built():
        return control_plane.ensure(progress)
    progress.say("The first run on a machine builds a Kubernetes control plane. Later ones find it in the cache.")
    # Its failure is no matter here: the build will say it with more words.
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
    """Builds `ensign`, the emulator of Azure and the sample; where they are, by name.

    In the debug profile: it is compiled in a fraction of release's time, and what is shown with these programs waits
    for other programs, not for them.
    """
    return executables(cargo(["build", *SELECTION, *TARGETS], errors))


def cargo(
    arguments: Sequence[str], errors: Optional[TextIO] = None, env: Optional[Dict[str, str]] = None
) -> str:
    """What a cargo command that builds tells programs, one message a line; what it tells people goes to `errors`."""
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
        raise Failure(f"`{' '.join(map(str, command))}` failed; its words are above")
    return str(messages)


def executables(messages: str) -> Dict[str, Path]:
    """The programs that cargo's messages tell of, by target name."""
    return {message["target"]["name"]: Path(message["executable"]) for message in artifacts(messages)}


def artifacts(messages: str) -> List[Dict[str, Any]]:
    """Cargo's messages of what it built that can be run."""
    found = [json.loads(line) for line in messages.splitlines() if line.startswith("{")]
    return [one for one in found if one.get("reason") == "compiler-artifact" and one.get("executable")]
