#!/usr/bin/env python3
"""Run every fault plan and every mutant against the controller, on a real API server; write target/faults/report.json.

The exit status is 0 only if every plan survived and every mutant was caught. `--plan ID` runs one plan alone, or all
whose names begin alike if it ends with `*`; `--list` shows the names.
"""

import sys

if sys.version_info < (3, 9):
    sys.exit("Python 3.9 or newer is needed (this is %s)" % sys.version.split()[0])

import argparse

from ensign_dev import build, children, control_plane, main, paths, preflight
from ensign_dev.progress import Progress

REPORT = paths.ROOT / "target" / "faults" / "report.json"
MINUTE = 60
TIMEOUT_SECONDS = 60 * MINUTE


def faults() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", metavar="ID", help="run this plan alone")
    parser.add_argument("--list", action="store_true", help="list the plans")
    options = parser.parse_args()
    preflight.require("test", control_plane.is_built())
    cluster = build.cluster(Progress())
    arguments = ["--list"] if options.list else ["--full", "--report", REPORT]
    if options.plan:
        arguments = ["--plan", options.plan]
    else:
        REPORT.unlink(missing_ok=True)
    command = ["cargo", "test", "--locked", "--package", "ensign-faults", "--", *arguments]
    return children.run(command, paths.ROOT, TIMEOUT_SECONDS, children.environment(cluster.environment()))


if __name__ == "__main__":
    main.run(faults)
