"""Named steps, each in a lane, and the summary of their outcomes."""

from __future__ import annotations

from typing import Callable, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple

from .output import Output
from .progress import duration

LANES = {
    "lint": "static checks and compilation",
    "unit": "tests that need no control plane",
    "integration": "tests against a real control plane, and tests of the emulator",
    "az": "the Azure CLI against the emulator",
    "chart": "the Helm chart and the image",
    "faults": "fault injection, and mutants that have to be caught",
    "demo": "the demo, end to end",
}
# Weights of steps: one that mostly waits, and one that keeps all cores busy.
WAITING = 1
BUSY = 2


class StepFailed(Exception):
    """A step failed; the message gives the reason in one line."""


class Step(NamedTuple):
    """One part of the test suite."""

    name: str
    lane: str
    about: str
    run: Callable[[Output], None]
    after: Tuple[str, ...] = ()
    """Its dependencies: it is not run unless all of them passed."""
    yields_to: Tuple[str, ...] = ()
    """Steps that it waits for if they are selected, passed or not, because their load would disturb it."""
    uses: Tuple[str, ...] = ()
    """Names of resources that it uses exclusively while it runs."""
    weight: int = WAITING
    alone: bool = False
    """Whether no other step may run at the same time."""


class Outcome(NamedTuple):
    """The outcome of a step; without a `reason`, it passed."""

    step: Step
    began: Optional[float]
    """In seconds of a clock that all outcomes share; None if the step was not run."""
    seconds: float
    reason: Optional[str]


def choose(
    steps: Sequence[Step], names: Sequence[str] = (), lanes: Sequence[str] = (), without: Sequence[str] = ()
) -> List[Step]:
    """Returns the steps with these names or lanes (default: all), except the lanes `without`, and all dependencies."""
    _require_known("step", names, {step.name for step in steps})
    _require_known("lane", [*lanes, *without], set(LANES))
    wanted = {
        step.name for step in steps
        if (step.name in names or step.lane in lanes or not (names or lanes)) and step.lane not in without
    }
    for step in reversed(steps):  # dependencies come before a step
        if step.name in wanted:
            wanted.update(step.after)
    return [step for step in steps if step.name in wanted]


def listing(steps: Sequence[Step]) -> str:
    """Lists all steps by lane, with their dependencies."""
    lines = []
    for lane, about in LANES.items():
        lines.append(f"{lane}: {about}")
        for step in steps:
            if step.lane == lane:
                needs = f" (after {', '.join(step.after)})" if step.after else ""
                lines.append(f"  {step.name:<20} {step.about}{needs}")
    return "\n".join(lines)


def summary(outcomes: Sequence[Outcome]) -> str:
    """Returns a table of the steps, a table of the lanes, and the totals."""
    width = max((len(outcome.step.name) for outcome in outcomes), default=0)
    lines = ["", "Summary"]
    for outcome in outcomes:
        mark = "pass" if outcome.reason is None else "FAIL"
        # Only the first line: the rest is in the step's output.
        reason = "" if outcome.reason is None else "  " + outcome.reason.splitlines()[0]
        step = outcome.step
        lines.append(f"  {mark}  {step.lane:<11}  {step.name:<{width}}  {duration(outcome.seconds):>12}{reason}")
    lines += ["", f"  {'lane':<11}  {'sum of steps':>12}  {'wall time':>12}"]
    for lane in LANES:
        of_lane = [outcome for outcome in outcomes if outcome.step.lane == lane]
        if of_lane:
            lines.append(_times(lane, of_lane))
    lines.append(_times("all", outcomes))
    failed = sum(outcome.reason is not None for outcome in outcomes)
    lines += ["", f"{len(outcomes) - failed} passed, {failed} failed"]
    return "\n".join(lines)


def _times(name: str, outcomes: Iterable[Outcome]) -> str:
    ran = [(outcome.began, outcome.began + outcome.seconds) for outcome in outcomes if outcome.began is not None]
    total = sum(end - began for began, end in ran)
    wall = max(end for _, end in ran) - min(began for began, _ in ran) if ran else 0.0
    return f"  {name:<11}  {duration(total):>12}  {duration(wall):>12}"


def _require_known(what: str, names: Iterable[str], known: Set[str]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"unknown {what} {', '.join(unknown)}; known: {', '.join(sorted(known))}")
