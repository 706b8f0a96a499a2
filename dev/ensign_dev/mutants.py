"""A copy of the workspace with seeded mistakes, for the fault tests.

Each file of `tests/faults/mutants/changes` is one mistake: a sentence that describes it, then for each file that it changes
`--- PATH`, the lines that it replaces (`-`) and what they become (`+`). White space does not count, and the lines have to
occur exactly once, so that a change of the source that a mistake no longer fits is noticed. `mutant(NAME)` in a new line
asks whether the mistake is on in this thread, so that one build has them all.

The released source has none of this: the copy is in `target/mutants`.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Tuple

from . import paths
from .failure import Failure

CHANGES = paths.ROOT / "tests" / "faults" / "mutants" / "changes"
WORKSPACE = paths.ROOT / "target" / "mutants"
# What cargo needs to read the workspace.
COPIED = ("Cargo.toml", "Cargo.lock", "clippy.toml", "crates", "src", "tests", "benches", "examples")
SKIPPED = {"__pycache__", "node_modules", ".venv"}
QUESTION = re.compile(r"\bmutant\((\w+)\)")
ANSWER = r"ensign_mutants::is_active(ensign_mutants::Mutant::\1)"
CALL = "mutant("


class Edit(NamedTuple):
    """Lines of one file, and what they become."""

    path: str
    before: str
    after: str


class Change(NamedTuple):
    """One seeded mistake."""

    name: str
    about: str
    edits: List[Edit]


def changes(folder: Path = CHANGES) -> List[Change]:
    """All of them, by name."""
    return [parse(file.stem, file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.diff"))]


def parse(name: str, text: str) -> Change:
    """Reads one; raises `Failure` with the line that can't be understood."""
    about, _, rest = text.partition("\n\n")
    edits: List[Edit] = []
    path, before, after = "", [], []  # type: Tuple[str, List[str], List[str]]

    def end() -> None:
        if not path:
            return
        if not before or CALL not in "".join(after):
            raise Failure(f"{name}.diff: {path} needs lines to replace, and new ones that ask mutant({identifier(name)})")
        edits.append(Edit(path, "\n".join(before), "\n".join(after)))

    for line in rest.splitlines():
        if line.startswith("--- "):
            end()
            path, before, after = line[4:].strip(), [], []
        elif line.startswith("-"):
            before.append(line[1:])
        elif line.startswith("+"):
            after.append(line[1:])
        elif line.strip():
            raise Failure(f"{name}.diff: neither ---, - nor + at the start of {line!r}")
    end()
    if not edits or not about.strip():
        raise Failure(f"{name}.diff: expected a sentence, an empty line and at least one change")
    for asked in QUESTION.findall(" ".join(edit.after for edit in edits)):
        if asked != identifier(name):
            raise Failure(f"{name}.diff asks for {asked} instead of {identifier(name)}")
    return Change(name, about.strip(), edits)


def identifier(name: str) -> str:
    """`finalizer-after-put` as the variant `FinalizerAfterPut`."""
    return "".join(word.capitalize() for word in name.split("-"))


def apply(text: str, edit: Edit, name: str) -> str:
    """The file with the change in it."""
    words = edit.before.split()
    found = list(re.finditer(r"\s+".join(map(re.escape, words)), text))
    if len(found) != 1:
        raise Failure(
            f"tests/faults/mutants/changes/{name}.diff fits {len(found)} places of {edit.path} instead of one: the code has "
            f"changed, so change the mutant too. Its lines are:\n{edit.before}"
        )
    match = found[0]
    return text[: match.start()] + QUESTION.sub(ANSWER, edit.after) + text[match.end() :]


def changed_files(root: Path = paths.ROOT, folder: Path = CHANGES) -> Dict[str, str]:
    """The files that differ from the source, with every mistake in them, by their path."""
    texts: Dict[str, str] = {}
    manifests: Dict[str, str] = {}
    for change in changes(folder):
        for edit in change.edits:
            if edit.path not in texts:
                file = root / edit.path
                if not file.is_file():
                    raise Failure(f"{change.name}.diff changes {edit.path}, which does not exist")
                texts[edit.path] = file.read_text(encoding="utf-8")
                manifest = manifest_of(root, edit.path)
                manifests[manifest] = with_switch((root / manifest).read_text(encoding="utf-8"))
            texts[edit.path] = apply(texts[edit.path], edit, change.name)
    return {**texts, **manifests}


def manifest_of(root: Path, path: str) -> str:
    """The Cargo.toml of the package that a source file belongs to."""
    for folder in Path(path).parents:
        if (root / folder / "Cargo.toml").is_file():
            return str(folder / "Cargo.toml")
    raise Failure(f"{path} belongs to no package")


def with_switch(manifest: str) -> str:
    """The manifest with a dependency on the switch."""
    return manifest.replace("[dependencies]\n", "[dependencies]\nensign-mutants.workspace = true\n", 1)


def prepare(workspace: Path = WORKSPACE) -> Path:
    """Brings the copy up to date and returns it. Files that did not change keep their times, so that cargo builds little."""
    changed = changed_files()
    kept = set()
    for relative, source in copied():
        kept.add(relative)
        target = workspace / relative
        text = changed.get(relative)
        if text is not None:
            if not target.is_file() or target.read_text(encoding="utf-8") != text:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text, encoding="utf-8")
        elif not target.is_file() or target.stat().st_mtime_ns != source.stat().st_mtime_ns:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    for file in [file for file in workspace.rglob("*") if file.is_file()]:
        if str(file.relative_to(workspace)) not in kept:
            file.unlink()
    return workspace


def copied() -> Iterator[Tuple[str, Path]]:
    """The files of the workspace, with their paths."""
    for name in COPIED:
        top = paths.ROOT / name
        files = [top] if top.is_file() else sorted(file for file in top.rglob("*") if file.is_file())
        for file in files:
            relative = file.relative_to(paths.ROOT)
            if not SKIPPED.intersection(relative.parts):
                yield str(relative), file
