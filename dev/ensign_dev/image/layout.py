"""An OCI image layout: a folder of blobs named by their digests, with an index."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

from .origin import Origin
from .platforms import Platform

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

LABEL = "org.opencontainers.image."
NAME = "ensign"
# A single malloc arena: with one per thread, memory that one thread frees is not available to others.
VARIABLES = {"MALLOC_ARENA_MAX": "1"}


class Facts(NamedTuple):
    """The facts in an image's configuration."""

    origin: Origin
    platform: Platform
    about: str
    license: str
    certificates: str
    compiler: str


class Written(NamedTuple):
    """A layout: digests of the image manifest, of its configuration and of the uncompressed layer; the layer's size."""

    folder: Path
    manifest: str
    config: str
    diff_id: str
    layer_bytes: int


def labels(facts: Facts) -> Dict[str, str]:
    """Returns the image's labels. They describe its origin, but nothing about the build machine."""
    revision = {LABEL + "revision": facts.origin.revision} if facts.origin.revision else {}
    return {
        LABEL + "title": NAME,
        LABEL + "description": facts.about,
        LABEL + "version": facts.origin.version,
        LABEL + "created": facts.origin.time(),
        LABEL + "licenses": facts.license,
        "dev.ensign.ca-certificates": facts.certificates,
        "dev.ensign.compiler": facts.compiler,
        **revision,
    }


def configuration(facts: Facts, diff_id: str, user_id: int, binary: str, certificates: str) -> Dict[str, Any]:
    """Returns the image's configuration. Its user is numeric, so that Kubernetes can verify that it is not root."""
    return {
        "created": facts.origin.time(),
        "architecture": facts.platform.architecture,
        "os": "linux",
        "config": {
            "User": f"{user_id}:{user_id}",
            "Env": [
                f"PATH=/{Path(binary).parent}",
                f"SSL_CERT_FILE=/{certificates}",
                *(f"{name}={value}" for name, value in VARIABLES.items()),
            ],
            "Entrypoint": [f"/{binary}"],
            "WorkingDir": "/",
            "Labels": labels(facts),
        },
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": facts.origin.time(), "created_by": "make image"}],
    }


def write(folder: Path, layer_file: Path, config: Dict[str, Any]) -> Written:
    """Writes the layout to an empty folder, and moves the layer's file into it."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    layer = _file_descriptor(layer_file)
    os.replace(layer_file, blobs / layer["digest"].split(":")[1])
    config_descriptor = _blob(blobs, config, CONFIG)
    found: Dict[str, str] = config["config"]["Labels"]
    manifest = {
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config_descriptor, "layers": [layer],
        "annotations": {name: value for name, value in found.items() if name.startswith(LABEL)},
    }
    version = found[LABEL + "version"]
    names = {LABEL + "ref.name": version, "io.containerd.image.name": f"docker.io/library/{NAME}:{version}"}
    descriptor = _blob(blobs, manifest, MANIFEST, names)
    descriptor["platform"] = {"architecture": config["architecture"], "os": config["os"]}
    (folder / "oci-layout").write_bytes(canonical({"imageLayoutVersion": "1.0.0"}))
    (folder / "index.json").write_bytes(canonical({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor]}))
    (diff_id,) = config["rootfs"]["diff_ids"]
    return Written(folder, descriptor["digest"], config_descriptor["digest"], diff_id, layer["size"])


def canonical(document: Any) -> bytes:
    """Serializes to JSON deterministically."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def blob(folder: Path, digest: str) -> Path:
    """Returns the path of a blob in a layout."""
    algorithm, value = digest.split(":")
    return folder / "blobs" / algorithm / value


def members(folder: Path) -> List[str]:
    """Returns the files of a layout, sorted."""
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def _blob(blobs: Path, document: Any, kind: str, annotations: Optional[Dict[str, str]] = None) -> Dict[str, Any]:
    content = canonical(document)
    digest = hashlib.sha256(content).hexdigest()
    (blobs / digest).write_bytes(content)
    descriptor: Dict[str, Any] = {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}
    return {**descriptor, "annotations": annotations} if annotations else descriptor


def _file_descriptor(file: Path) -> Dict[str, Any]:
    content = file.read_bytes()
    return {"mediaType": LAYER, "digest": f"sha256:{hashlib.sha256(content).hexdigest()}", "size": len(content)}
