#!/usr/bin/env python3
"""Stop the environment that `make up` started. Safe to run at any time; the logs are kept."""

import sys

if sys.version_info < (3, 9):
    sys.exit("Python 3.9 or newer is needed (this is %s)" % sys.version.split()[0])

import argparse

from ensign_dev import environment, main, paths
from ensign_dev.progress import Progress

ROOT = paths.ROOT / "target" / "dev"


def down() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    if not ROOT.is_dir():
        print("Nothing is running.")
        return 0
    dev = environment.Environment(ROOT, Progress())
    with dev.locked(wait=True):
        stopped = dev.stop()
    print(f"Stopped {', '.join(stopped)}. The logs are in {dev.registry.logs}." if stopped else "Nothing is running.")
    return 0


if __name__ == "__main__":
    main.run(down)
