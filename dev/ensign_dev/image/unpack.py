"""Unpacks a layout and verifies all digests."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any, Dict, List, NamedTuple

from ..failure import Failure
from .layout import blob

SPECIAL_BITS = 0o7000


class Unpacked(NamedTuple):
    """The configuration of an image, and the entries of its layers."""

    config: Dict[str, Any]
    entries: List[tarfile.TarInfo]


def unpack(layout: Path, root: Path) -> Unpacked:
    """Writes the files of a layout with a single image to an empty folder."""
    version = json.loads((layout / "oci-layout").read_bytes())["imageLayoutVersion"]
    descriptors = json.loads((layout / "index.json").read_bytes())["manifests"]
    if version != "1.0.0" or len(descriptors) != 1:
        raise Failure(f"{layout} is not a layout with a single image")
    manifest = json.loads(checked(layout, descriptors[0]))
    config = json.loads(checked(layout, manifest["config"]))
    if len(manifest["layers"]) != len(config["rootfs"]["diff_ids"]):
        raise Failure(f"{layout}: the layers do not match the image's configuration")
    entries: List[tarfile.TarInfo] = []
    for descriptor, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"]):
        archive = gzip.decompress(checked(layout, descriptor))
        if _digest(archive) != diff_id:
            raise Failure(f"the layer {descriptor['digest']} does not match the image's configuration")
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            entries += _extract(tar, root)
    return Unpacked(config, entries)


def checked(layout: Path, descriptor: Dict[str, Any]) -> bytes:
    """Returns the content for a descriptor; raises `Failure` if it does not match."""
    content = blob(layout, descriptor["digest"]).read_bytes()
    if _digest(content) != descriptor["digest"] or len(content) != descriptor["size"]:
        raise Failure(f"the blob {descriptor['digest']} does not match its digest and size")
    return content


def problem(entry: tarfile.TarInfo) -> str:
    """Returns why an entry must not be in the image; empty if it may be."""
    if not (entry.isreg() or entry.isdir()):
        return "is neither a file nor a folder"
    if entry.name.startswith("/") or ".." in PurePosixPath(entry.name).parts:
        return "is outside the root"
    if (entry.uid, entry.gid) != (0, 0) or entry.mode & 0o022:
        return "is writable by the image's user"
    if entry.mode & SPECIAL_BITS:
        return "has a setuid, setgid or sticky bit"
    return "" if entry.mtime == 0 else "has a modification time, so the image is not reproducible"


def _extract(tar: tarfile.TarFile, root: Path) -> List[tarfile.TarInfo]:
    entries = tar.getmembers()
    for entry in entries:
        reason = problem(entry)
        if reason:
            raise Failure(f"/{entry.name} {reason}")
        path = root / entry.name
        if entry.isdir():
            path.mkdir()
        else:
            content = tar.extractfile(entry)
            path.write_bytes(content.read() if content else b"")
        path.chmod(entry.mode)
    return entries


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()
