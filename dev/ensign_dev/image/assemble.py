"""Assembles an image from its parts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from . import archive, contents, layer, layout
from .contents import Parts

LAYOUT = "layout"
ARCHIVE = "ensign.tar"
SBOM = "ensign.cdx.json"


def assemble(output: Path, parts: Parts, facts: layout.Facts, compression: int = layer.COMPRESSION) -> layout.Written:
    """Writes the layout, the tar archive and the SBOM to a folder, and replaces its previous contents."""
    fresh = output.with_name(output.name + ".partial")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    made = layer.write(fresh / "layer", contents.files(parts), compression)
    config = layout.configuration(facts, made.diff_id, contents.USER_ID, contents.BINARY, contents.CERTIFICATES)
    written = layout.write(fresh / LAYOUT, fresh / "layer", config)
    archive.write(fresh / ARCHIVE, written)
    (fresh / SBOM).write_bytes(layout.canonical(parts.sbom))
    shutil.rmtree(output, ignore_errors=True)
    os.replace(fresh, output)
    return written._replace(folder=output / LAYOUT)
