"""Linters and test tools, each in a fixed version and installed once into the cache.

`typos` is a wheel (dev/tools/requirements.txt), `actionlint` a tool of the Go module dev/tools, and the cargo subcommands
are compiled in the versions below.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Callable, Dict, List

from . import cache, children, go_module, paths
from .failure import Failure
from .progress import Progress

# Versions that compile with the rust-version of Cargo.toml.
CARGO_DENY_VERSION = "0.20.2"
CARGO_NEXTEST_VERSION = "0.9.128"
# They run for seconds, so compile time matters more than their speed; optional features are left out.
CARGO_INSTALL = ("install", "--locked", "--debug", "--no-default-features")
CARGO_PROFILE = {"CARGO_PROFILE_DEV_DEBUG": "0", "CARGO_INCREMENTAL": "0"}
ACTIONLINT_PACKAGE = "github.com/rhysd/actionlint/cmd/actionlint"

MINUTE = 60
PIP_TIMEOUT_SECONDS = 10 * MINUTE
CARGO_TIMEOUT_SECONDS = 40 * MINUTE


def typos(progress: Progress) -> Path:
    """The spell checker; configured in typos.toml."""
    requirements = paths.TOOLS / "requirements.txt"
    key = cache.key(requirements.read_bytes(), *_machine(), sys.version)

    def build(folder: Path) -> None:
        progress.say("typos: installing dev/tools/requirements.txt ...")
        environment = folder / "venv"
        _output([sys.executable, "-m", "venv", environment])
        pip = [environment / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
        # The wheel contains the binary; the source distribution would have to be compiled.
        _output([*pip, "--quiet", "--only-binary=:all:", "--no-deps", "-r", requirements])
        _require(environment / "bin" / "typos")

    return cache.entry("typos", key, build, progress) / "venv" / "bin" / "typos"


def actionlint(progress: Progress) -> Path:
    """The linter of .github/workflows."""

    def build(folder: Path) -> None:
        module = go_module.GoModule("actionlint", paths.TOOLS, [ACTIONLINT_PACKAGE])
        try:
            module.prefetch(progress)
            module.build(folder, progress)
        except go_module.BuildFailed as error:
            raise Failure(str(error)) from error
        _require(folder / "actionlint")

    return cache.entry("actionlint", go_module.build_key(paths.TOOLS), build, progress) / "actionlint"


def cargo_deny(progress: Progress) -> Path:
    """The linter of dependencies; configured in deny.toml."""
    return _cargo("cargo-deny", CARGO_DENY_VERSION, progress)


def cargo_nextest(progress: Progress) -> Path:
    """The test runner; configured in .config/nextest.toml."""
    return _cargo("cargo-nextest", CARGO_NEXTEST_VERSION, progress)


# By program name.
TOOLS: Dict[str, Callable[[Progress], Path]] = {
    "actionlint": actionlint,
    "cargo-deny": cargo_deny,
    "cargo-nextest": cargo_nextest,
    "typos": typos,
}


def _cargo(name: str, version: str, progress: Progress) -> Path:
    def build(folder: Path) -> None:
        progress.say(f"{name}: compiling version {version}; later runs use the cached build ...")
        objects = folder / "target"
        command: "List[children.Argument]" = ["cargo", *CARGO_INSTALL, "--root", folder, f"{name}@{version}"]
        env = children.environment({**CARGO_PROFILE, "CARGO_TARGET_DIR": objects})
        if children.run(command, paths.ROOT, CARGO_TIMEOUT_SECONDS, env, **progress.options()) != 0:
            raise Failure(f"could not install {name} {version}; see cargo's output above")
        shutil.rmtree(objects)
        _require(folder / "bin" / name)

    # Independent of the compiler's version: a new compiler is no reason to rebuild.
    key = cache.key(version, *CARGO_INSTALL, *_machine())
    return cache.entry(name, key, build, progress) / "bin" / name


def _machine() -> "tuple[str, str]":
    return platform.system(), platform.machine()


def _output(command: "List[children.Argument]") -> None:
    try:
        children.output(command, timeout=PIP_TIMEOUT_SECONDS, cwd=paths.ROOT)
    except children.CommandFailed as error:
        raise Failure(str(error)) from error


def _require(program: Path) -> None:
    if not os.access(program, os.X_OK):
        raise Failure(f"the installation did not produce `{program.name}`")
