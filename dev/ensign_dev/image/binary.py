"""Builds the release binary: static, and reproducible with the same compilers.

It is linked with glibc's static library. Since glibc 2.34, that library resolves host names through files and DNS without
shared libraries. Random numbers come directly from the getrandom system call: by default, the crate getrandom looks for the C
function at run time, which fails in a static program, and falls back to /dev/urandom. Paths of the build machine are replaced
by fixed names.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Dict, Iterable, List, Mapping, NamedTuple, Tuple

from .. import build, children, paths
from ..failure import Failure
from . import elf
from .platforms import Platform

RUST_FLAGS = ("-Ctarget-feature=+crt-static", '--cfg=getrandom_backend="linux_getrandom"')
# Not the commit's time: the binary does not depend on it, and every commit would recompile all crates.
EPOCH = "0"
# Inside cargo's target folder.
FOLDER = "static"
# Settings of the caller that would change the binary.
UNWANTED_PREFIXES = ("CARGO_PROFILE_", "CARGO_ENCODED_", "CARGO_BUILD_RUST", "CARGO_BUILD_TARGET", "AWS_LC_")
UNWANTED_NAMES = ("RUSTFLAGS", "CFLAGS", "CPPFLAGS", "CXXFLAGS", "LDFLAGS", "ASFLAGS")


class Toolchain(NamedTuple):
    """The Rust compiler: release, first line of its version, sysroot and commit."""

    release: str
    about: str
    sysroot: Path
    commit: str


def toolchain(rustc_version: str, sysroot: str) -> Toolchain:
    """Parses the output of `rustc -vV` and `rustc --print sysroot`."""
    fields = dict(re.findall(r"^([a-z-]+): (.+)$", rustc_version, re.MULTILINE))
    return Toolchain(fields["release"], rustc_version.splitlines()[0], Path(sysroot.strip()), fields["commit-hash"])


def replacements(root: Path, target_dir: Path, sources: Iterable[Path], rust: Toolchain) -> List[Tuple[Path, str]]:
    """Returns folders of this machine and their replacements. If several match, compilers use the last one."""
    return [
        (root, "/ensign"),
        (target_dir, "/target"),
        *((folder, "/crates") for folder in sorted(set(sources))),
        # The name that the compiler uses without the component rust-src.
        (rust.sysroot / "lib" / "rustlib" / "src" / "rust", f"/rustc/{rust.commit}"),
    ]


def environment(
    replaced: List[Tuple[Path, str]], platform: Platform, base: Mapping[str, str] = os.environ
) -> Dict[str, str]:
    """Returns cargo's environment for this build."""
    wanted = {
        name: value for name, value in base.items()
        if not name.startswith(UNWANTED_PREFIXES + UNWANTED_NAMES) and not _of_a_target(name)
    }
    rust = [*RUST_FLAGS, *(f"--remap-path-prefix={folder}={name}" for folder, name in replaced)]
    c = [shlex.quote(f"-ffile-prefix-map={folder}={name}") for folder, name in replaced]
    return children.environment({
        "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(rust),
        f"CFLAGS_{platform.target.replace('-', '_')}": " ".join(c),
        "CC_SHELL_ESCAPED_FLAGS": "1",
        # Build scripts depend on these flags: in a shared folder, alternating builds would recompile everything.
        "CARGO_TARGET_DIR": str(paths.target_dir(base) / FOLDER),
        "CARGO_INCREMENTAL": "0",
        "SOURCE_DATE_EPOCH": EPOCH,
    }, base=wanted)


def compile_release(platform: Platform, env: Dict[str, str]) -> Path:
    """Builds only `ensign`, so that tests can't enable features of dependencies; returns its path."""
    # With an explicit --target, the flags do not apply to build scripts and proc macros, which can't be static.
    command = ["build", "--release", "--locked", "--package", "ensign", "--bin", "ensign", "--target", platform.target]
    return build.executables(build.cargo(command, env=env))["ensign"]


def require_portable(program: Path, folders: Iterable[Path]) -> None:
    """Raises `Failure` if a program needs shared libraries, or contains the path of one of these folders."""
    content = program.read_bytes()
    if not elf.is_static(content):
        raise Failure(f"{program} is not static: it needs a dynamic loader, which the image does not contain")
    left = sorted({str(folder) for folder in folders if os.fsencode(folder) in content})
    if left:
        raise Failure(f"{program} contains paths of this machine: {', '.join(left)}")


def machine_folders(metadata: str, rust: Toolchain) -> List[Path]:
    """Returns folders whose paths must not be in the binary: checkout, cargo, compiler and home."""
    found = json.loads(metadata)
    cargo = Path(os.environ.get("CARGO_HOME", "~/.cargo")).expanduser()
    folders = [Path(found["workspace_root"]), Path(found["target_directory"]), cargo, rust.sysroot]
    home = Path.home()
    # Users without a home have `/`, which occurs in every binary.
    return folders + ([home] if len(home.parts) > 2 else [])


def _of_a_target(name: str) -> bool:
    return name.startswith("CARGO_TARGET_") and name != "CARGO_TARGET_DIR"
