#!/usr/bin/env python3
"""Run all tests, or selected lanes and steps together with the steps that they depend on.

Steps run in parallel where possible; the output of each goes to target/test-logs. With --only, steps run one at a time and
print to the terminal.
"""

import sys

if sys.version_info < (3, 9):
    sys.exit("Python 3.9 or newer is needed (this is %s)" % sys.version.split()[0])

import argparse
import os

from ensign_dev import control_plane, main, paths, preflight
from ensign_dev.runner import run_all
from ensign_dev.steps import LANES, choose, listing, summary
from ensign_dev.suite import Suite


def test() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    lanes = ", ".join(LANES)
    parser.add_argument("--only", metavar="STEP", action="append", default=[], help="run only this step; can be repeated")
    parser.add_argument(
        "--lane", metavar="LANE", action="append", default=[], help=f"run only this lane; can be repeated: {lanes}",
    )
    parser.add_argument(
        "--except", metavar="LANE", dest="without", action="append", default=[], help="skip this lane; can be repeated",
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N",
        help="number of parallel steps, where a step that compiles counts twice; 1 prints the output to the terminal",
    )
    parser.add_argument("--list", action="store_true", help="list the steps by lane")
    options = parser.parse_args()
    steps = Suite().steps()
    if options.list:
        print(listing(steps))
        return 0
    if options.jobs is not None and options.jobs < 1:
        parser.error("--jobs must be at least 1")
    try:
        chosen = choose(steps, options.only, options.lane, options.without)
    except ValueError as error:
        parser.error(str(error))
    preflight.require("test", control_plane.is_built())
    outcomes = run_all(chosen, options.jobs or default_jobs(bool(options.only)), paths.target_dir() / "test-logs")
    print(summary(outcomes), flush=True)
    return 1 if any(outcome.reason is not None for outcome in outcomes) else 0


def default_jobs(is_one_by_one: bool) -> int:
    """One more than the number of cores, because most steps mainly wait; fewer if memory is short."""
    if is_one_by_one:
        return 1
    available = preflight.available_memory()
    by_cores = len(os.sched_getaffinity(0)) + 1
    return by_cores if available is None else max(1, min(by_cores, available // preflight.MEMORY_TO_RUN_BYTES))


if __name__ == "__main__":
    main.run(test)
