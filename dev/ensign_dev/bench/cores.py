"""Cores of their own for what is measured and what measures it, and a quota of processor time."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Iterator, NamedTuple, Optional

from ..failure import Failure

PERIOD_MICROSECONDS = 100_000
CGROUPS = Path("/sys/fs/cgroup")
GROUP = "ensign-bench"
EMPTY_SECONDS = 10.0


class Cores(NamedTuple):
    """One core for a server, another one for its clients."""

    server: int
    client: int


def cores() -> Optional[Cores]:
    """The first and the last core that this process may use; None where it has but one."""
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(allowed[0], allowed[-1]) if len(allowed) > 1 else None


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started meanwhile by this thread has to stay on this core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class NoQuota(Failure):
    """This machine gives us no group with a quota; why."""


@contextlib.contextmanager
def quota(pid: int, share: float, cgroups: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> Iterator[None]:
    """A process has at most this share of one core meanwhile, as a container with a CPU limit has."""
    parent, is_v2 = _parent(cgroups, own.read_text())
    group = parent / GROUP
    microseconds = round(share * PERIOD_MICROSECONDS)
    try:
        group.mkdir(exist_ok=True)
    except OSError as error:
        raise NoQuota(f"{group} can't be made: {error.strerror}") from None
    try:
        try:
            if is_v2:
                (group / "cpu.max").write_text(f"{microseconds} {PERIOD_MICROSECONDS}")
            else:
                (group / "cpu.cfs_period_us").write_text(str(PERIOD_MICROSECONDS))
                (group / "cpu.cfs_quota_us").write_text(str(microseconds))
            (group / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            raise NoQuota(f"{group} takes no quota: {error.strerror}") from None
        yield
    finally:
        with contextlib.suppress(OSError):  # it has ended
            (parent / "cgroup.procs").write_text(str(pid))
        _remove(group)


def _parent(cgroups: Path, own: str) -> "tuple[Path, bool]":
    """The group of this process in the hierarchy with the cpu controller, and whether that is of version 2."""
    lines = [line.split(":", 2) for line in own.splitlines() if line.count(":") >= 2]
    for _, controllers, path in lines:
        if "cpu" in controllers.split(","):
            return cgroups / controllers / path.lstrip("/"), False
    for _, controllers, path in lines:
        group = cgroups / path.lstrip("/")
        if not controllers and "cpu" in _read(group / "cgroup.controllers").split():
            return group, True
    raise NoQuota(f"no hierarchy of {cgroups} has the cpu controller for this process")


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
