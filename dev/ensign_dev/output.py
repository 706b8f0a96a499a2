"""Where a step and the programs that it starts write: the caller's terminal, or a file of its own."""

from __future__ import annotations

import sys
from typing import Any, Dict, Optional, TextIO

from .progress import Progress


class Output:
    """The terminal, unless there is a file. A file has to be open for appending, because programs write into it too."""

    def __init__(self, file: Optional[TextIO] = None) -> None:
        self._file = file
        self.progress = Progress(file)

    def say(self, text: str) -> None:
        """Write a line, before whatever a program that is started next writes."""
        print(text, file=self._file or sys.stdout, flush=True)

    def options(self) -> Dict[str, Any]:
        """How a program is started so that it writes here."""
        return self.progress.options()

    @property
    def errors(self) -> Optional[TextIO]:
        """Where the standard error of a program goes whose standard output is read; None is the caller's own."""
        return self._file
