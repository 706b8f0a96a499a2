"""What the demo says: plain text that reads the same on a terminal and in a log."""

from __future__ import annotations

import sys
import textwrap
from typing import Any, Dict, List, Optional, TextIO

from .progress import duration

WIDTH = 100
INDENT = "  "


class Narrator:
    """Tells a run, step by step."""

    def __init__(self, steps: int, stream: Optional[TextIO] = None) -> None:
        self._steps = steps
        self._step = 0
        self._stream = stream if stream is not None else sys.stdout
        self._after_blank = False

    def title(self, text: str, *paragraphs: str) -> None:
        """The beginning."""
        self._print("", text, "=" * len(text))
        for paragraph in paragraphs:
            self._print(*_wrapped(paragraph, ""), "")

    def step(self, text: str) -> None:
        """The heading of the next step."""
        self._step += 1
        heading = f"[{self._step}/{self._steps}] {text}"
        self._print("", heading, "-" * len(heading))

    def say(self, text: str) -> None:
        """A paragraph."""
        self._print(*_wrapped(text, INDENT))

    def command(self, text: str) -> None:
        """A command that is run."""
        self._print("", f"{INDENT}$ {text}")

    def output(self, text: str) -> None:
        """What a command said."""
        self._print(*(f"{INDENT}  {line}".rstrip() for line in text.strip("\n").splitlines()), "")

    def facts(self, facts: Dict[str, Any]) -> None:
        """Names and values, aligned."""
        width = max(len(name) for name in facts)
        self._print("", *(f"{INDENT}  {name:<{width}}  {_plain(value)}" for name, value in facts.items()), "")

    def held(self, seconds: float) -> None:
        """The step held."""
        self._print(f"{INDENT}OK ({duration(seconds)})")

    def failed(self, why: str) -> None:
        """The step did not hold."""
        self._print(*(f"{INDENT}{line}".rstrip() for line in f"FAILED: {why}".splitlines()))

    def closing(self, *lines: str) -> None:
        """The end."""
        self._print("", *lines)

    def _print(self, *lines: str) -> None:
        """Prints lines, never two blank ones in a row."""
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
