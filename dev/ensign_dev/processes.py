"""Long-running processes: they have a log and are recorded in a file, so that any later command can stop them.

Process IDs are reused, so an ID alone does not identify a process. A record therefore contains the start time too, and a
process with another start time is never signalled.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional

from . import children

STOP_SECONDS = 20.0
KILL_SECONDS = 5.0
LOG_TAIL_LINES = 25
_PR_SET_PDEATHSIG = 1


class Identity(NamedTuple):
    """Identifies a process by its ID and its start time (boot ID and clock ticks since boot)."""

    pid: int
    started: str


class Record(NamedTuple):
    """A recorded process."""

    name: str
    identity: Identity
    program: str
    """Fingerprint of the executable, to detect whether it was rebuilt since."""


def identity(pid: int, proc: Path = Path("/proc")) -> Optional[Identity]:
    """Returns the identity of the process that currently has this ID; None if there is none, or if it has exited."""
    try:
        stat = (proc / str(pid) / "stat").read_text()
        boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    # The second field is the command in parentheses and may contain anything, so count from its end.
    fields = stat[stat.rindex(")") + 2 :].split()
    state, start_ticks = fields[0], fields[19]
    if state in ("Z", "X"):
        return None
    return Identity(pid, f"{boot}/{start_ticks}")


def is_alive(wanted: Identity) -> bool:
    """Whether exactly this process is still running."""
    return identity(wanted.pid) == wanted


def stop(wanted: Identity, grace_seconds: float = STOP_SECONDS) -> bool:
    """Terminates exactly this process, with SIGTERM and then SIGKILL; returns whether it has exited."""
    try:
        handle: Optional[int] = os.pidfd_open(wanted.pid)
    except ProcessLookupError:
        return True
    except OSError:  # the kernel has no pidfds
        handle = None
    try:
        for how, wait in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, KILL_SECONDS)):
            # A pidfd always refers to the same process, so the result can't change before the signal is sent.
            if not is_alive(wanted):
                return True
            try:
                if handle is None:
                    os.kill(wanted.pid, how)
                else:
                    signal.pidfd_send_signal(handle, how)
            except ProcessLookupError:
                return True
            if _ended(wanted, handle, wait):
                return True
        return False
    finally:
        if handle is not None:
            os.close(handle)


def _ended(wanted: Identity, handle: Optional[int], seconds: float) -> bool:
    if handle is not None:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    deadline = time.monotonic() + seconds
    while is_alive(wanted) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_alive(wanted)


def fingerprint(program: Path) -> str:
    """Returns a value that changes when the executable is rewritten."""
    try:
        stat = program.stat()
    except OSError:
        return ""
    return f"{stat.st_ino}-{stat.st_size}-{stat.st_mtime_ns}"


class Registry:
    """The processes of one environment: `<root>/processes.json` and `<root>/logs`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.logs = root / "logs"
        self._file = root / "processes.json"
        self._children: "Dict[str, subprocess.Popen[bytes]]" = {}

    def records(self) -> List[Record]:
        """Returns the processes that were started and not stopped since; none if the file is missing or corrupt."""
        try:
            listed = json.loads(self._file.read_text())
            return [
                Record(one["name"], Identity(int(one["pid"]), str(one["started"])), str(one["program"]))
                for one in listed
            ]
        except (OSError, ValueError, TypeError, KeyError):
            return []

    def find(self, name: str) -> Optional[Record]:
        """Returns the record of a process if it is running."""
        return next((one for one in self.records() if one.name == name and is_alive(one.identity)), None)

    def start(self, name: str, command: "List[children.Argument]", env: Dict[str, str], die_with_parent: bool) -> None:
        """Starts a process in a new session, with its output in `<root>/logs`.

        With `die_with_parent`, it receives SIGTERM when this process exits, for whatever reason.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        with open(self.out(name), "wb") as out, open(self.log(name), "wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=log, env=env, cwd=self.root,
                start_new_session=True, preexec_fn=parent_death_signal() if die_with_parent else None,
            )
        self._children[name] = process
        found = identity(process.pid) or Identity(process.pid, "")
        kept = [one for one in self.records() if one.name != name]
        self._write([*kept, Record(name, found, fingerprint(Path(os.fspath(command[0]))))])

    def stop(self, name: str) -> bool:
        """Stops one process if it is running; returns whether it has exited."""
        record = next((one for one in self.records() if one.name == name), None)
        if record is not None and not stop(record.identity):
            return False
        self._reap(name)
        self._write([one for one in self.records() if one.name != name])
        return True

    def stop_all(self) -> List[str]:
        """Stops all processes in reverse order of their start; returns the names of those that could not be stopped."""
        stuck = [record.name for record in reversed(self.records()) if not self.stop(record.name)]
        if not stuck:
            for name in list(self._children):  # processes that another command stopped
                self._reap(name)
            self._file.unlink(missing_ok=True)
        return stuck

    def ended(self, name: str) -> Optional[str]:
        """Returns how a process exited, with the end of its log; None while it is running."""
        child = self._children.get(name)
        status = child.poll() if child is not None else None
        if child is not None and status is None:
            return None
        if child is None and self.find(name) is not None:
            return None
        how = "" if status is None else f" on signal {-status}" if status < 0 else f" with status {status}"
        return f"{name} exited{how}; {self.tail(name)}"

    def out(self, name: str) -> Path:
        """The file with a process's standard output."""
        return self.logs / f"{name}.out"

    def log(self, name: str) -> Path:
        """The file with a process's standard error: its log."""
        return self.logs / f"{name}.log"

    def tail(self, name: str, lines: int = LOG_TAIL_LINES) -> str:
        """Returns the end of a log, for an error message."""
        try:
            last = self.log(name).read_text(errors="replace").splitlines()[-lines:]
        except OSError:
            last = []
        if not last:
            return f"its log {self.log(name)} is empty"
        return "\n  ".join([f"end of its log {self.log(name)}:", *last])

    def _reap(self, name: str) -> None:
        child = self._children.pop(name, None)
        if child is not None:
            child.wait(KILL_SECONDS)

    def _write(self, records: List[Record]) -> None:
        listed = [
            {"name": one.name, "pid": one.identity.pid, "started": one.identity.started, "program": one.program}
            for one in records
        ]
        fresh = self._file.with_suffix(".tmp")
        fresh.write_text(json.dumps(listed, indent=2) + "\n")
        os.replace(fresh, self._file)


def parent_death_signal() -> Callable[[], None]:
    """Returns a preexec_fn: the child receives SIGTERM when the thread that started it exits, for whatever reason."""
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def set_signal() -> None:
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
        if os.getppid() != parent:  # it exited before prctl took effect
            raise OSError(errno.ESRCH, "the parent process has exited")

    return set_signal
