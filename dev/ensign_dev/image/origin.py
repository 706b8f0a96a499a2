"""The version and commit that an image is built from. The machine's clock is never used."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Mapping, NamedTuple, Optional

from .. import children
from ..failure import Failure

DIRTY = "-dirty"


class Origin(NamedTuple):
    """The version of the package, the commit if it is known, and the commit's time in seconds since 1970."""

    version: str
    revision: Optional[str]
    seconds: int

    def time(self) -> str:
        """The commit's time in RFC 3339 format."""
        return datetime.fromtimestamp(self.seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def read(root: Path, version: str, revision: Optional[str], environ: Mapping[str, str] = os.environ) -> Origin:
    """Reads the origin from git; without git, from `revision` and the variable SOURCE_DATE_EPOCH."""
    epoch = environ.get("SOURCE_DATE_EPOCH")
    if epoch is not None and not epoch.isdecimal():
        raise Failure(f"SOURCE_DATE_EPOCH must be whole seconds since 1970, not {epoch!r}")
    try:
        seconds = int(epoch if epoch is not None else children.output(["git", "log", "-1", "--format=%ct"], cwd=root))
        return Origin(version, revision or _revision(root, needed=epoch is None), seconds)
    except (children.CommandFailed, OSError) as error:
        raise Failure(
            "can't read the commit from git. Without git, set SOURCE_DATE_EPOCH to the time of"
            f" the commit (`git log -1 --format=%ct`), and --revision to its hash: {error}"
        ) from error


def _revision(root: Path, needed: bool) -> Optional[str]:
    try:
        commit = children.output(["git", "rev-parse", "HEAD"], cwd=root).strip()
        changed = children.output(["git", "status", "--porcelain"], cwd=root).strip()
    except (children.CommandFailed, OSError):
        if needed:
            raise
        return None
    return commit + (DIRTY if changed else "")
