#!/usr/bin/env python3
"""Fuzz the handling of admission reviews: parsing, decision and response. The initial corpus is fuzz/corpus/review.

The first run installs cargo-fuzz into target/tools and compiles Ensign again, with coverage instrumentation. The corpus
grows in target/fuzz, and later runs continue from there. Inputs that cause a failure are saved there as well, and the exit
status is not 0. No nightly compiler is needed: no sanitizer is used, because Ensign contains no unsafe code of its own.
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
# An input that takes longer counts as a failure.
INPUT_TIMEOUT_SECONDS = 10


def fuzz() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=RUNS, metavar="N", help="number of executions (default: %(default)s)")
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
        raise Failure("`cargo fuzz build` failed; see its output above")
    # libFuzzer writes new inputs to the first corpus.
    corpora = [learnt, paths.ROOT / "fuzz" / "corpus" / TARGET]
    command = [
        cargo_fuzz, "run", *common, *corpora, "--",
        f"-runs={options.runs}", f"-dict={paths.ROOT / 'fuzz' / 'review.dict'}", f"-max_len={MAX_INPUT_BYTES}",
        f"-timeout={INPUT_TIMEOUT_SECONDS}", f"-artifact_prefix={found}/", "-print_final_stats=1",
    ]
    # The time limit follows from the number of runs, which the caller chooses.
    return children.run(command, paths.ROOT, limit_seconds(options.runs))


def limit_seconds(runs: int) -> int:
    """Time limit for this many runs, far above what they usually take."""
    return max(30 * MINUTE, runs // 100)


def installed() -> Path:
    """Returns the path of cargo-fuzz, and installs it if it is missing."""
    root = paths.target_dir() / "tools"
    program = root / "bin" / "cargo-fuzz"
    if not os.access(program, os.X_OK):
        print("Installing cargo-fuzz into target/tools ...", flush=True)
        command = ["cargo", "install", "cargo-fuzz", "--version", CARGO_FUZZ_VERSION, "--locked", "--root", str(root)]
        if children.run(command, paths.ROOT, INSTALL_TIMEOUT_SECONDS) != 0:
            raise Failure(f"could not install cargo-fuzz; to install it manually: `{' '.join(command)}`")
    return program


if __name__ == "__main__":
    main.run(fuzz)
