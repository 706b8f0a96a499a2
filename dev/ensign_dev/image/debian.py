"""Installed packages of Debian and its derivatives."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Dict, List, NamedTuple

from .. import children
from ..failure import Failure


class Package(NamedTuple):
    """An installed package, with its distribution and its copyright notice."""

    name: str
    version: str
    architecture: str
    distribution: str
    notice: bytes


SYSTEM = Path("/")


def installed(name: str, system: Path = SYSTEM) -> Package:
    """Returns the installed package with this name."""
    try:
        fields = children.output(["dpkg-query", "--show", "--showformat=${Version} ${Architecture}", name])
    except (children.CommandFailed, OSError) as error:
        raise Failure(
            f"the Debian or Ubuntu package {name} is not installed; run: apt install {name}. On other systems, build the"
            " image in a container with the Dockerfile"
        ) from error
    version, architecture = fields.split()
    release = (system / "etc/os-release").read_text(encoding="utf-8")
    found = re.search(r'^ID="?([a-z]+)"?$', release, re.MULTILINE)
    notice = (system / "usr/share/doc" / name / "copyright").read_bytes()
    return Package(name, version, architecture, found.group(1) if found else "debian", notice)


def unchanged_files(name: str, folder: str, system: Path = SYSTEM) -> List[bytes]:
    """Returns the contents of a package's files in a folder, sorted by name; modified files are an error."""
    sums = checksums(children.output(["dpkg-query", "--control-show", name, "md5sums"]))
    contents = []
    for path in sorted(path for path in sums if path.startswith(folder)):
        content = (system / path).read_bytes()
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != sums[path]:
            raise Failure(f"/{path} differs from the package {name}; to restore it: apt install --reinstall {name}")
        contents.append(content)
    return contents


def checksums(md5sums: str) -> Dict[str, str]:
    """Parses a package's list of checksums; returns them by path, relative to the root."""
    pairs = (line.split(maxsplit=1) for line in md5sums.splitlines() if line.strip())
    return {path: checksum for checksum, path in pairs}
