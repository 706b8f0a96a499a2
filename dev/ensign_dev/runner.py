"""Runs steps: one at a time on the terminal, or in parallel, each with its own log file."""

from __future__ import annotations

import queue
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, TextIO

from . import children
from .interrupts import uninterrupted
from .output import Output
from .progress import duration
from .schedule import Schedule
from .steps import Outcome, Step, StepFailed

HEARTBEAT_SECONDS = 30.0
# How many lines of a failed step's log are printed.
SHOWN_LINES = 200
JOIN_SECONDS = 0.2


def run_all(steps: Sequence[Step], jobs: int, logs: Path, stream: Optional[TextIO] = None) -> List[Outcome]:
    """Runs every step whose dependencies passed, even after failures of other steps; `logs` is a folder."""
    stream = stream if stream is not None else sys.stdout
    run = OneByOne(steps, 1, stream) if jobs == 1 else SideBySide(steps, jobs, stream, logs)
    return run.all()


class OneByOne:
    """Runs steps in order, in this thread, with the caller's terminal."""

    # Separates a step from the output of the previous one.
    gap = "\n"

    def __init__(self, steps: Sequence[Step], jobs: int, stream: TextIO) -> None:
        self.schedule = Schedule(steps, jobs)
        self._total = len(steps)
        self._started = 0
        self._stream = stream

    def all(self) -> List[Outcome]:
        """Runs all steps; returns their outcomes, in order."""
        while not self.schedule.is_done:
            step = self.next()
            if step is None:
                raise RuntimeError("no step can start, and none is running")
            self.ended(attempt(step, Output()))
        return self.schedule.outcomes

    def next(self) -> Optional[Step]:
        """Announces and returns the next step that may start."""
        step = self.schedule.start()
        if step is not None:
            self._started += 1
            self.print(f"{self.gap}==> [{self._started}/{self._total}] {step.name} ({step.lane}): {step.about}")
        return step

    def ended(self, outcome: Outcome) -> None:
        """Prints the outcome of a step, and of the steps that can't run because of it."""
        for one in [outcome, *self.schedule.end(outcome)]:
            self._started += one.began is None
            verdict = "passed" if one.reason is None else f"FAILED: {one.reason}"
            self.print(f"<== {one.step.name} {verdict} ({duration(one.seconds)})")

    def print(self, text: str) -> None:
        """Prints a line and flushes it."""
        print(text, file=self._stream, flush=True)


class SideBySide(OneByOne):
    """Runs each step in its own thread; only this thread prints."""

    gap = ""

    def __init__(
        self, steps: Sequence[Step], jobs: int, stream: TextIO, logs: Path, heartbeat_seconds: float = HEARTBEAT_SECONDS
    ) -> None:
        super().__init__(steps, jobs, stream)
        self._logs = logs
        self._began = time.monotonic()
        self._starts: Dict[str, float] = {}
        self._threads: List[threading.Thread] = []
        self._ends: "queue.Queue[Outcome]" = queue.Queue()
        self._heartbeat_seconds = heartbeat_seconds
        self._next_heartbeat = self._began + heartbeat_seconds
        logs.mkdir(parents=True, exist_ok=True)
        for old in logs.glob("*.log"):
            old.unlink()

    def all(self) -> List[Outcome]:
        try:
            while not self.schedule.is_done:
                self._start()
                self.ended(self._await())
        except BaseException:
            with uninterrupted():
                self._end_all()
            raise
        return self.schedule.outcomes

    def ended(self, outcome: Outcome) -> None:
        if outcome.reason is not None:
            self.print(self._excerpt(outcome.step))
        super().ended(outcome)

    def _start(self) -> None:
        step = self.next()
        while step is not None:
            self._starts[step.name] = time.monotonic()
            thread = threading.Thread(target=self._work, args=(step,), name=step.name, daemon=True)
            self._threads.append(thread)
            thread.start()
            step = self.next()

    def _work(self, step: Step) -> None:
        with open(self._log(step), "a", encoding="utf-8", errors="replace") as file:
            outcome = attempt(step, Output(file))
        self._ends.put(outcome)

    def _await(self) -> Outcome:
        """Waits for the next step to finish; prints the running steps from time to time."""
        if not self.schedule.running:
            raise RuntimeError("no step can start, and none is running")
        while True:
            try:
                return self._ends.get(timeout=max(0.0, self._next_heartbeat - time.monotonic()))
            except queue.Empty:
                self._next_heartbeat = time.monotonic() + self._heartbeat_seconds
                self.print(self._heartbeat())

    def _heartbeat(self) -> str:
        now = time.monotonic()
        running = [f"{step.name} {duration(now - self._starts[step.name])}" for step in self.schedule.running]
        line = f"... {duration(now - self._began)}: {', '.join(running)}"
        # If all others wait for one step, its progress is of interest.
        last = self._lines(self.schedule.running[0])[-1:] if len(running) == 1 else []
        return f"{line} | {last[0][:100]}" if last else line

    def _excerpt(self, step: Step) -> str:
        """Returns the end of a failed step's log."""
        lines, log = self._lines(step), self._log(step)
        title = f"--- {log}"
        if len(lines) > SHOWN_LINES:
            title += f", last {SHOWN_LINES} lines"
        return "\n".join([title, *lines[-SHOWN_LINES:], "---"])

    def _lines(self, step: Step) -> List[str]:
        return self._log(step).read_text(encoding="utf-8", errors="replace").splitlines()

    def _log(self, step: Step) -> Path:
        return self._logs / f"{step.name}.log"

    def _end_all(self) -> None:
        """Terminates the steps' child processes until all steps have finished, because a step may start another one."""
        while any(thread.is_alive() for thread in self._threads):
            children.end_all()
            for thread in self._threads:
                thread.join(JOIN_SECONDS)


def attempt(step: Step, output: Output, clock: Callable[[], float] = time.monotonic) -> Outcome:
    """Runs a step and returns its outcome; only interrupts propagate."""
    began = clock()
    reason: Optional[str] = None
    try:
        step.run(output)
    except StepFailed as failed:
        reason = str(failed)
    except Exception as error:  # a bug in a step must not hide the other steps
        output.say(traceback.format_exc())
        reason = f"{type(error).__name__}: {error}"
    return Outcome(step, began, clock() - began, reason)
