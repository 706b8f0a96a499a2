"""Prints the demo's narration: plain text, the same on a terminal and in a log."""

from __future__ import annotations

import sys
import textwrap
from typing import Any, Dict, List, Optional, TextIO

from .progress import duration

WIDTH = 100
INDENT = "  "


class Narrator:
    """Narrates a run step by step."""

    def __init__(self, steps: int, stream: Optional[TextIO] = None) -> None:
        self._steps = steps
        self._step = 0
        self._stream = stream if stream is not None else sys.stdout
        self._after_blank = False

    def title(self, text: str, *paragraphs: str) -> None:
        """Prints the title and an introduction."""
        self._print("", text, "=" * len(text))
        for paragraph in paragraphs:
            self._print(*_wrapped(paragraph, ""), "")

    def step(self, text: str) -> None:
        """Prints the heading of the next step."""
        self._step += 1
        heading = f"[{self._step}/{self._steps}] {text}"
        self._print("", heading, "-" * len(heading))

    def say(self, text: str) -> None:
        """Prints a paragraph."""
        self._print(*_wrapped(text, INDENT))

    def command(self, text: str) -> None:
        """Prints a command before it is run."""
        self._print("", f"{INDENT}$ {text}")

    def output(self, text: str) -> None:
        """Prints the output of a command."""
        self._print(*(f"{INDENT}  {line}".rstrip() for line in text.strip("\n").splitlines()), "")

    def facts(self, facts: Dict[str, Any]) -> None:
        """Prints names and values, aligned."""
        width = max(len(name) for name in facts)
        self._print("", *(f"{INDENT}  {name:<{width}}  {_plain(value)}" for name, value in facts.items()), "")

    def passed(self, seconds: float) -> None:
        """Prints that the step passed."""
        self._print(f"{INDENT}OK ({duration(seconds)})")

    def failed(self, why: str) -> None:
        """Prints that the step failed."""
        self._print(*(f"{INDENT}{line}".rstrip() for line in f"FAILED: {why}".splitlines()))

    def closing(self, *lines: str) -> None:
        """Prints the last lines."""
        self._print("", *lines)

    def _print(self, *lines: str) -> None:
        """Prints lines, but never two consecutive blank lines."""
        for line in lines:
            if line or not self._after_blank:
                print(line, file=self._stream)
            self._after_blank = not line
        self._stream.flush()


def _wrapped(text: str, indent: str) -> List[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(one) for one in value)
    return str(value)
