"""The test programs of the workspace: compiled by one run of cargo, then started without it.

Cargo locks its build folder as long as the tests of `cargo test` run, so that no two of them could run side by side.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, TextIO

from . import build


class TestProgram(NamedTuple):
    """One program: the unit tests of a library or of a binary (`lib`, `bin`), or one of a package's `tests` (`test`)."""

    package: str
    name: str
    kind: str
    path: Path
    folder: Path
    """The package's, in which cargo starts the program too."""

    def environment(self) -> Dict[str, str]:
        """What cargo would tell it."""
        return {"CARGO_MANIFEST_DIR": str(self.folder), "CARGO_PKG_NAME": self.package}


def compile_all(errors: Optional[TextIO] = None) -> List[TestProgram]:
    """Compiles every test program of the workspace."""
    return programs(build.cargo(["test", *build.SELECTION, "--no-run"], errors))


def programs(messages: str) -> List[TestProgram]:
    """The test programs that cargo's messages tell of."""
    found = []
    for message in build.artifacts(messages):
        target = message["target"]
        # One with a `main` of its own (harness = false) is a test too.
        if message["profile"]["test"] or "test" in target["kind"]:
            folder = Path(message["manifest_path"]).parent
            package = package_name(message["package_id"])
            kind = target["kind"][0]
            found.append(TestProgram(package, target["name"], kind, Path(message["executable"]), folder))
    return found


def package_name(package_id: str) -> str:
    """The name in cargo's ID of a package, such as `path+file:///checkout#ensign@0.1.0`.

    Where the folder has the name of the package, the ID is shorter: `path+file:///checkout/ensign#0.1.0`.
    """
    url, _, end = package_id.partition("#")
    name, at, _ = end.partition("@")
    return name if at else url.rstrip("/").rpartition("/")[2]
