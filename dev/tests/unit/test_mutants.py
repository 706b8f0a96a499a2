"""The mutants match the source, and errors in their definitions are detected."""

import re
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensign_dev import mutants, paths
from ensign_dev.failure import Failure

SWITCH = paths.ROOT / "tests" / "faults" / "mutants" / "lib.rs"


class TheMutants(unittest.TestCase):
    def test_all_match_the_source(self) -> None:
        changed = mutants.changed_files()
        for path, text in changed.items():
            self.assertNotEqual((paths.ROOT / path).read_text(encoding="utf-8"), text, path)

    def test_correspond_to_the_variants_of_the_enum(self) -> None:
        names = set(re.findall(r'^    \w+ = "([a-z-]+)",$', SWITCH.read_text(encoding="utf-8"), re.MULTILINE))
        self.assertGreater(len(names), 40)
        self.assertEqual(names, {change.name for change in mutants.changes()})

    def test_are_not_mentioned_in_the_released_source(self) -> None:
        for folder in ("src", "crates"):
            for file in (paths.ROOT / folder).rglob("*"):
                if file.suffix in (".rs", ".toml") and file.is_file():
                    self.assertNotIn("mutant", file.read_text(encoding="utf-8").lower(), str(file))


class AChange(unittest.TestCase):
    TEXT = "What it is.\n\n--- a.rs\n-if ready {\n+if ready || mutant(TooEarly) {\n"

    def test_is_parsed(self) -> None:
        change = mutants.parse("too-early", self.TEXT)
        self.assertEqual(change.about, "What it is.")
        self.assertEqual(change.edits, [mutants.Edit("a.rs", "if ready {", "if ready || mutant(TooEarly) {")])

    def test_is_matched_regardless_of_white_space(self) -> None:
        edit = mutants.parse("too-early", self.TEXT).edits[0]
        self.assertEqual(
            mutants.apply("fn f() {\n    if\n  ready   {\n", edit, "too-early"),
            "fn f() {\n    if ready || ensign_mutants::is_active(ensign_mutants::Mutant::TooEarly) {\n",
        )

    def test_must_match_exactly_once(self) -> None:
        edit = mutants.parse("too-early", self.TEXT).edits[0]
        for source in ("nothing", "if ready { if ready {"):
            with self.assertRaisesRegex(Failure, "too-early.diff matches"):
                mutants.apply(source, edit, "too-early")

    def test_is_rejected_if_it_is_malformed(self) -> None:
        for text in ("", "About.\n\n", "About.\n\n--- a.rs\n-x\n+y\n", "About.\n\n--- a.rs\nx\n", self.TEXT):
            with self.assertRaises(Failure):
                mutants.parse("another", text)

    def test_must_not_name_a_file_that_does_not_exist(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "too-early.diff").write_text(self.TEXT, encoding="utf-8")
            with self.assertRaisesRegex(Failure, "a.rs, which does not exist"):
                mutants.changed_files(folder=Path(folder))


if __name__ == "__main__":
    unittest.main()
