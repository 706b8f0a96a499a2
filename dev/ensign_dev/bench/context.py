"""What every part of the benchmark gets."""

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
    # The programs of an environment, compiled like the drivers.
    programs: environment.Programs
    # The measured `ensign`: that of the image.
    measured: Path
    drivers: Mapping[str, Path]
    folder: Path
    runs: int
    # The parts requested by name; none means all that need not be named.
    chosen: Tuple[str, ...] = ()

    def environment(self, part: str) -> environment.Environment:
        """A control plane with the Azure emulator and Ensign for this part alone, not started yet."""
        return environment.Environment(self.folder / part, self.progress)

    def drive(
        self, name: str, arguments: List[str], timeout: float, env: Optional[Mapping[str, children.Argument]] = None,
    ) -> Dict[str, Any]:
        """The result that a driver prints; its progress goes to standard error."""
        command: "List[children.Argument]" = [self.drivers[name], *arguments]
        try:
            done = subprocess.run(
                command, env=children.environment(env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=sys.stderr, text=True, timeout=timeout, check=False,
            )
        except subprocess.TimeoutExpired:
            raise Failure(f"the driver {name} did not finish within {duration(timeout)}") from None
        if done.returncode != 0:
            raise Failure(f"the driver {name} exited with status {done.returncode}; see its output above")
        return dict(json.loads(done.stdout))


def build_programs(drivers: Tuple[str, ...]) -> Dict[str, Path]:
    """Builds `ensign`, the Azure emulator and these drivers; returns their paths by name."""
    targets = [*(f"--bin={name}" for name in build.PROGRAMS), *(f"--bench={name}" for name in drivers)]
    return build.executables(build.cargo(["build", *build.SELECTION, "--release", *targets]))
