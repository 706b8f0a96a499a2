"""Which step may start, given those that run and those that ended. Decides only; nothing is run here.

Steps start in their order, except that one which waits for another step, or for what another one uses, is overtaken.
One that waits for room is not: else lighter steps would keep a heavy one waiting to the end.
"""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence

from .steps import Outcome, Step


class Schedule:
    """Steps that take no more than `room` together; a step that is heavier than all the room takes all of it."""

    def __init__(self, steps: Sequence[Step], room: int) -> None:
        _require_order(steps)
        self._steps = list(steps)
        self._waiting = list(steps)
        self._running: List[Step] = []
        self._outcomes: Dict[str, Outcome] = {}
        self._room = room

    @property
    def is_done(self) -> bool:
        """Whether every step has ended."""
        return len(self._outcomes) == len(self._steps)

    @property
    def running(self) -> List[Step]:
        """The steps that run, in the order in which they were started."""
        return list(self._running)

    @property
    def outcomes(self) -> List[Outcome]:
        """How the steps ended that have ended, in the order of the steps."""
        return [self._outcomes[step.name] for step in self._steps if step.name in self._outcomes]

    def start(self) -> Optional[Step]:
        """The next step, which runs from now on; None if none may start before another one has ended."""
        free = self._room - sum(map(self._size, self._running))
        for step in self._waiting:
            if not self._is_ready(step) or self._is_kept_out(step):
                continue
            if self._size(step) > free:
                return None
            self._waiting.remove(step)
            self._running.append(step)
            return step
        return None

    def end(self, outcome: Outcome) -> List[Outcome]:
        """Takes note of how a step ended; the outcomes of those that can't run any more because of it."""
        self._running.remove(outcome.step)
        self._outcomes[outcome.step.name] = outcome
        # In order, so that a step that is lost takes with it those that need it.
        return [self._lose(step) for step in list(self._waiting) if self._failed_need(step) is not None]

    def _lose(self, step: Step) -> Outcome:
        self._waiting.remove(step)
        lost = Outcome(step, None, 0.0, f"not run: {self._culprit(step)} failed")
        self._outcomes[step.name] = lost
        return lost

    def _culprit(self, step: Step) -> str:
        """The step that failed, where one that is needed was not run either."""
        need = self._failed_need(step)
        while need is not None and need.began is None:
            step, need = need.step, self._failed_need(need.step)
        return need.step.name if need is not None else step.name

    def _failed_need(self, step: Step) -> Optional[Outcome]:
        ended = (self._outcomes.get(name) for name in step.after)
        return next((outcome for outcome in ended if outcome is not None and outcome.reason is not None), None)

    def _is_ready(self, step: Step) -> bool:
        unfinished = {other.name for other in (*self._waiting, *self._running)}
        return unfinished.isdisjoint(step.after) and unfinished.isdisjoint(step.yields_to)

    def _is_kept_out(self, step: Step) -> bool:
        return any(not set(step.uses).isdisjoint(other.uses) for other in self._running)

    def _size(self, step: Step) -> int:
        return self._room if step.alone else min(step.weight, self._room)


def _require_order(steps: Sequence[Step]) -> None:
    """What a step needs stands before it, so that all can be run in this order and nothing waits for itself."""
    names = [step.name for step in steps]
    for number, step in enumerate(steps):
        missing = [name for name in step.after if name not in names[:number]]
        late = [name for name in step.yields_to if name in names[number:]]
        if missing or late:
            raise ValueError(f"{', '.join(missing + late)} must stand before {step.name}")
