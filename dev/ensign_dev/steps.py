"""Named steps that all run, with a summary that says which failed."""

from __future__ import annotations

import sys
import time
from typing import Callable, List, NamedTuple, Optional, TextIO

from .progress import duration


class StepFailed(Exception):
    """A step did not hold; the message says why in one line."""


class Step(NamedTuple):
    """One part of the tests."""

    name: str
    about: str
    run: Callable[[], None]


class Outcome(NamedTuple):
    """How a step ended; no `reason` means that it passed."""

    step: Step
    seconds: float
    reason: Optional[str]


def run_all(steps: List[Step], stream: Optional[TextIO] = None) -> List[Outcome]:
    """Run every step, whatever became of those before it."""
    stream = stream if stream is not None else sys.stdout
    outcomes = []
    for number, step in enumerate(steps, 1):
        print(f"\n==> [{number}/{len(steps)}] {step.name}: {step.about}", file=stream, flush=True)
        started = time.monotonic()
        reason: Optional[str] = None
        try:
            step.run()
        except StepFailed as failed:
            reason = str(failed)
        except Exception as error:  # a bug in a step must not hide the other steps
            reason = f"{type(error).__name__}: {error}"
        outcome = Outcome(step, time.monotonic() - started, reason)
        outcomes.append(outcome)
        verdict = "passed" if reason is None else f"FAILED: {reason}"
        print(f"<== {step.name} {verdict} ({duration(outcome.seconds)})", file=stream, flush=True)
    return outcomes


def summary(outcomes: List[Outcome]) -> str:
    """A table of all steps and the closing line."""
    width = max((len(outcome.step.name) for outcome in outcomes), default=0)
    lines = ["", "Summary"]
    for outcome in outcomes:
        mark = "pass" if outcome.reason is None else "FAIL"
        # The first line of a reason: the rest stands where the step ran.
        reason = "" if outcome.reason is None else "  " + outcome.reason.splitlines()[0]
        lines.append(f"  {mark}  {outcome.step.name:<{width}}  {duration(outcome.seconds):>12}{reason}")
    failed = sum(outcome.reason is not None for outcome in outcomes)
    lines += ["", f"{len(outcomes) - failed} passed, {failed} failed"]
    return "\n".join(lines)


def choose(steps: List[Step], names: List[str]) -> List[Step]:
    """The steps of these names, in their usual order; all of them for no name."""
    known = {step.name for step in steps}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no step is called {', '.join(unknown)}; there are: {', '.join(sorted(known))}")
    return [step for step in steps if not names or step.name in names]
