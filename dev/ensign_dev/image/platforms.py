"""For which processors an image can be made here: for this machine's own."""

from __future__ import annotations

import re
from typing import NamedTuple

from ..failure import Failure


class Platform(NamedTuple):
    """A processor, by the name that images give it and by the one of the compiler."""

    architecture: str
    target: str


PLATFORMS = (
    Platform("amd64", "x86_64-unknown-linux-gnu"),
    Platform("arm64", "aarch64-unknown-linux-gnu"),
)


def choose(wanted: str, rustc_version: str) -> Platform:
    """The platform called `wanted` (none: this machine's), on a machine whose `rustc -vV` is given.

    No image is made for another processor: the binary could not be run here, so that nothing would show that it works.
    """
    found = re.search(r"^host: (\S+)$", rustc_version, re.MULTILINE)
    host = found.group(1) if found else "unknown"
    here = next((platform for platform in PLATFORMS if platform.target == host), None)
    names = [platform.architecture for platform in PLATFORMS]
    if wanted and wanted not in names:
        raise Failure(f"there is no image for {wanted!r}; there are: {', '.join(names)}")
    if here is None:
        targets = ", ".join(platform.target for platform in PLATFORMS)
        raise Failure(
            f"this machine's Rust compiler is for {host}; an image is made with one for {targets}, the targets on"
            " which a static binary still resolves names as the C library does"
        )
    if wanted and wanted != here.architecture:
        raise Failure(
            f"no image for {wanted} can be made on this machine, which is {here.architecture}: the binary could not be"
            f" run here, so that nothing would show that it works. Run `make image` on a machine that is {wanted};"
            " docs/image.md says how to join the images of several processors"
        )
    return here
