#!/usr/bin/env python3
"""Compare the Azure emulator with what Azure is known to answer: the cases of tests/azure-cases.

The exit status is 0 only if nothing differs but what the list of known differences says.
"""

import sys

if sys.version_info < (3, 9):
    sys.exit("Python 3.9 or newer is needed (this is %s)" % sys.version.split()[0])

import argparse
from pathlib import Path

from ensign_dev import main, paths
from ensign_dev.azure_cases import case, emulator, known, report, suite


def azure_cases() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cases", metavar="DIR", type=Path, default=paths.AZURE_CASES, help="the folder of the cases [tests/azure-cases]"
    )
    parser.add_argument("--only", metavar="ID", action="append", default=[], help="run only this case; can be repeated")
    parser.add_argument("--list", action="store_true", help="list the cases")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="how results are printed [text]")
    parser.add_argument(
        "--emulator", metavar="FILE",
        help=f"the emulator's program [{emulator.BINARY_VARIABLE}, or target/debug/{emulator.NAME}]",
    )
    options = parser.parse_args()
    cases = case.load(options.cases)
    differences = known.load(options.cases, cases)
    chosen = case.chosen(cases, options.only)
    if options.list:
        width = max(len(one.id) for one in chosen)
        for one in chosen:
            print(f"{one.id:{width}}  {one.area:17}  {one.evidence}")
        return 0
    results = suite.run(chosen, differences, emulator.binary(options.emulator))
    print(report.machine_readable(results) if options.output == "json" else report.text(results))
    return 0 if report.all_good(results) else 1


if __name__ == "__main__":
    main.run(azure_cases)
