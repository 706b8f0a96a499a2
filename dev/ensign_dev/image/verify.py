"""Verifies an unpacked image: its binary must run with nothing but the image's files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple

from ..failure import Failure
from .crates import Graph
from .unpack import Unpacked

TIMEOUT_SECONDS = 60
EMULATOR = "ensign-azure-emulator"


class Ran(NamedTuple):
    """The exit status and output of the binary."""

    status: int
    out: str
    err: str


def run(root: Path, config: Dict[str, Any], arguments: List[str], chroot: bool) -> Ran:
    """Runs the image's entry point in its environment; with `chroot`, as its user and with only its files."""
    program, *rest = command(config, arguments)
    result = subprocess.run(
        [program if chroot else str(root) + program, *rest], env=environment(config), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS,
        preexec_fn=enter(root, config) if chroot else None,
    )
    return Ran(result.returncode, result.stdout.strip(), result.stderr.strip())


def command(config: Dict[str, Any], arguments: List[str]) -> List[str]:
    """Returns the command that a container engine would run for these arguments."""
    return [*config["config"]["Entrypoint"], *arguments]


def environment(config: Dict[str, Any]) -> Dict[str, str]:
    """Returns the environment that a container engine would set."""
    return dict(variable.split("=", 1) for variable in config["config"]["Env"])


def enter(root: Path, config: Dict[str, Any]) -> Callable[[], None]:
    """Returns a preexec_fn that enters the image as its user; needs root."""
    user, group = (int(part) for part in config["config"]["User"].split(":"))

    def change() -> None:
        os.chroot(root)
        os.chdir(config["config"]["WorkingDir"])
        os.setgroups([])
        os.setgid(group)
        os.setuid(user)

    return change


def may_chroot() -> bool:
    """Whether this process may call chroot: in a container, even root often may not."""
    if os.geteuid() != 0:
        return False
    child = os.fork()
    if child == 0:
        try:
            os.chroot("/")
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def require_version(ran: Ran, version: str) -> None:
    """Raises `Failure` if the binary does not run, or has another version."""
    if ran.status != 0 or ran.out != f"ensign {version}":
        raise Failure(f"`ensign --version` in the image exited with status {ran.status}: {ran.out}\n{ran.err}".strip())


def require_no_emulator(graph: Graph) -> None:
    """Raises `Failure` if the binary would contain the Azure emulator."""
    if any(crate.name == EMULATOR for crate in graph.others):
        raise Failure(f"the image would contain the Azure emulator: {graph.root.name} depends on {EMULATOR}")


def table(unpacked: Unpacked) -> str:
    """Formats the contents for people."""
    lines = [f"{'mode':>5}  {'bytes':>12}  path"]
    for entry in unpacked.entries:
        size = "" if entry.isdir() else f"{entry.size:,}"
        lines.append(f"{entry.mode:>5o}  {size:>12}  /{entry.name}{'/' if entry.isdir() else ''}")
    return "\n".join(lines)
