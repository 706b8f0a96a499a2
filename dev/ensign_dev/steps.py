"""Named steps, each in a lane, and the summary of how they ended."""

from __future__ import annotations

from typing import Callable, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple

from .output import Output
from .progress import duration

LANES = {
    "lint": "what is read or compiled, and not run",
    "unit": "tests that need no control plane",
    "integration": "tests on a real control plane, and of the emulator",
    "chart": "the Helm chart and the image",
    "faults": "faults that are injected, and seeded mistakes that have to be caught",
    "demo": "the main job, end to end",
}
# How much of the room a step takes: one that mostly waits, and one that keeps every core busy.
WAITING = 1
BUSY = 2


class StepFailed(Exception):
    """A step did not hold; the message says why in one line."""


class Step(NamedTuple):
    """One part of the tests."""

    name: str
    lane: str
    about: str
    run: Callable[[Output], None]
    after: Tuple[str, ...] = ()
    """Steps that it needs: it is not run unless all of them passed."""
    yields_to: Tuple[str, ...] = ()
    """Steps that end first if they run too, whatever becomes of them: their load would disturb it."""
    uses: Tuple[str, ...] = ()
    """What it has to itself while it runs, by a name that others use too."""
    weight: int = WAITING
    alone: bool = False
    """Whether nothing at all runs beside it."""


class Outcome(NamedTuple):
    """How a step ended; no `reason` means that it passed."""

    step: Step
    began: Optional[float]
    """In seconds of a clock that all outcomes share; None for a step that was not run."""
    seconds: float
    reason: Optional[str]


def choose(
    steps: Sequence[Step], names: Sequence[str] = (), lanes: Sequence[str] = (), without: Sequence[str] = ()
) -> List[Step]:
    """The steps of these names and lanes, all for none, but for the lanes `without`; with what they need, in order."""
    _require_known("step", names, {step.name for step in steps})
    _require_known("lane", [*lanes, *without], set(LANES))
    wanted = {
        step.name for step in steps
        if (step.name in names or step.lane in lanes or not (names or lanes)) and step.lane not in without
    }
    for step in reversed(steps):  # what a step needs stands before it
        if step.name in wanted:
            wanted.update(step.after)
    return [step for step in steps if step.name in wanted]


def listing(steps: Sequence[Step]) -> str:
    """All steps by lane, with what each needs."""
    lines = []
    for lane, about in LANES.items():
        lines.append(f"{lane}: {about}")
        for step in steps:
            if step.lane == lane:
                needs = f" (after {', '.join(step.after)})" if step.after else ""
                lines.append(f"  {step.name:<20} {step.about}{needs}")
    return "\n".join(lines)


def summary(outcomes: Sequence[Outcome]) -> str:
    """A table of all steps, one of the lanes, and the closing line."""
    width = max((len(outcome.step.name) for outcome in outcomes), default=0)
    lines = ["", "Summary"]
    for outcome in outcomes:
        mark = "pass" if outcome.reason is None else "FAIL"
        # The first line of a reason: the rest stands where the step ran.
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
        raise ValueError(f"no {what} is called {', '.join(unknown)}; there are: {', '.join(sorted(known))}")
