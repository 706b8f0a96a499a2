#!/usr/bin/env python3
"""Run a linter in the version that `make test` uses, and install it if it is missing: `dev/tool.py typos --write-changes`."""

import sys

if sys.version_info < (3, 9):
    sys.exit("Python 3.9 or newer is needed (this is %s)" % sys.version.split()[0])

import argparse
import os

from ensign_dev import children, main
from ensign_dev.progress import Progress
from ensign_dev.tools import TOOLS


def tool() -> int:
    parser = argparse.ArgumentParser(description=__doc__, usage="%(prog)s NAME [ARGUMENT ...]")
    parser.add_argument("name", choices=sorted(TOOLS), metavar="NAME", help=", ".join(sorted(TOOLS)))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGUMENT", help="passed to the program")
    options = parser.parse_args()
    program = TOOLS[options.name](Progress())
    # In the caller's working directory. exec, so that exit status and signals are the program's own.
    os.execve(program, [program, *options.arguments], children.environment())


if __name__ == "__main__":
    main.run(tool)
