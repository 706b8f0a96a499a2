#!/usr/bin/env python3
"""Build the tests' Kubernetes control plane unless it is cached, and print the paths of its binaries as one line of JSON.

Progress goes to stderr. `--run [--dir DIR]` also starts the control plane and runs it until Ctrl-C.
"""

import sys

if sys.version_info < (3, 9):
    sys.exit("Python 3.9 or newer is needed (this is %s)" % sys.version.split()[0])

import argparse
import json
import os

from ensign_dev import control_plane, preflight
from ensign_dev.progress import Progress


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true", help="start a control plane and run it until Ctrl-C")
    parser.add_argument("--dir", help="with --run: keep the state in this folder instead of a temporary one")
    options = parser.parse_args()
    if not control_plane.is_built():
        preflight.require("control-plane")
    try:
        binaries = control_plane.ensure(Progress())
    except control_plane.BuildFailed as error:
        print(error, file=sys.stderr)
        return 1
    if options.run:
        arguments = ["--dir", options.dir] if options.dir else []
        os.execv(binaries.control_plane, [str(binaries.control_plane), "run", *arguments])
    print(json.dumps({name: str(path) for name, path in binaries._asdict().items()}))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
