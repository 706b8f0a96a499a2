#!/usr/bin/env python3
"""Fuzz the path of an admission review: read it, decide it, answer it. Starts from fuzz/corpus/review.

The first time it installs cargo-fuzz into target/tools, and compiles Ensign once more, with coverage. What it learns stays
in target/fuzz, so that a later run goes on from there; an input that breaks something is kept there too, and the exit
status is not 0. It needs no nightly compiler: no sanitizer is used, because Ensign has no unsafe code of its own.
"""

import sys

if sys.version_info < (3, 9):
    sys.exit("Python 3.9 or newer is needed (this is %s)" % sys.version.split()[0])

import argparse
import os
from pathlib import Path

from ensign_dev import children, main, paths, preflight
from ensign_dev.failure import Failure

TARGET = "review"
CARGO_FUZZ_VERSION = "0.13.2"
RUNS = 1_000_000
MAX_INPUT_BYTES = 4096
MINUTE = 60
INSTALL_TIMEOUT_SECONDS = 30 * MINUTE
BUILD_TIMEOUT_SECONDS = 60 * MINUTE
# A single input that takes longer has found something.
INPUT_TIMEOUT_SECONDS = 10


def fuzz() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=RUNS, metavar="N", help="executions (default: %(default)s)")
    options = parser.parse_args()
    if options.runs < 1:
        raise Failure("--runs must be at least 1")
    preflight.require("fuzz", control_plane_built=True)
    cargo_fuzz = installed()
    work = paths.target_dir() / "fuzz"
    learnt, found = work / "corpus" / TARGET, work / "artifacts" / TARGET
    for folder in (learnt, found):
        folder.mkdir(parents=True, exist_ok=True)
    common = ["--sanitizer", "none", "--target-dir", str(work / "build"), TARGET]
    status = children.run([cargo_fuzz, "build", *common], paths.ROOT, BUILD_TIMEOUT_SECONDS)
    if status != 0:
        raise Failure("`cargo fuzz build` failed; its words are above")
    # The first corpus is the one that is written to.
    corpora = [learnt, paths.ROOT / "fuzz" / "corpus" / TARGET]
    command = [
        cargo_fuzz, "run", *common, *corpora, "--",
        f"-runs={options.runs}", f"-dict={paths.ROOT / 'fuzz' / 'review.dict'}", f"-max_len={MAX_INPUT_BYTES}",
        f"-timeout={INPUT_TIMEOUT_SECONDS}", f"-artifact_prefix={found}/", "-print_final_stats=1",
    ]
    # As long as it takes: the number of runs is the caller's.
    return children.run(command, paths.ROOT, limit_seconds(options.runs))


def limit_seconds(runs: int) -> int:
    """Seconds that so many runs may take, far beyond what they do."""
    return max(30 * MINUTE, runs // 100)


def installed() -> Path:
    """cargo-fuzz, installed first if it is not there."""
    root = paths.target_dir() / "tools"
    program = root / "bin" / "cargo-fuzz"
    if not os.access(program, os.X_OK):
        print("Installing cargo-fuzz into target/tools ...", flush=True)
        command = ["cargo", "install", "cargo-fuzz", "--version", CARGO_FUZZ_VERSION, "--locked", "--root", str(root)]
        if children.run(command, paths.ROOT, INSTALL_TIMEOUT_SECONDS) != 0:
            raise Failure(f"could not install cargo-fuzz; to do it by hand: `{' '.join(command)}`")
    return program


if __name__ == "__main__":
    main.run(fuzz)
