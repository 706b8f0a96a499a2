"""Creates a copy of the workspace that contains all mutants, for the fault tests.

Each file in `tests/faults/mutants/changes` is one mutant: a sentence that describes it, then for each file that it changes
`--- PATH`, the lines to replace (`-`) and the new lines (`+`). White space is ignored. The lines must occur exactly once in
the file, so that a mutant that no longer matches the source is detected. `mutant(NAME)` in a new line evaluates to whether
the mutant is active in the current thread, so one build contains all mutants.

The released source is not affected: the copy is in `target/mutants`.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, TextIO, Tuple

from . import build, children, paths, rust_tests
from .failure import Failure

CHANGES = paths.ROOT / "tests" / "faults" / "mutants" / "changes"
WORKSPACE = paths.ROOT / "target" / "mutants"
# What cargo needs to read the workspace.
COPIED = ("Cargo.toml", "Cargo.lock", "clippy.toml", "crates", "src", "tests", "benches", "examples")
SKIPPED = {"__pycache__", "node_modules", ".venv"}
MUTANT_CALL = re.compile(r"\bmutant\((\w+)\)")
REPLACEMENT = r"ensign_mutants::is_active(ensign_mutants::Mutant::\1)"
CALL = "mutant("


class Edit(NamedTuple):
    """A replacement of lines in one file."""

    path: str
    before: str
    after: str


class Change(NamedTuple):
    """One mutant."""

    name: str
    about: str
    edits: List[Edit]


def changes(folder: Path = CHANGES) -> List[Change]:
    """Returns all mutants, sorted by name."""
    return [parse(file.stem, file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.diff"))]


def parse(name: str, text: str) -> Change:
    """Parses one file; raises `Failure` with the invalid line."""
    about, _, rest = text.partition("\n\n")
    edits: List[Edit] = []
    path, before, after = "", [], []  # type: Tuple[str, List[str], List[str]]

    def end() -> None:
        if not path:
            return
        if not before or CALL not in "".join(after):
            raise Failure(f"{name}.diff: {path} needs lines to replace, and new lines that call mutant({identifier(name)})")
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
            raise Failure(f"{name}.diff: line does not start with ---, - or +: {line!r}")
    end()
    if not edits or not about.strip():
        raise Failure(f"{name}.diff: expected a sentence, an empty line and at least one change")
    for called in MUTANT_CALL.findall(" ".join(edit.after for edit in edits)):
        if called != identifier(name):
            raise Failure(f"{name}.diff calls mutant({called}) instead of mutant({identifier(name)})")
    return Change(name, about.strip(), edits)


def identifier(name: str) -> str:
    """Returns the enum variant of a name: `finalizer-after-put` is `FinalizerAfterPut`."""
    return "".join(word.capitalize() for word in name.split("-"))


def apply(text: str, edit: Edit, name: str) -> str:
    """Returns the text with the edit applied."""
    words = edit.before.split()
    found = list(re.finditer(r"\s+".join(map(re.escape, words)), text))
    if len(found) != 1:
        raise Failure(
            f"tests/faults/mutants/changes/{name}.diff matches {len(found)} places in {edit.path} instead of one. If the code "
            f"has changed, update the mutant. Its lines are:\n{edit.before}"
        )
    match = found[0]
    return text[: match.start()] + MUTANT_CALL.sub(REPLACEMENT, edit.after) + text[match.end() :]


def changed_files(root: Path = paths.ROOT, folder: Path = CHANGES) -> Dict[str, str]:
    """Returns the files that differ from the source, with all mutants applied, by path."""
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
    """Returns the Cargo.toml of the package that contains a source file."""
    for folder in Path(path).parents:
        if (root / folder / "Cargo.toml").is_file():
            return str(folder / "Cargo.toml")
    raise Failure(f"{path} does not belong to any package")


def with_switch(manifest: str) -> str:
    """Returns the manifest with a dependency on ensign-mutants."""
    return manifest.replace("[dependencies]\n", "[dependencies]\nensign-mutants.workspace = true\n", 1)


def compile_faults(errors: Optional[TextIO] = None) -> rust_tests.TestProgram:
    """Compiles the fault tests from the copy. It shares the build folder, so dependencies are not compiled again."""
    manifest = prepare() / "Cargo.toml"
    command = ["test", "--offline", "--manifest-path", str(manifest), "--workspace", "--test", "faults"]
    env = children.environment({"CARGO_TARGET_DIR": paths.target_dir()})
    messages = build.cargo([*command, "--features", "ensign-faults/mutants", "--no-run"], errors, env)
    found = rust_tests.programs(messages)
    if len(found) != 1:
        raise Failure(f"expected one fault test binary in {manifest.parent}, found {len(found)}")
    return found[0]


def prepare(workspace: Path = WORKSPACE) -> Path:
    """Updates the copy and returns its folder. Unchanged files keep their modification times, so cargo rebuilds little."""
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
    """Yields the files of the workspace, with their relative paths."""
    for name in COPIED:
        top = paths.ROOT / name
        files = [top] if top.is_file() else sorted(file for file in top.rglob("*") if file.is_file())
        for file in files:
            relative = file.relative_to(paths.ROOT)
            if not SKIPPED.intersection(relative.parts):
                yield str(relative), file
