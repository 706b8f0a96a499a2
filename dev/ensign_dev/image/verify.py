"""Runs what was written: an image is only good if the binary in it runs on nothing but the image."""

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
    """How the binary ended, and what it wrote."""

    status: int
    out: str
    err: str


def run(root: Path, config: Dict[str, Any], arguments: List[str], chroot: bool) -> Ran:
    """Runs the image's entry point in its environment; with `chroot`, as its user and with nothing but its files."""
    program, *rest = command(config, arguments)
    result = subprocess.run(
        [program if chroot else str(root) + program, *rest], env=environment(config), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS,
        preexec_fn=enter(root, config) if chroot else None,
    )
    return Ran(result.returncode, result.stdout.strip(), result.stderr.strip())


def command(config: Dict[str, Any], arguments: List[str]) -> List[str]:
    """What an engine would run for these arguments."""
    return [*config["config"]["Entrypoint"], *arguments]


def environment(config: Dict[str, Any]) -> Dict[str, str]:
    """The environment that an engine would give it."""
    return dict(variable.split("=", 1) for variable in config["config"]["Env"])


def enter(root: Path, config: Dict[str, Any]) -> Callable[[], None]:
    """What a child process does to be where the image says and who it says: needs root."""
    user, group = (int(part) for part in config["config"]["User"].split(":"))

    def change() -> None:
        os.chroot(root)
        os.chdir(config["config"]["WorkingDir"])
        os.setgroups([])
        os.setgid(group)
        os.setuid(user)

    return change


def may_chroot() -> bool:
    """Whether this process may take another root: that of a container often may not, even as user 0."""
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
    """Refuses an image that does not run, or that is another version."""
    if ran.status != 0 or ran.out != f"ensign {version}":
        raise Failure(f"`ensign --version` in the image ended with status {ran.status}: {ran.out}\n{ran.err}".strip())


def require_no_emulator(graph: Graph) -> None:
    """Refuses a binary with the code of Azure's emulator in it."""
    if any(crate.name == EMULATOR for crate in graph.others):
        raise Failure(f"the image would have the emulator of Azure in it: {graph.root.name} depends on {EMULATOR}")


def table(unpacked: Unpacked) -> str:
    """The contents, as a person reads them."""
    lines = [f"{'mode':>5}  {'bytes':>12}  path"]
    for entry in unpacked.entries:
        size = "" if entry.isdir() else f"{entry.size:,}"
        lines.append(f"{entry.mode:>5o}  {size:>12}  /{entry.name}{'/' if entry.isdir() else ''}")
    return "\n".join(lines)
