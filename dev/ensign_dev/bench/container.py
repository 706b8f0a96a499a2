"""Limits of processor time and memory, as for a container, with cgroups."""

from __future__ import annotations

import contextlib
import shlex
import time
from pathlib import Path
from typing import Iterator, NamedTuple, Tuple

from ..failure import Failure

PERIOD_MICROSECONDS = 100_000
CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
GROUP = "ensign-bench"
EMPTY_SECONDS = 10.0
MIB = 1024 * 1024


class NoLimit(Failure):
    """Why this machine provides no cgroup with limits."""


class Container(NamedTuple):
    """A cgroup with a memory limit, and other limits that are added. Its processes have to exit before it is removed."""

    group: Path
    is_v2: bool
    cgroups: Path
    own: Path

    def script(self, program: Path, copy: Path) -> str:
        """A shell script that runs a program in the group. The file is copied within the group, so that the pages of the
        binary count there too, as for an image that was just pulled."""
        join, source, target = (shlex.quote(str(path)) for path in (self.group / "cgroup.procs", program, copy))
        return f'#!/bin/sh\nset -eu\necho $$ > {join}\ncp {source} {target}\nsync {target}\nexec {target} "$@"\n'

    @contextlib.contextmanager
    def quota(self, pid: int, share: float) -> Iterator[None]:
        """Limits a process of the group to this share of one core."""
        microseconds = round(share * PERIOD_MICROSECONDS)
        if self.is_v2:
            _set(self.group / "cpu.max", f"{microseconds} {PERIOD_MICROSECONDS}")
            yield
            return
        with _group("cpu", self.cgroups, self.own) as (group, _):
            _set(group / "cpu.cfs_period_us", str(PERIOD_MICROSECONDS))
            _set(group / "cpu.cfs_quota_us", str(microseconds))
            _set(group / "cgroup.procs", str(pid))
            try:
                yield
            finally:
                with contextlib.suppress(OSError):  # it has exited
                    (group.parent / "cgroup.procs").write_text(str(pid))

    def kills(self) -> int:
        """How often the kernel killed a process because it ran out of memory."""
        return _entry(self.group / ("memory.events" if self.is_v2 else "memory.oom_control"), "oom_kill")

    def kept(self) -> int:
        """Bytes that the kernel can't reclaim."""
        return _entry(self.group / "memory.stat", "anon" if self.is_v2 else "rss")


@contextlib.contextmanager
def container(memory_mib: int, cgroups: Path = CGROUPS, own: Path = OWN) -> Iterator[Container]:
    """A group with this memory limit."""
    with _group("memory", cgroups, own) as (group, is_v2):
        _set(group / ("memory.max" if is_v2 else "memory.limit_in_bytes"), str(memory_mib * MIB))
        yield Container(group, is_v2, cgroups, own)


@contextlib.contextmanager
def _group(controller: str, cgroups: Path, own: Path) -> Iterator[Tuple[Path, bool]]:
    """A group below that of this process, and whether its hierarchy is of version 2."""
    parent, is_v2 = _parent(controller, cgroups, own.read_text())
    group = parent / GROUP
    try:
        group.mkdir(exist_ok=True)
    except OSError as error:
        raise NoLimit(f"can't create {group}: {error.strerror}") from None
    try:
        yield group, is_v2
    finally:
        _remove(group)


def _parent(controller: str, cgroups: Path, own: str) -> Tuple[Path, bool]:
    """The group of this process in the hierarchy with the controller, and whether that is of version 2."""
    lines = [line.split(":", 2) for line in own.splitlines() if line.count(":") >= 2]
    for _, controllers, path in lines:
        if controller in controllers.split(","):
            return cgroups / controllers / path.lstrip("/"), False
    for _, controllers, path in lines:
        group = cgroups / path.lstrip("/")
        if not controllers and controller in _read(group / "cgroup.controllers").split():
            return group, True
    raise NoLimit(f"no hierarchy of {cgroups} has the {controller} controller for this process")


def _set(file: Path, value: str) -> None:
    try:
        file.write_text(value)
    except OSError as error:
        raise NoLimit(f"can't set the limit in {file}: {error.strerror}") from None


def _entry(file: Path, key: str) -> int:
    for line in _read(file).splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    raise Failure(f"{file} has no {key}")


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _remove(group: Path) -> None:
    """A group can be removed once its last process has left it, which takes the kernel a moment."""
    deadline = time.monotonic() + EMPTY_SECONDS
    while True:
        try:
            group.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
