"""What every part of the benchmark is given."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from .. import build, children, environment, paths
from ..failure import Failure
from ..progress import Progress, duration


@dataclass(frozen=True)
class Context:
    """Programs of the release profile, a folder to work in, and how often to measure."""

    progress: Progress
    # What an environment is made of: this `ensign` has the stand-in for Azure, too.
    programs: environment.Programs
    # The `ensign` that is measured: the image's.
    measured: Path
    drivers: Mapping[str, Path]
    folder: Path
    runs: int
    # The parts that were asked for by name; none means those that need not be named.
    chosen: Tuple[str, ...] = ()

    def environment(self, part: str) -> environment.Environment:
        """A control plane with Azure's stand-in and Ensign, not started, for this part alone."""
        return environment.Environment(self.folder / part, self.progress)

    def drive(
        self, name: str, arguments: List[str], timeout: float, env: Optional[Mapping[str, children.Argument]] = None,
    ) -> Dict[str, Any]:
        """What a driver prints; what it says on its way goes to standard error."""
        command: "List[children.Argument]" = [self.drivers[name], *arguments]
        try:
            done = subprocess.run(
                command, env=children.environment(env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=sys.stderr, text=True, timeout=timeout, check=False,
            )
        except subprocess.TimeoutExpired:
            raise Failure(f"the driver {name} did not end within {duration(timeout)}") from None
        if done.returncode != 0:
            raise Failure(f"the driver {name} ended with status {done.returncode}; its words are above")
        return dict(json.loads(done.stdout))


def build_programs(drivers: Tuple[str, ...]) -> Dict[str, Path]:
    """Builds `ensign` with the stand-in for Azure, and these drivers; where they are, by name."""
    command: "List[children.Argument]" = [
        "cargo", "build", "--locked", "--release", "--features", "emulator", "--bin=ensign",
        *(f"--bench={name}" for name in drivers), "--message-format", "json-render-diagnostics",
    ]
    result = subprocess.run(
        command, cwd=paths.ROOT, env=children.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=sys.stderr, text=True, check=False,
    )
    if result.returncode != 0:
        raise Failure(f"`{' '.join(map(str, command))}` failed; its words are above")
    return build.executables(result.stdout)
