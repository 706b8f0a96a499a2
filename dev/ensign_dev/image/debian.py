"""What the packages of Debian and its kin say of themselves."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Dict, List, NamedTuple

from .. import children
from ..failure import Failure


class Package(NamedTuple):
    """An installed package, its copyright notice, and whose distribution it is of."""

    name: str
    version: str
    architecture: str
    distribution: str
    notice: bytes


SYSTEM = Path("/")


def installed(name: str, system: Path = SYSTEM) -> Package:
    """The package of this name, as it is installed."""
    try:
        fields = children.output(["dpkg-query", "--show", "--showformat=${Version} ${Architecture}", name])
    except (children.CommandFailed, OSError) as error:
        raise Failure(
            f"the package {name} of Debian or Ubuntu is not installed: apt install {name}. On another system, build the"
            " image in a container: the Dockerfile does"
        ) from error
    version, architecture = fields.split()
    release = (system / "etc/os-release").read_text(encoding="utf-8")
    found = re.search(r'^ID="?([a-z]+)"?$', release, re.MULTILINE)
    notice = (system / "usr/share/doc" / name / "copyright").read_bytes()
    return Package(name, version, architecture, found.group(1) if found else "debian", notice)


def unchanged_files(name: str, folder: str, system: Path = SYSTEM) -> List[bytes]:
    """The contents of a package's files under a folder, in the order of their names, each as the package has it."""
    sums = checksums(children.output(["dpkg-query", "--control-show", name, "md5sums"]))
    contents = []
    for path in sorted(path for path in sums if path.startswith(folder)):
        content = (system / path).read_bytes()
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != sums[path]:
            raise Failure(f"/{path} is not as the package {name} has it; to restore it: apt install --reinstall {name}")
        contents.append(content)
    return contents


def checksums(md5sums: str) -> Dict[str, str]:
    """A package's list of checksums, by path from the root."""
    pairs = (line.split(maxsplit=1) for line in md5sums.splitlines() if line.strip())
    return {path: checksum for checksum, path in pairs}
