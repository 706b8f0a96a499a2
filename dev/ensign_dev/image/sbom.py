"""The image's SBOM in CycloneDX JSON.

It is needed because scanners can't detect the crates and the C library in a static binary.
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, NamedTuple
from urllib.parse import quote

from .crates import Crate, Graph
from .debian import Package
from .origin import Origin

SPEC_VERSION = "1.5"


class Others(NamedTuple):
    """Components of the image other than crates."""

    rust_release: str
    libc: Package
    certificates: Package


def cyclonedx(graph: Graph, others: Others, origin: Origin) -> Dict[str, Any]:
    """Returns the document. It is deterministic for the same sources and packages."""
    root = _component(graph.root, kind="application")
    rust = _library("rust-std", others.rust_release, f"pkg:generic/rust-std@{others.rust_release}")
    rust["licenses"] = [{"expression": "MIT OR Apache-2.0"}]
    libc, certificates = _deb(others.libc, "library"), _deb(others.certificates, "data")
    libc["description"] = "GNU C library, linked into the binary"
    other_parts = [rust, libc, certificates]
    crates = (graph.root, *graph.others)
    refs = [part["bom-ref"] for part in other_parts]
    dependencies = [_dependency(crate, refs if crate is graph.root else []) for crate in crates]
    if origin.revision:
        root["properties"] = [{"name": "org.opencontainers.image.revision", "value": origin.revision}]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": {"timestamp": origin.time(), "component": root},
        "components": [_component(crate) for crate in graph.others] + other_parts,
        "dependencies": dependencies + [{"ref": part["bom-ref"], "dependsOn": []} for part in other_parts],
    }


def expression(license_text: str) -> str:
    """Returns a license as an SPDX expression; older crates use `/` instead of OR."""
    return re.sub(r"\s*/\s*", " OR ", license_text)


def _component(crate: Crate, kind: str = "library") -> Dict[str, Any]:
    component = _library(crate.name, crate.version, _purl(crate.name, crate.version))
    component["type"] = kind
    if crate.about:
        component["description"] = " ".join(crate.about.split())
    if crate.license:
        component["licenses"] = [{"expression": expression(crate.license)}]
    if crate.checksum:
        component["hashes"] = [{"alg": "SHA-256", "content": crate.checksum}]
    if crate.repository:
        component["externalReferences"] = [{"type": "vcs", "url": crate.repository}]
    return component


def _deb(package: Package, kind: str) -> Dict[str, Any]:
    version = quote(package.version, safe="")
    purl = f"pkg:deb/{package.distribution}/{package.name}@{version}?arch={package.architecture}"
    return {**_library(package.name, package.version, purl), "type": kind}


def _library(name: str, version: str, purl: str) -> Dict[str, Any]:
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _dependency(crate: Crate, other_parts: List[str]) -> Dict[str, Any]:
    needs = [_purl(name, version) for name, version in crate.needs]
    return {"ref": _purl(crate.name, crate.version), "dependsOn": sorted(needs + other_parts)}


def _purl(name: str, version: str) -> str:
    return f"pkg:cargo/{name}@{quote(version, safe='')}"
