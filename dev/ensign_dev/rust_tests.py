"""The workspace's test binaries: compiled by one cargo command, then run without cargo.

`cargo test` locks the build folder while its tests run, so two test binaries could not run in parallel.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, TextIO

from . import build


class TestProgram(NamedTuple):
    """A test binary: the unit tests of a library or a binary (`lib`, `bin`), or an integration test (`test`)."""

    package: str
    name: str
    kind: str
    path: Path
    folder: Path
    """The package's folder, the working directory of its tests."""

    def environment(self) -> Dict[str, str]:
        """The environment variables that cargo would set."""
        return {"CARGO_MANIFEST_DIR": str(self.folder), "CARGO_PKG_NAME": self.package}


def compile_all(errors: Optional[TextIO] = None) -> List[TestProgram]:
    """Compiles all test binaries of the workspace."""
    return programs(build.cargo(["test", *build.SELECTION, "--no-run"], errors))


def programs(messages: str) -> List[TestProgram]:
    """Returns the test binaries in cargo's messages."""
    found = []
    for message in build.artifacts(messages):
        target = message["target"]
        # Tests with their own `main` (harness = false) are not marked as tests in the profile.
        if message["profile"]["test"] or "test" in target["kind"]:
            folder = Path(message["manifest_path"]).parent
            package = package_name(message["package_id"])
            kind = target["kind"][0]
            found.append(TestProgram(package, target["name"], kind, Path(message["executable"]), folder))
    return found


def package_name(package_id: str) -> str:
    """Returns the package name in a cargo package ID, such as `path+file:///checkout#ensign@0.1.0`.

    If the folder has the name of the package, the ID is shorter: `path+file:///checkout/ensign#0.1.0`.
    """
    url, _, end = package_id.partition("#")
    name, at, _ = end.partition("@")
    return name if at else url.rstrip("/").rpartition("/")[2]
