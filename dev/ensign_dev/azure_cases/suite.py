"""Asks all cases of emulators that are started for them."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Dict, List, Mapping, Sequence, Tuple

from ..failure import Failure
from .case import Case
from .emulator import UNREACHABLE, EmulatorTarget, ServedIssuer, flags, needs_issuer, sharing
from .known import Known, Result
from .matching import Difference
from .run import CaseRun, StepDifference
from .target import Issuer

JOBS = 4


def run(cases: Sequence[Case], known: Mapping[str, Known], program: Path, jobs: int = JOBS) -> List[Result]:
    """Asks all cases, several at a time; returns the results in the order of the cases."""
    by_emulator: Dict[Tuple[str, ...], List[Case]] = {}
    for case in cases:
        if not case.is_manual:
            by_emulator.setdefault(sharing(case), []).append(case)
    targets: Dict[str, "EmulatorTarget | Failure"] = {}
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(jobs) as pool:
        issuer = Issuer(UNREACHABLE, UNREACHABLE, UNREACHABLE)
        if needs_issuer(cases):
            issuer = ServedIssuer(program)
            stack.callback(issuer.stop)

        def start(together: List[Case]) -> "EmulatorTarget | Failure":
            try:
                target = EmulatorTarget(program, flags(together[0]), together, issuer)
            except Failure as failure:
                return failure
            stack.callback(target.stop)
            return target

        for together, target in zip(by_emulator.values(), pool.map(start, by_emulator.values())):
            targets.update({case.id: target for case in together})

        def ask(case: Case) -> Result:
            return Result(case, [] if case.is_manual else _found(case, targets[case.id]), known.get(case.id))

        return list(pool.map(ask, cases))


def _found(case: Case, target: "EmulatorTarget | Failure") -> List[StepDifference]:
    if isinstance(target, Failure):
        # This emulator cannot be told what the case asks for; others can.
        return [StepDifference(0, Difference("no answer", "an answer", str(target)))]
    return CaseRun(case, target).run()
