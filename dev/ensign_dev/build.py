"""What has to be built: the control plane and the Rust programs, each with its progress shown."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

from . import children, control_plane, paths
from .failure import Failure
from .progress import Progress


# The example is built with the binary even where it is not needed: targets of tests and examples turn on features of
# dependencies, and building the binary without them would compile those dependencies a second time.
TARGETS = ("--bin=ensign", "--example=secretless-app")


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


def programs() -> Dict[str, Path]:
    """Builds `ensign` and the sample; where they are, by name.

    In the debug profile: it is compiled in a fraction of release's time, and what is shown with these programs waits
    for other programs, not for them.
    """
    command: "List[children.Argument]" = ["cargo", "build", "--locked", "--features", "emulator", *TARGETS]
    # Diagnostics and progress go to stderr for people; stdout tells where the programs are.
    result = subprocess.run(
        [*command, "--message-format", "json-render-diagnostics"], cwd=paths.ROOT, env=children.environment(),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=sys.stderr, text=True, check=False,
    )
    if result.returncode != 0:
        raise Failure(f"`{' '.join(map(str, command))}` failed; its words are above")
    return executables(result.stdout)


def executables(messages: str) -> Dict[str, Path]:
    """The programs that cargo's messages tell of, by target name."""
    found: Dict[str, Path] = {}
    for line in messages.splitlines():
        message = json.loads(line)
        if message.get("reason") == "compiler-artifact" and message.get("executable"):
            found[message["target"]["name"]] = Path(message["executable"])
    return found
