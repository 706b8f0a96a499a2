"""The crates whose code is in the release binary.

cargo's tree says which: it resolves features as the build does, for one target, without what only tests, build scripts
and macros need. Its metadata say what is known of each, and Cargo.lock has their checksums.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Set, Tuple

from .. import children, paths
from .platforms import Platform

TIMEOUT_SECONDS = 15 * 60
Key = Tuple[str, str]


class Crate(NamedTuple):
    """One crate; `needs` are the crates that it uses itself."""

    name: str
    version: str
    license: Optional[str]
    about: Optional[str]
    repository: Optional[str]
    checksum: Optional[str]
    needs: Tuple[Key, ...]


class Graph(NamedTuple):
    """The crate of the binary, and all others by name and version."""

    root: Crate
    others: Tuple[Crate, ...]
    sources: Tuple[Path, ...]


def metadata(platform: Platform) -> str:
    """What cargo knows of every crate; it downloads those that are missing."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", platform.target]
    return children.output(list(command), TIMEOUT_SECONDS, cwd=paths.ROOT)


def tree(platform: Platform) -> str:
    """The crates of the binary, one a line."""
    command = ["cargo", "tree", "--locked", "--target", platform.target, "--edges", "normal,no-proc-macro"]
    command += ["--prefix", "none", "--no-dedupe", "--format", "{p}"]
    return children.output(list(command), TIMEOUT_SECONDS, cwd=paths.ROOT)


def graph(metadata_text: str, tree_text: str, lock: str) -> Graph:
    """What the three say together."""
    known: Dict[str, Any] = json.loads(metadata_text)
    wanted, sums = listed(tree_text), checksums(lock)
    packages = {package["id"]: package for package in known["packages"]}
    keys = {identity: (package["name"], package["version"]) for identity, package in packages.items()}
    crates: Dict[str, Crate] = {}
    for node in known["resolve"]["nodes"]:
        key = keys[node["id"]]
        if key in wanted:
            needs = {keys[dep["pkg"]] for dep in node["deps"] if _is_normal(dep)} & wanted
            crates[node["id"]] = _crate(packages[node["id"]], sums.get(key), tuple(sorted(needs)))
    missing = wanted - {keys[identity] for identity in crates}
    if missing:
        raise ValueError(f"cargo's tree has crates that its metadata don't: {sorted(missing)}")
    root = crates.pop(known["resolve"]["root"])
    others = tuple(sorted(crates.values(), key=lambda crate: (crate.name, crate.version)))
    sources = {Path(package["manifest_path"]).parents[1] for package in packages.values() if package["source"]}
    return Graph(root, others, tuple(sorted(sources)))


def listed(tree_text: str) -> Set[Key]:
    """Names and versions in cargo's tree."""
    return {(name, version) for name, version in re.findall(r"^(\S+) v(\S+)", tree_text, re.MULTILINE)}


def checksums(lock: str) -> Dict[Key, str]:
    """SHA-256 of each crate as its registry has it, from Cargo.lock."""
    found: Dict[Key, str] = {}
    for block in lock.split("[[package]]")[1:]:
        fields = dict(re.findall(r'^(name|version|checksum) = "([^"]*)"$', block, re.MULTILINE))
        if "checksum" in fields:
            found[fields["name"], fields["version"]] = fields["checksum"]
    return found


def _is_normal(dependency: Dict[str, Any]) -> bool:
    kinds: List[Dict[str, Any]] = dependency["dep_kinds"]
    return any(kind["kind"] is None for kind in kinds)


def _crate(package: Dict[str, Any], checksum: Optional[str], needs: Tuple[Key, ...]) -> Crate:
    return Crate(
        package["name"], package["version"], package["license"], package["description"], package["repository"],
        checksum, needs,
    )
