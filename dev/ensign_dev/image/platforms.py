"""The platforms of images. An image can only be built for the machine's own platform."""

from __future__ import annotations

import re
from typing import NamedTuple

from ..failure import Failure


class Platform(NamedTuple):
    """A platform: its architecture in OCI images, and its Rust target."""

    architecture: str
    target: str


PLATFORMS = (
    Platform("amd64", "x86_64-unknown-linux-gnu"),
    Platform("arm64", "aarch64-unknown-linux-gnu"),
)


def choose(wanted: str, rustc_version: str) -> Platform:
    """Returns the platform named `wanted` (default: the machine's own), given the output of `rustc -vV`.

    Images for other platforms are not built, because their binary could not be run, and therefore not verified, here.
    """
    found = re.search(r"^host: (\S+)$", rustc_version, re.MULTILINE)
    host = found.group(1) if found else "unknown"
    here = next((platform for platform in PLATFORMS if platform.target == host), None)
    names = [platform.architecture for platform in PLATFORMS]
    if wanted and wanted not in names:
        raise Failure(f"unsupported architecture {wanted!r}; supported: {', '.join(names)}")
    if here is None:
        targets = ", ".join(platform.target for platform in PLATFORMS)
        raise Failure(
            f"this machine's Rust compiler is for {host}, but images need {targets}: with these targets, static binaries"
            " resolve host names like the C library"
        )
    if wanted and wanted != here.architecture:
        raise Failure(
            f"can't build an image for {wanted} on this machine, which is {here.architecture}: the binary could not be"
            f" run, and therefore not verified, here. Run `make image` on a machine that is {wanted};"
            " docs/image.md explains how to combine images into a multi-platform image"
        )
    return here
