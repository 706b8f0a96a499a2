"""The demo's machine-readable report: `target/demo/report.json`."""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List

# The three parts of a JWT. Reports are kept and shared, so anything that looks like a token is removed.
TOKEN = re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*")


class Report:
    """The steps of a run, in order. It is ok if every planned step was run and passed."""

    def __init__(self, planned: List[str], mode: str = "webhook") -> None:
        self.planned = planned
        self.mode = mode
        self.build_seconds = 0.0
        self.steps: List[Dict[str, Any]] = []

    @contextmanager
    def step(self, name: str) -> Iterator[Dict[str, Any]]:
        """Times a step; the block fills in its details. An exception marks the step as failed and propagates."""
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
        """Whether every planned step was run, in order, and passed."""
        return [step["name"] for step in self.steps if step["ok"]] == self.planned

    def as_json(self) -> str:
        """Returns the report as JSON."""
        whole = {"ok": self.ok, "mode": self.mode, "build_seconds": round(self.build_seconds, 3), "steps": self.steps}
        return TOKEN.sub("[token removed]", json.dumps(whole, indent=2)) + "\n"

    def write(self, file: Path) -> None:
        """Writes the report atomically."""
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_suffix(".tmp")
        fresh.write_text(self.as_json())
        os.replace(fresh, file)
