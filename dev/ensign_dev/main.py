"""Entry point of the scripts behind the make targets."""

from __future__ import annotations

import subprocess
import sys
from typing import Callable, NoReturn

from .azure_clients import NotInstalled
from .children import CommandFailed
from .control_plane import BuildFailed
from .failure import Failure
from .interrupts import end_as_ctrl_c_does

INTERRUPTED_STATUS = 130


def run(script: Callable[[], int]) -> NoReturn:
    """Runs a script and exits. SIGTERM and SIGHUP act like Ctrl-C, and failures are printed without a traceback."""
    end_as_ctrl_c_does()
    try:
        status = script()
    except (Failure, BuildFailed, NotInstalled, CommandFailed, subprocess.TimeoutExpired) as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = INTERRUPTED_STATUS
    sys.exit(status)

