"""Progress output that is immediate on a terminal and readable in a log file."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from typing import Any, Dict, Optional, TextIO

QUIET_INTERVAL_SECONDS = 15.0


class Progress:
    """Rewrites one line on a terminal; otherwise prints at most one line every 15 seconds."""

    def __init__(self, stream: Optional[TextIO] = None) -> None:
        self._given = stream
        self._stream = stream if stream is not None else sys.stderr
        self._tty = self._stream.isatty()
        self._shown = False
        self._last = time.monotonic()

    def say(self, text: str) -> None:
        """Prints a permanent line."""
        self._clear()
        print(text, file=self._stream, flush=True)
        self._last = time.monotonic()

    def update(self, text: str) -> None:
        """Shows the current state."""
        now = time.monotonic()
        if self._tty:
            width = shutil.get_terminal_size().columns
            self._stream.write("\r\x1b[K" + text[: max(1, width - 1)])
            self._stream.flush()
            self._shown = True
        elif now - self._last >= QUIET_INTERVAL_SECONDS:
            print(text, file=self._stream, flush=True)
            self._last = now

    def options(self) -> Dict[str, Any]:
        """Returns Popen options for a program that writes to the same stream, which must be a file if one was given."""
        return {} if self._given is None else {"stdout": self._given, "stderr": subprocess.STDOUT}

    def done(self) -> None:
        """Clears the line that shows the state."""
        self._clear()

    def _clear(self) -> None:
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown = False


def duration(seconds: float) -> str:
    """Formats a duration for people: 4.2 s, 38 s, 7 min 5 s."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s"
