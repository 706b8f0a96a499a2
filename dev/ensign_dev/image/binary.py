"""The release binary: static, and the same wherever the same compilers build it.

It is linked with glibc's static library. Since glibc 2.34 that has files and DNS built in, so that names resolve
without a library beside the program. Random numbers come from the kernel's call directly: by default the crate
getrandom looks for it at run time, which finds nothing in a static program, and reads /dev/urandom instead. No path of
the machine is left in the binary: each is replaced by a name that is the same everywhere.
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
# Not the commit's time: nothing of the binary needs it, and every commit would compile all crates again.
EPOCH = "0"
# Below the build folder of the checkout.
FOLDER = "static"
# A caller's settings that would make another binary of the same sources.
UNWANTED_PREFIXES = ("CARGO_PROFILE_", "CARGO_ENCODED_", "CARGO_BUILD_RUST", "CARGO_BUILD_TARGET", "AWS_LC_")
UNWANTED_NAMES = ("RUSTFLAGS", "CFLAGS", "CPPFLAGS", "CXXFLAGS", "LDFLAGS", "ASFLAGS")


class Toolchain(NamedTuple):
    """The Rust compiler: its release, what it says of itself, and where it is."""

    release: str
    about: str
    sysroot: Path
    commit: str


def toolchain(rustc_version: str, sysroot: str) -> Toolchain:
    """Reads `rustc -vV` and `rustc --print sysroot`."""
    fields = dict(re.findall(r"^([a-z-]+): (.+)$", rustc_version, re.MULTILINE))
    return Toolchain(fields["release"], rustc_version.splitlines()[0], Path(sysroot.strip()), fields["commit-hash"])


def replacements(root: Path, target_dir: Path, sources: Iterable[Path], rust: Toolchain) -> List[Tuple[Path, str]]:
    """Folders of this machine and the names that stand for them; of two that fit, a compiler takes the later."""
    return [
        (root, "/ensign"),
        (target_dir, "/target"),
        *((folder, "/crates") for folder in sorted(set(sources))),
        # Without the component rust-src the compiler has this name by itself.
        (rust.sysroot / "lib" / "rustlib" / "src" / "rust", f"/rustc/{rust.commit}"),
    ]


def environment(
    replaced: List[Tuple[Path, str]], platform: Platform, base: Mapping[str, str] = os.environ
) -> Dict[str, str]:
    """The environment of cargo for this build."""
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
        # Build scripts look at these flags, so that a folder shared with other builds would be compiled anew by turns.
        "CARGO_TARGET_DIR": str(paths.target_dir(base) / FOLDER),
        "CARGO_INCREMENTAL": "0",
        "SOURCE_DATE_EPOCH": EPOCH,
    }, base=wanted)


def compile_release(platform: Platform, env: Dict[str, str]) -> Path:
    """Builds `ensign` and nothing else of the workspace, so that no test turns a feature on; where it is."""
    # With --target, even this machine's own, build scripts and macros have other flags: they can't be static.
    command = ["build", "--release", "--locked", "--package", "ensign", "--bin", "ensign", "--target", platform.target]
    return build.executables(build.cargo(command, env=env))["ensign"]


def require_portable(program: Path, folders: Iterable[Path]) -> None:
    """Refuses a program that needs a library, or that has the path of one of these folders in it."""
    content = program.read_bytes()
    if not elf.is_static(content):
        raise Failure(f"{program} is not static: it names a dynamic loader, which the image does not have")
    left = sorted({str(folder) for folder in folders if os.fsencode(folder) in content})
    if left:
        raise Failure(f"{program} has paths of this machine in it: {', '.join(left)}")


def machine_folders(metadata: str, rust: Toolchain) -> List[Path]:
    """Folders whose paths no binary may have: of the checkout, of cargo, of the compiler and of the user."""
    found = json.loads(metadata)
    cargo = Path(os.environ.get("CARGO_HOME", "~/.cargo")).expanduser()
    folders = [Path(found["workspace_root"]), Path(found["target_directory"]), cargo, rust.sysroot]
    home = Path.home()
    # Of a user without a home of its own this would be `/`, which is in every binary.
    return folders + ([home] if len(home.parts) > 2 else [])


def _of_a_target(name: str) -> bool:
    return name.startswith("CARGO_TARGET_") and name != "CARGO_TARGET_DIR"
