"""Builds the programs of a Go module and shows progress."""

from __future__ import annotations

import os
import queue
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Dict, IO, List, Optional, Sequence

from . import cache, children
from .progress import Progress, duration

# All builds use these flags and no others: Go's build cache is keyed by flags, and modules share their common packages.
FLAGS = ("-trimpath", "-buildvcs=false", "-tags=selinux,notest,grpcnotrace")
LINKER_FLAGS = ("-s", "-w")
# Fewer garbage collections make the compiler much faster; preflight checks for the memory.
GO_ENVIRONMENT = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOGC": "400"}
MEMORY_PER_COMPILER_BYTES = 1 << 30

LIST_TIMEOUT_SECONDS = 30 * 60
BUILD_TIMEOUT_SECONDS = 90 * 60


class BuildFailed(Exception):
    """The Go build failed; the message contains the compiler's output."""


def go_environment() -> Dict[str, str]:
    """Returns the environment for go commands."""
    return children.environment(GO_ENVIRONMENT)


def build_key(source: Path) -> str:
    """Returns a key that changes with everything that affects the tools of the module in `source`, which has no code."""
    toolchain = children.output(["go", "env", "GOVERSION", "GOOS", "GOARCH"], env=go_environment())
    sources = cache.hash_files(source, [source / "go.mod", source / "go.sum"])
    return cache.key(sources, " ".join(FLAGS + LINKER_FLAGS), toolchain)


class GoModule:
    """A module, and the main packages in it to build."""

    def __init__(self, what: str, source: Path, packages: Sequence[str]) -> None:
        self._what = what
        self._source = source
        self._packages = packages
        self._total = 0

    def prefetch(self, progress: Progress) -> None:
        """Downloads the modules that the build needs."""
        progress.say(f"{self._what}: downloading Go modules ...")
        compiled = "not installed but available in build cache"
        template = '{{if and .Stale (ne .StaleReason "%s")}}{{.ImportPath}}{{end}}' % compiled
        downloads = 0

        def show(line: str) -> None:
            nonlocal downloads
            if line.startswith("go: downloading "):
                downloads += 1
                progress.update(f"{self._what}: {downloads} modules downloaded ({line.split(' ', 2)[2]})")

        command = ["list", "-deps", *FLAGS, "-f", template, *self._packages]
        self._total = len(self.go(command, LIST_TIMEOUT_SECONDS, show, progress).splitlines())

    def build(self, target: Path, progress: Progress, linker_flags: Sequence[str] = ()) -> None:
        """Builds the programs into the folder `target`."""
        started = time.monotonic()
        total = self._total
        progress.say(f"{self._what}: compiling {total} Go packages; later runs use the cached build ...")
        done = 0

        def show(line: str) -> None:
            nonlocal done
            if line and not line.startswith(("#", "go: ")) and " " not in line:
                done += 1
            step = f"{done} of {total} packages" if done < total else "linking"
            progress.update(f"{self._what}: {step}, {duration(time.monotonic() - started)}")

        linker = " ".join([*LINKER_FLAGS, *linker_flags])
        command = ["build", "-v", f"-p={_compilers()}", *FLAGS, f"-ldflags={linker}", "-o", f"{target}/"]
        self.go([*command, *self._packages], BUILD_TIMEOUT_SECONDS, show, progress)
        progress.say(f"{self._what}: built in {duration(time.monotonic() - started)}.")

    def go(
        self, arguments: List[str], timeout: float, show: Any = None, progress: Optional[Progress] = None
    ) -> str:
        """Runs a go command in the module and returns its standard output. Calls `show` for each line of standard error.

        `show` is also called with an empty line about every second, so that it can update the elapsed time.
        """
        process = children.start(
            ["go", *arguments], cwd=self._source, env=go_environment(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        errors: "queue.Queue[Optional[str]]" = queue.Queue()
        out: List[str] = []
        readers = [
            threading.Thread(target=drain, args=(process.stderr, errors), daemon=True),
            threading.Thread(target=lambda: out.append(process.stdout.read()), daemon=True),
        ]
        kept: List[str] = []
        deadline = time.monotonic() + timeout
        try:
            for reader in readers:
                reader.start()
            while True:
                try:
                    line = errors.get(timeout=1)
                except queue.Empty:
                    line = ""
                if line is None:
                    break
                if line:
                    kept.append(line)
                if show is not None:
                    show(line)
                if time.monotonic() > deadline:
                    raise BuildFailed(f"`go {arguments[0]}` took longer than {duration(timeout)}")
            if process.wait() != 0:
                output = "\n".join(kept[-30:])
                raise BuildFailed(f"`go {arguments[0]}` in {self._source.name} failed:\n{output}")
        finally:
            children.end(process)
            for reader, stream in zip(readers, (process.stderr, process.stdout)):
                reader.join()
                stream.close()
            if progress is not None:
                progress.done()
        return "".join(out)  # complete, because its reader has finished


def drain(stream: "IO[str]", into: "queue.Queue[Optional[str]]") -> None:
    """Forwards lines to a queue, followed by None at the end."""
    for line in stream:
        into.put(line.rstrip("\n"))
    into.put(None)


def _compilers() -> int:
    from .preflight import available_memory

    available = available_memory()
    by_memory = available // MEMORY_PER_COMPILER_BYTES if available else 1
    return max(1, min(len(os.sched_getaffinity(0)), by_memory))
