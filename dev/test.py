#!/usr/bin/env python3
"""Run everything that `make test` runs, or single steps of it with --only."""

import sys

if sys.version_info < (3, 9):
    sys.exit("Python 3.9 or newer is needed (this is %s)" % sys.version.split()[0])

import argparse
import signal

from ensign_dev import control_plane, preflight
from ensign_dev.steps import choose, run_all, summary
from ensign_dev.suite import Suite


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="STEP", action="append", default=[], help="run this step; may be repeated")
    parser.add_argument("--list", action="store_true", help="list the steps")
    options = parser.parse_args()
    steps = Suite().steps()
    if options.list:
        for step in steps:
            print(f"{step.name:<20} {step.about}")
        return 0
    try:
        chosen = choose(steps, options.only)
    except ValueError as error:
        parser.error(str(error))
    preflight.require("test", control_plane.is_built())
    outcomes = run_all(chosen)
    print(summary(outcomes), flush=True)
    return 1 if any(outcome.reason is not None for outcome in outcomes) else 0


def interrupted(number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    # A runner that cancels sends SIGTERM: end what we started, as on Ctrl-C.
    signal.signal(signal.SIGTERM, interrupted)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
