"""Checks that the machine has everything that is needed, before anything is compiled.

The checks are independent and run concurrently, so everything that is missing is listed at once, within two seconds.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

from . import children, paths

RUST = (1, 89)
GO = (1, 26)
PYTHON = (3, 9)
NODE = (20,)
JAVA = (17,)
# The first version whose static library resolves host names without shared libraries.
GLIBC = (2, 34)

GIB = 1024**3
# The Go build of the control plane needs the most memory.
MEMORY_TO_BUILD_BYTES = 4 * GIB
MEMORY_TO_RUN_BYTES = 2 * GIB
# For Go's module and build caches, the binaries, and cargo's target folder.
DISK_TO_BUILD_BYTES = 12 * GIB
DISK_TO_RUN_BYTES = 3 * GIB

COMMAND_TIMEOUT_SECONDS = 10


class Problem(NamedTuple):
    """Something that is missing, and how to install it."""

    what: str
    how: str


Check = Callable[[], List[Problem]]


def check(purpose: str, control_plane_built: bool = False) -> List[Problem]:
    """Returns everything that is missing for `test`, `demo` (and `up`), `fuzz`, `image` or `control-plane`."""
    checks: List[Check] = [check_system, check_python]
    if purpose not in ("fuzz", "image"):
        checks.append(check_go)
    checks.append(lambda: check_memory(control_plane_built))
    checks.append(lambda: check_disk(control_plane_built))
    if purpose in ("test", "demo"):
        checks += [check_rust, check_c_compiler, check_venv]
    if purpose == "fuzz":
        checks += [check_rust, check_c_compiler, check_cpp_compiler]
    if purpose == "image":
        checks += [check_rust, check_c_compiler, check_static_libc]
    if purpose == "test":
        checks += [check_rust_tools, check_node, check_java]
    with ThreadPoolExecutor(max_workers=len(checks)) as pool:
        results = list(pool.map(lambda one: one(), checks))
    return [problem for problems in results for problem in problems]


def require(purpose: str, control_plane_built: bool = False) -> None:
    """Exits with a list of what is missing, if anything is."""
    problems = check(purpose, control_plane_built)
    if problems:
        print(report(problems), file=sys.stderr)
        raise SystemExit(1)


def report(problems: List[Problem]) -> str:
    """Formats the list for people."""
    lines = [f"{len(problems)} missing {'prerequisite' if len(problems) == 1 else 'prerequisites'} on this machine:"]
    for problem in problems:
        lines += [f"  - {problem.what}", f"      {problem.how}"]
    return "\n".join(lines)


def check_system() -> List[Problem]:
    if platform.system() == "Linux":
        return []
    return [Problem(f"Linux (this is {platform.system()})", "use a Linux machine, virtual machine or container")]


def check_python() -> List[Problem]:
    if sys.version_info >= PYTHON:
        return []
    return [_too_old("Python", sys.version.split()[0], PYTHON, "install a newer python3 and put it first in PATH")]


def check_venv() -> List[Problem]:
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if not missing:
        return []
    return [Problem(f"Python's {' and '.join(missing)}", "on Debian and Ubuntu: apt install python3-venv")]


def check_rust() -> List[Problem]:
    how = "install Rust from https://rustup.rs, or: rustup update stable"
    return _tool("Rust compiler", ["rustc", "--version"], RUST, how) + _tool("cargo", ["cargo", "--version"], RUST, how)


def check_rust_tools() -> List[Problem]:
    problems = []
    for tool, component in (("fmt", "rustfmt"), ("clippy", "clippy")):
        problems += _tool(component, ["cargo", tool, "--version"], None, f"rustup component add {component}")
    return problems


def check_go() -> List[Problem]:
    return _tool("Go", ["go", "version"], GO, "install it from https://go.dev/dl and put its bin folder in PATH")


def check_node() -> List[Problem]:
    how = "install Node.js 20 or newer, with npm, from https://nodejs.org; only the tests need it"
    return _tool("Node.js", ["node", "--version"], NODE, how) + _tool("npm", ["npm", "--version"], None, how)


def check_java() -> List[Problem]:
    how = "on Debian and Ubuntu: apt install openjdk-17-jdk-headless maven; only the tests need it"
    return _tool("a JDK", ["javac", "-version"], JAVA, how) + _tool("Maven", ["mvn", "-version"], None, how)


def check_c_compiler() -> List[Problem]:
    compiler = os.environ.get("CC", "cc").split()[0]
    if shutil.which(compiler):
        return []
    return [Problem(f"a C compiler ({compiler})", "on Debian and Ubuntu: apt install build-essential")]


def check_static_libc() -> List[Problem]:
    compiler = os.environ.get("CC", "cc").split()
    how = "on Debian and Ubuntu: apt install libc6-dev"
    try:
        # If the file does not exist, the compiler prints its bare name.
        found = subprocess.run(
            [*compiler, "-print-file-name=libc.a"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False, timeout=COMMAND_TIMEOUT_SECONDS, env=children.environment(),
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        found = ""
    problems = [] if os.path.isabs(found) else [Problem("a static C library (libc.a)", how)]
    name, release = platform.libc_ver()
    if name != "glibc" or (version(release) or ()) < GLIBC:
        wanted = ".".join(map(str, GLIBC))
        what = f"glibc {wanted} or newer (found: {name or 'another C library'} {release})"
        problems.append(Problem(what, "use a newer system, or build the image in a container with the Dockerfile"))
    return problems


def check_cpp_compiler() -> List[Problem]:
    compiler = os.environ.get("CXX", "c++").split()[0]
    if shutil.which(compiler):
        return []
    return [Problem(f"a C++ compiler ({compiler}), for libFuzzer", "on Debian and Ubuntu: apt install build-essential")]


def check_memory(control_plane_built: bool) -> List[Problem]:
    wanted = MEMORY_TO_RUN_BYTES if control_plane_built else MEMORY_TO_BUILD_BYTES
    available = available_memory()
    if available is None or available >= wanted:
        return []
    what = f"{_gib(wanted)} of free memory (available: {_gib(available)})"
    return [Problem(what, "close other programs, or use a machine with more memory")]


def check_disk(control_plane_built: bool) -> List[Problem]:
    wanted = DISK_TO_RUN_BYTES if control_plane_built else DISK_TO_BUILD_BYTES
    problems = []
    seen = set()
    for place in (paths.target_dir(), paths.cache_dir()):
        existing = next(folder for folder in (place, *place.parents) if folder.exists())
        device = existing.stat().st_dev
        free = shutil.disk_usage(existing).free
        if device not in seen and free < wanted:
            what = f"{_gib(wanted)} of free disk space in {existing} (available: {_gib(free)})"
            how = "free disk space, or point CARGO_TARGET_DIR and ENSIGN_CACHE_DIR to a larger disk"
            problems.append(Problem(what, how))
        seen.add(device)
    return problems


def available_memory(proc: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> Optional[int]:
    """Returns the available memory in bytes: the machine's, or the container's if that is less."""
    amounts = []
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", proc.read_text(), re.MULTILINE)
        if found:
            amounts.append(int(found.group(1)) * 1024)
    except OSError:
        pass
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        if limit != "max":
            stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
            used = int((cgroup / "memory.current").read_text()) - int(stat.get("inactive_file", 0))
            amounts.append(int(limit) - used)
    except (OSError, ValueError):
        pass
    return min(amounts) if amounts else None


def _tool(name: str, command: List[str], least: Optional[Tuple[int, ...]], how: str) -> List[Problem]:
    if shutil.which(command[0]) is None:
        return [Problem(f"{name} (no `{command[0]}` in PATH)", how)]
    env: Dict[str, str] = children.environment({"GOTOOLCHAIN": "local"})
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=COMMAND_TIMEOUT_SECONDS, env=env, cwd=paths.ROOT,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [Problem(f"{name} (`{' '.join(command)}`: {error})", how)]
    if result.returncode != 0:
        output = (result.stderr or result.stdout).strip().splitlines()
        return [Problem(f"{name} (`{' '.join(command)}`: {output[0] if output else 'failed'})", how)]
    if least is None:
        return []
    found = version(result.stdout)
    if found is None or found < least:
        return [_too_old(name, result.stdout.strip(), least, how)]
    return []


def version(text: str) -> Optional[Tuple[int, ...]]:
    """Returns the first version number in a tool's output."""
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part) for part in found.groups() if part is not None) if found else None


def _too_old(name: str, found: str, least: Tuple[int, ...], how: str) -> Problem:
    return Problem(f"{name} {'.'.join(map(str, least))} or newer (found: {found})", how)


def _gib(amount: int) -> str:
    return f"{amount / GIB:.1f} GiB"
