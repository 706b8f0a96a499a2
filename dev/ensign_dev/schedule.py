"""Decides which step may start, given the running and the finished steps. Nothing is run here.

Steps start in order, but a step may overtake those that wait for another step or for a resource in use. Steps that wait for
capacity are not overtaken: otherwise lighter steps would delay a heavy one until the end.
"""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence

from .steps import Outcome, Step


class Schedule:
    """Steps with a total weight of at most `capacity` at a time; a heavier step counts as the whole capacity."""

    def __init__(self, steps: Sequence[Step], capacity: int) -> None:
        _require_order(steps)
        self._steps = list(steps)
        self._waiting = list(steps)
        self._running: List[Step] = []
        self._outcomes: Dict[str, Outcome] = {}
        self._capacity = capacity

    @property
    def is_done(self) -> bool:
        """Whether all steps have finished."""
        return len(self._outcomes) == len(self._steps)

    @property
    def running(self) -> List[Step]:
        """The running steps, in the order in which they were started."""
        return list(self._running)

    @property
    def outcomes(self) -> List[Outcome]:
        """The outcomes of the finished steps, in the order of the steps."""
        return [self._outcomes[step.name] for step in self._steps if step.name in self._outcomes]

    def start(self) -> Optional[Step]:
        """Marks the next step as running and returns it; None if no step may start before another one finishes."""
        free = self._capacity - sum(map(self._size, self._running))
        for step in self._waiting:
            if not self._is_ready(step) or self._is_excluded(step):
                continue
            if self._size(step) > free:
                return None
            self._waiting.remove(step)
            self._running.append(step)
            return step
        return None

    def end(self, outcome: Outcome) -> List[Outcome]:
        """Records the outcome of a step; returns the outcomes of the steps that can't run because of it."""
        self._running.remove(outcome.step)
        self._outcomes[outcome.step.name] = outcome
        # In order, so that a step that is not run also prevents those that depend on it.
        return [self._skip(step) for step in list(self._waiting) if self._failed_dependency(step) is not None]

    def _skip(self, step: Step) -> Outcome:
        self._waiting.remove(step)
        outcome = Outcome(step, None, 0.0, f"not run: {self._root_cause(step)} failed")
        self._outcomes[step.name] = outcome
        return outcome

    def _root_cause(self, step: Step) -> str:
        """Returns the step that actually failed, because a dependency may not have been run either."""
        dependency = self._failed_dependency(step)
        while dependency is not None and dependency.began is None:
            step, dependency = dependency.step, self._failed_dependency(dependency.step)
        return dependency.step.name if dependency is not None else step.name

    def _failed_dependency(self, step: Step) -> Optional[Outcome]:
        ended = (self._outcomes.get(name) for name in step.after)
        return next((outcome for outcome in ended if outcome is not None and outcome.reason is not None), None)

    def _is_ready(self, step: Step) -> bool:
        unfinished = {other.name for other in (*self._waiting, *self._running)}
        return unfinished.isdisjoint(step.after) and unfinished.isdisjoint(step.yields_to)

    def _is_excluded(self, step: Step) -> bool:
        return any(not set(step.uses).isdisjoint(other.uses) for other in self._running)

    def _size(self, step: Step) -> int:
        return self._capacity if step.alone else min(step.weight, self._capacity)


def _require_order(steps: Sequence[Step]) -> None:
    """Checks that every step comes after its dependencies, so that all can run in this order and there are no cycles."""
    names = [step.name for step in steps]
    for number, step in enumerate(steps):
        missing = [name for name in step.after if name not in names[:number]]
        late = [name for name in step.yields_to if name in names[number:]]
        if missing or late:
            raise ValueError(f"{', '.join(missing + late)} must come before {step.name}")
