#!/usr/bin/env python3
"""Run the benchmarks. Each figure is compared with a baseline or an external limit, measured in the same run.

Measures the image's binary, with a real API server and the Azure emulator. A figure is the median of --runs runs; a missed
target does not fail the command. Writes target/bench/report.json and plots. Use an otherwise idle machine.
"""

import sys

if sys.version_info < (3, 9):
    sys.exit("Python 3.9 or newer is needed (this is %s)" % sys.version.split()[0])

import argparse
import time

from ensign_dev import build, control_plane, environment, main, paths, preflight
from ensign_dev.bench import context, machine, parts, report
from ensign_dev.failure import Failure
from ensign_dev.image import make
from ensign_dev.progress import Progress, duration

RUNS = 5


def bench() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", action="extend", default=[], metavar="PART",
        help=f"run only these parts: {', '.join(entry.name for entry in parts.registry())}",
    )
    parser.add_argument("--runs", type=int, default=RUNS, metavar="N", help="runs of each part (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="also print the report as JSON")
    parser.add_argument("--docs", action="store_true", help="also write tables and plots to docs/")
    options = parser.parse_args()
    if options.runs < 1:
        raise Failure("--runs must be at least 1")
    entries = parts.chosen(options.only, parts.registry())
    preflight.require("demo", control_plane.is_built())
    preflight.require("image", control_plane_built=True)
    progress = Progress()
    cluster = build.cluster(progress)
    measured = make.prepare("", None, progress).parts.binary
    built = context.build_programs(parts.drivers(entries))
    folder = paths.target_dir() / "bench"
    programs = environment.Programs.of(built, cluster)
    given = context.Context(progress, programs, measured, built, folder, options.runs, tuple(options.only))
    # After the build, so that the reported load is not the build's own.
    description = machine.describe()
    progress.say(machine.as_text(description))
    found = []
    for entry in entries:
        progress.say(f"{entry.name} ...")
        started = time.monotonic()
        found.append(entry.run(given))
        progress.say(f"{entry.name}: {duration(time.monotonic() - started)}")
        # After each part, so that earlier results survive if a later part fails.
        report.write(folder, description, options.runs, found)
        if options.docs:
            report.write_docs(paths.ROOT / "docs", description, options.runs, found[-1:])
    for part in found:
        print("\n" + report.table(part))
    if options.json:
        print(report.as_json(description, options.runs, found))
    print(f"Report and plots: {folder}")
    return 0


if __name__ == "__main__":
    main.run(bench)
