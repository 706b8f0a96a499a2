#!/usr/bin/env python3
"""Run every fault plan and every mutant against the controller, on a real API server; write target/faults/report.json.

The exit status is 0 only if the controller survived every plan and every mutant was caught. `--plan ID` runs a single plan,
or all plans with a prefix (`--plan 'PREFIX*'`); `--list` prints their IDs.
"""

import sys

if sys.version_info < (3, 9):
    sys.exit("Python 3.9 or newer is needed (this is %s)" % sys.version.split()[0])

import argparse
import json
from typing import List

from ensign_dev import build, children, control_plane, main, mutants, paths, preflight
from ensign_dev.progress import Progress

FOLDER = paths.ROOT / "target" / "faults"
REPORT = FOLDER / "report.json"
MUTANTS_REPORT = FOLDER / "mutants.json"
MINUTE = 60
TIMEOUT_SECONDS = 60 * MINUTE


def faults() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", metavar="ID", help="run only this plan")
    parser.add_argument("--mutant", metavar="NAME", help="run only this mutant")
    parser.add_argument("--list", action="store_true", help="list the plans")
    options = parser.parse_args()
    preflight.require("test", control_plane.is_built())
    env = children.environment(build.cluster(Progress()).environment())
    if options.list:
        return plans(["--list"], env)
    if options.mutant:
        return with_mutants(["--mutant", options.mutant, *(["--plan", options.plan] if options.plan else [])], env)
    if options.plan:
        return plans(["--plan", options.plan], env)
    for report in (REPORT, MUTANTS_REPORT):
        report.unlink(missing_ok=True)
    status = plans(["--full", "--report", str(REPORT)], env)
    status = with_mutants(["--only-mutants", "--full", "--report", str(MUTANTS_REPORT)], env) or status
    if REPORT.is_file() and MUTANTS_REPORT.is_file():
        # Merge both into one report: the results of the plans, and the mutants that were caught.
        report = json.loads(REPORT.read_text(encoding="utf-8"))
        report["mutants"] = json.loads(MUTANTS_REPORT.read_text(encoding="utf-8"))["mutants"]
        REPORT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return status


def plans(arguments: List[str], env: "dict[str, str]") -> int:
    """Runs the fault tests of the released source."""
    command = ["cargo", "test", *build.SELECTION, "--test", "faults", "--", *arguments]
    return children.run(command, paths.ROOT, TIMEOUT_SECONDS, env)


def with_mutants(arguments: List[str], env: "dict[str, str]") -> int:
    """Runs the fault tests of the copy that contains the mutants."""
    program = mutants.compile_faults()
    return children.run([program.path, *arguments], program.folder, TIMEOUT_SECONDS, {**env, **program.environment()})


if __name__ == "__main__":
    main.run(faults)
