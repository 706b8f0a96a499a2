"""The complete list of the image's files. There is no shell, no package manager and no library."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any, Dict, Iterable, List, NamedTuple, Union

from .layout import canonical

BINARY = "usr/bin/ensign"
USER_ID = 65532
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
# Scanners recognize SBOMs by this file extension.
SBOM = "usr/share/doc/ensign/ensign.cdx.json"
PASSWD = f"""\
root:x:0:0:root:/nonexistent:/sbin/nologin
ensign:x:{USER_ID}:{USER_ID}:Ensign:/nonexistent:/sbin/nologin
"""
GROUP = f"""\
root:x:0:
ensign:x:{USER_ID}:
"""
# files and dns are built into the binary. Kubernetes writes /etc/hosts and /etc/resolv.conf.
NAME_SERVICES = "passwd: files\ngroup: files\nhosts: files dns\n"

EXECUTABLE = 0o755
READABLE = 0o644


class File(NamedTuple):
    """A file of the image. It is owned by root, so the running process can't change it."""

    path: str
    mode: int
    content: Union[bytes, Path]


class Parts(NamedTuple):
    """The inputs of an image."""

    binary: Path
    certificates: bytes
    sbom: Dict[str, Any]
    license: bytes
    notices: Dict[str, bytes]


def files(parts: Parts) -> List[File]:
    """Returns all files, sorted by path."""
    notices = [File(f"usr/share/doc/{name}/copyright", READABLE, text) for name, text in parts.notices.items()]
    return sorted([
        File(BINARY, EXECUTABLE, parts.binary),
        File("etc/passwd", READABLE, PASSWD.encode()),
        File("etc/group", READABLE, GROUP.encode()),
        File("etc/nsswitch.conf", READABLE, NAME_SERVICES.encode()),
        File(CERTIFICATES, READABLE, parts.certificates),
        File(SBOM, READABLE, canonical(parts.sbom)),
        File("usr/share/doc/ensign/LICENSE", READABLE, parts.license),
        *notices,
    ], key=lambda file: file.path)


def folders(paths: Iterable[str]) -> List[str]:
    """Returns the folders of these paths, parents first."""
    found = {str(parent) for path in paths for parent in PurePosixPath(path).parents}
    return sorted(found - {"."})


def write(root: Path, listed: List[File]) -> None:
    """Writes the files to a folder, to build an image from it by other means."""
    for folder in folders(file.path for file in listed):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder).chmod(EXECUTABLE)
    for file in listed:
        path = root / file.path
        path.write_bytes(file.content if isinstance(file.content, bytes) else file.content.read_bytes())
        path.chmod(file.mode)
