"""The cache of slow builds, outside the checkout.

An entry is a folder `<cache>/<kind>/<key>`. It is built in a sibling folder, under a lock, and then renamed, so it is
either complete or absent, even after an interrupt.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Callable, Iterable, Iterator, Union

from . import paths
from .progress import Progress

PARTIAL = ".partial-"
UNUSED_DAYS = 30


def key(*parts: Union[str, bytes]) -> str:
    """Returns a short hash of the parts. Their lengths are hashed too, so that no two lists collide."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "big"))
        digest.update(raw)
    return digest.hexdigest()[:16]


def hash_files(root: Path, files: Iterable[Path]) -> str:
    """Returns a hash of the paths (relative to `root`) and contents of files, in any order."""
    parts = []
    for file in sorted(files):
        parts += [file.relative_to(root).as_posix(), file.read_bytes()]
    return key(*parts)


def entry(kind: str, name: str, build: Callable[[Path], None], progress: Progress) -> Path:
    """Returns the folder of an entry; `build` fills it if it does not exist yet."""
    folder = paths.cache_dir() / kind
    final = folder / name
    if final.is_dir():
        _mark_used(final)
        return final
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / ".lock", kind, progress):
        if final.is_dir():  # another process built it while this one waited
            _mark_used(final)
            return final
        for left in folder.glob(PARTIAL + "*"):  # left by killed builds, because this process holds the lock
            shutil.rmtree(left, ignore_errors=True)
        partial = folder / (PARTIAL + name)
        partial.mkdir()
        try:
            build(partial)
            os.rename(partial, final)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        _mark_used(final)
        _prune(folder, keep=final)
    return final


@contextlib.contextmanager
def _locked(file: Path, kind: str, progress: Progress) -> Iterator[None]:
    with open(file, "a", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say(f"Another build of {kind} is in progress; waiting for it ...")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield  # closing the file releases the lock, as does the process exit


def _mark_used(path: Path) -> None:
    with contextlib.suppress(OSError):
        os.utime(path)


def _prune(folder: Path, keep: Path) -> None:
    """Removes entries that no checkout has used for a month."""
    oldest = time.time() - UNUSED_DAYS * 24 * 3600
    for other in folder.iterdir():
        if other != keep and other.is_dir() and not other.name.startswith(".") and other.stat().st_mtime < oldest:
            shutil.rmtree(other, ignore_errors=True)
