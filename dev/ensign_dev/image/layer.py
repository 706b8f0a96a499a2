"""A layer: a compressed tar archive. The same files always give the same bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from pathlib import Path
from typing import BinaryIO, List, NamedTuple

from .contents import EXECUTABLE, File, folders

COMPRESSION = 9


class Layer(NamedTuple):
    """A written layer: digest and size of the compressed file and of the archive in it."""

    digest: str
    size: int
    diff_id: str
    unpacked: int


class Hashed:
    """Writes to a stream, and computes the digest and the length of what was written."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.length = 0

    def write(self, data: bytes) -> int:
        """Writes all of `data`."""
        self._hash.update(data)
        self.length += len(data)
        self._stream.write(data)
        return len(data)

    def tell(self) -> int:
        """The current position."""
        return self.length

    def flush(self) -> None:
        """Flushes the stream."""
        self._stream.flush()

    @property
    def digest(self) -> str:
        """The digest in OCI format."""
        return "sha256:" + self._hash.hexdigest()


def write(path: Path, files: List[File], compression: int = COMPRESSION) -> Layer:
    """Writes a layer with these files and their folders."""
    with open(path, "wb") as out:
        packed = Hashed(out)
        # Without the name and time that gzip would record.
        with gzip.GzipFile("", "wb", compression, packed, mtime=0) as compressor:  # type: ignore[arg-type]
            archive = Hashed(compressor)  # type: ignore[arg-type]
            _archive(archive, files)
    return Layer(packed.digest, packed.length, archive.digest, archive.length)


def member(path: str, mode: int, size: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    """Returns an archive entry that is owned by root and has a fixed time."""
    info = tarfile.TarInfo(path)
    info.type, info.mode, info.size = kind, mode, size
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    return info


def _archive(stream: Hashed, files: List[File]) -> None:
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:  # type: ignore[call-overload]
        for folder in folders(file.path for file in files):
            tar.addfile(member(folder, EXECUTABLE, kind=tarfile.DIRTYPE))
        for file in sorted(files, key=lambda file: file.path):
            if isinstance(file.content, bytes):
                tar.addfile(member(file.path, file.mode, len(file.content)), io.BytesIO(file.content))
            else:
                with open(file.content, "rb") as content:
                    size = file.content.stat().st_size
                    tar.addfile(member(file.path, file.mode, size), content)
