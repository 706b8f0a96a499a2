"""The demo's report for machines: `target/demo/report.json`."""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List

# The three parts of a JWT. A report is kept and passed on, so nothing that looks like a token gets into one.
TOKEN = re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*")


class Report:
    """The steps of a run, in order. It is good when every planned step was taken and held."""

    def __init__(self, planned: List[str], mode: str = "webhook") -> None:
        self.planned = planned
        self.mode = mode
        self.build_seconds = 0.0
        self.steps: List[Dict[str, Any]] = []

    @contextmanager
    def step(self, name: str) -> Iterator[Dict[str, Any]]:
        """Times a step; the block fills its detail. An exception makes the step a failed one, and goes on."""
        if name not in self.planned:
            raise KeyError(name)
        detail: Dict[str, Any] = {}
        started = time.monotonic()
        ok = False
        try:
            yield detail
            ok = True
        except BaseException as error:
            detail["error"] = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
            raise
        finally:
            seconds = round(time.monotonic() - started, 3)
            self.steps.append({"name": name, "ok": ok, "seconds": seconds, "detail": detail})

    @property
    def ok(self) -> bool:
        """Whether every planned step was taken, in order, and held."""
        return [step["name"] for step in self.steps if step["ok"]] == self.planned

    def as_json(self) -> str:
        """The report's text."""
        whole = {"ok": self.ok, "mode": self.mode, "build_seconds": round(self.build_seconds, 3), "steps": self.steps}
        return TOKEN.sub("[token removed]", json.dumps(whole, indent=2)) + "\n"

    def write(self, file: Path) -> None:
        """Writes the report, whole or not at all."""
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_suffix(".tmp")
        fresh.write_text(self.as_json())
        os.replace(fresh, file)
