"""`make image`: builds, assembles and verifies the image."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import NamedTuple, Optional

from .. import children, paths
from ..failure import Failure
from ..progress import Progress, duration
from . import binary, certificates, contents, crates, debian, layout, origin, platforms, reach, sbom, unpack, verify
from .assemble import ARCHIVE, LAYOUT, SBOM, assemble

MIB = 1024 * 1024
WITH_ROOT = (
    "It ran in a chroot, as the image's user and with only the image's files.\nSo did `ensign webhook`, which resolved the"
    " name of its API server and started TLS."
)
WITHOUT_ROOT = (
    "It ran as the current user, with access to this machine's files, because chroot needs root.\nName resolution in the"
    " image was not tested."
)


class Prepared(NamedTuple):
    """The parts of an image, and the facts in its configuration."""

    parts: contents.Parts
    facts: layout.Facts


def prepare(architecture: str, revision: Optional[str], progress: Progress) -> Prepared:
    """Builds the binary and collects everything else."""
    rustc = children.output(["rustc", "-vV"], cwd=paths.ROOT)
    platform = platforms.choose(architecture, rustc)
    # Before the long build, because the packages may be missing.
    bundle, libc = certificates.read(), debian.installed("libc6-dev")
    rust = binary.toolchain(rustc, children.output(["rustc", "--print", "sysroot"], cwd=paths.ROOT))
    metadata = crates.metadata(platform)
    graph = crates.graph(metadata, crates.tree(platform), (paths.ROOT / "Cargo.lock").read_text(encoding="utf-8"))
    verify.require_no_emulator(graph)
    built_from = origin.read(paths.ROOT, graph.root.version, revision)
    if (built_from.revision or "").endswith(origin.DIRTY):
        progress.say(f"The checkout has uncommitted changes, so the image's revision is {built_from.revision}.")
    replaced = binary.replacements(paths.ROOT, paths.target_dir(), graph.sources, rust)
    progress.say(f"Building ensign {built_from.version} for {platform.target} ...")
    program = binary.compile_release(platform, binary.environment(replaced, platform))
    binary.require_portable(program, binary.machine_folders(metadata, rust))
    document = sbom.cyclonedx(graph, sbom.Others(rust.release, libc, bundle.package), built_from)
    parts = contents.Parts(
        program, bundle.pem, document, (paths.ROOT / "LICENSE").read_bytes(),
        {package.name: package.notice for package in (libc, bundle.package)},
    )
    linked = f"{rust.about}, {libc.distribution} {libc.name} {libc.version}"
    facts = layout.Facts(built_from, platform, graph.root.about or "", graph.root.license or "", bundle.about(), linked)
    return Prepared(parts, facts)


def make(architecture: str, revision: Optional[str], progress: Progress) -> None:
    """Builds the image in target/image, verifies it, and prints a summary."""
    prepared = prepare(architecture, revision, progress)
    output = paths.target_dir() / "image"
    started = time.monotonic()
    written = assemble(output, prepared.parts, prepared.facts)
    progress.say(f"Assembled in {duration(time.monotonic() - started)}.")
    print(verified(written.folder, prepared.facts.origin.version))
    size = written.layer_bytes
    print(f"""
layout    {output / LAYOUT}
archive   {output / ARCHIVE}
SBOM      {output / SBOM} ({len(prepared.parts.sbom['components'])} components; in the image: /{contents.SBOM})
size      {size:,} bytes compressed ({size / MIB:.1f} MiB)
layer     {written.diff_id} (uncompressed)
digest    {written.manifest}""")


def verified(folder: Path, version: str) -> str:
    """Unpacks a layout and runs its binary; returns a table of its contents."""
    with tempfile.TemporaryDirectory(prefix="ensign-image-") as scratch:
        root = Path(scratch) / "root"
        root.mkdir(mode=contents.EXECUTABLE)
        unpacked = unpack.unpack(folder, root)
        chroot = verify.may_chroot()
        ran = verify.run(root, unpacked.config, ["--version"], chroot)
        verify.require_version(ran, version)
        if chroot:
            reach.require_reach(root, unpacked.config)
    how = WITH_ROOT if chroot else WITHOUT_ROOT
    return f"{verify.table(unpacked)}\n\n`ensign --version` printed {ran.out!r}. {how}"


def write_root(folder: Path, revision: Optional[str], progress: Progress) -> None:
    """Writes the files of the image to a folder, for the Dockerfile."""
    if folder.exists() and any(folder.iterdir()):
        raise Failure(f"{folder} is not empty; its files would become part of the image")
    prepared = prepare("", revision, progress)
    contents.write(folder, contents.files(prepared.parts))
