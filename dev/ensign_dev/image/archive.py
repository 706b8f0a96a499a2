"""The layout as a tar archive, for `docker load`, `podman load`, `skopeo` and `ctr images import`."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from .contents import READABLE
from .layer import member
from .layout import LABEL, NAME, Written, blob, canonical, members


def write(path: Path, written: Written) -> None:
    """Writes the archive reproducibly: the same layout gives the same bytes."""
    manifest = json.loads(blob(written.folder, written.manifest).read_bytes())
    # For engines that do not support the OCI layout.
    older = [{
        "Config": _relative(written.config),
        "RepoTags": [f"{NAME}:{manifest['annotations'][LABEL + 'version']}"],
        "Layers": [_relative(layer["digest"]) for layer in manifest["layers"]],
    }]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name in members(written.folder):
            content = (written.folder / name).read_bytes()
            tar.addfile(member(name, READABLE, len(content)), io.BytesIO(content))
        content = canonical(older)
        tar.addfile(member("manifest.json", READABLE, len(content)), io.BytesIO(content))


def _relative(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")
