"""Reads a layout back, and believes nothing that its digests don't bear out."""

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
    """Writes the files of the one image of a layout into an empty folder."""
    version = json.loads((layout / "oci-layout").read_bytes())["imageLayoutVersion"]
    descriptors = json.loads((layout / "index.json").read_bytes())["manifests"]
    if version != "1.0.0" or len(descriptors) != 1:
        raise Failure(f"{layout} is not a layout of one image")
    manifest = json.loads(checked(layout, descriptors[0]))
    config = json.loads(checked(layout, manifest["config"]))
    if len(manifest["layers"]) != len(config["rootfs"]["diff_ids"]):
        raise Failure(f"{layout} has layers that the image was not configured with")
    entries: List[tarfile.TarInfo] = []
    for descriptor, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"]):
        archive = gzip.decompress(checked(layout, descriptor))
        if _digest(archive) != diff_id:
            raise Failure(f"the layer {descriptor['digest']} is not the one that the image was configured with")
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            entries += _extract(tar, root)
    return Unpacked(config, entries)


def checked(layout: Path, descriptor: Dict[str, Any]) -> bytes:
    """The content that a descriptor means; another one is refused."""
    content = blob(layout, descriptor["digest"]).read_bytes()
    if _digest(content) != descriptor["digest"] or len(content) != descriptor["size"]:
        raise Failure(f"the blob {descriptor['digest']} is not what its digest and size say")
    return content


def refusal(entry: tarfile.TarInfo) -> str:
    """Why an entry has no place in the image; nothing if it has."""
    if not (entry.isreg() or entry.isdir()):
        return "is neither a file nor a folder"
    if entry.name.startswith("/") or ".." in PurePosixPath(entry.name).parts:
        return "is outside of the root"
    if (entry.uid, entry.gid) != (0, 0) or entry.mode & 0o022:
        return "could be changed by the user that runs it"
    if entry.mode & SPECIAL_BITS:
        return "gives rights to those who run it"
    return "" if entry.mtime == 0 else "has a time, so that no other build gives the same"


def _extract(tar: tarfile.TarFile, root: Path) -> List[tarfile.TarInfo]:
    entries = tar.getmembers()
    for entry in entries:
        reason = refusal(entry)
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
