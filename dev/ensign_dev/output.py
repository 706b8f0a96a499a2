"""The output of a step and of the programs that it starts: the caller's terminal, or a log file."""

from __future__ import annotations

import sys
from typing import Any, Dict, Optional, TextIO

from .progress import Progress


class Output:
    """The terminal, unless there is a file. The file must be open for appending, because child processes write to it too."""

    def __init__(self, file: Optional[TextIO] = None) -> None:
        self._file = file
        self.progress = Progress(file)

    def say(self, text: str) -> None:
        """Writes a line and flushes it, so that it precedes the output of programs started later."""
        print(text, file=self._file or sys.stdout, flush=True)

    def options(self) -> Dict[str, Any]:
        """Returns Popen options for a program that writes here."""
        return self.progress.options()

    @property
    def errors(self) -> Optional[TextIO]:
        """Where standard error goes for a program whose standard output is captured; None is the caller's."""
        return self._file
