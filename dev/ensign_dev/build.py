"""The Rust programs, built with cargo's own progress shown."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

from . import children, paths
from .failure import Failure


def cargo(*targets: str) -> Dict[str, Path]:
    """Builds targets such as `--bin=ensign`; where the programs are, by name.

    In the debug profile: it is compiled in a fraction of release's time, and what is shown with these programs waits
    for other programs, not for them.
    """
    command: "List[children.Argument]" = ["cargo", "build", "--locked", "--features", "emulator", *targets]
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
