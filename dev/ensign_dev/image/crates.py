"""The crates that are linked into the release binary.

`cargo tree` lists them: it resolves features like the build, for one target, and omits dependencies of tests, build scripts
and macros. `cargo metadata` provides the details, and Cargo.lock the checksums.
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
    """A crate; `needs` are its direct dependencies."""

    name: str
    version: str
    license: Optional[str]
    about: Optional[str]
    repository: Optional[str]
    checksum: Optional[str]
    needs: Tuple[Key, ...]


class Graph(NamedTuple):
    """The binary's crate, and all others sorted by name and version."""

    root: Crate
    others: Tuple[Crate, ...]
    sources: Tuple[Path, ...]


def metadata(platform: Platform) -> str:
    """Returns the output of `cargo metadata`, which downloads missing crates."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", platform.target]
    return children.output(list(command), TIMEOUT_SECONDS, cwd=paths.ROOT)


def tree(platform: Platform) -> str:
    """Returns the output of `cargo tree`: the binary's crates, one per line."""
    command = ["cargo", "tree", "--locked", "--target", platform.target, "--edges", "normal,no-proc-macro"]
    command += ["--prefix", "none", "--no-dedupe", "--format", "{p}"]
    return children.output(list(command), TIMEOUT_SECONDS, cwd=paths.ROOT)


def graph(metadata_text: str, tree_text: str, lock: str) -> Graph:
    """Combines the three sources."""
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
        raise ValueError(f"cargo tree lists crates that cargo metadata does not: {sorted(missing)}")
    root = crates.pop(known["resolve"]["root"])
    others = tuple(sorted(crates.values(), key=lambda crate: (crate.name, crate.version)))
    sources = {Path(package["manifest_path"]).parents[1] for package in packages.values() if package["source"]}
    return Graph(root, others, tuple(sorted(sources)))


def listed(tree_text: str) -> Set[Key]:
    """Returns the names and versions in the output of `cargo tree`."""
    return {(name, version) for name, version in re.findall(r"^(\S+) v(\S+)", tree_text, re.MULTILINE)}


def checksums(lock: str) -> Dict[Key, str]:
    """Returns the SHA-256 checksum of each registry crate in Cargo.lock."""
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
