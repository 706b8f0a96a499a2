"""The workspace's test binaries, as listed in cargo's messages."""

import json
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensign_dev import rust_tests, suite  # noqa: E402
from ensign_dev.rust_tests import TestProgram  # noqa: E402


def artifact(package_id, name, kind, test=True, folder="/c", executable="/t/x-1"):
    return {
        "reason": "compiler-artifact", "package_id": package_id, "manifest_path": f"{folder}/Cargo.toml",
        "target": {"name": name, "kind": [kind]}, "profile": {"test": test}, "executable": executable,
    }


def program(package, name, kind):
    return TestProgram(package, name, kind, Path("/t/x-1"), Path("/c"))


class TestBinaries(unittest.TestCase):
    def found(self, *messages):
        return rust_tests.programs("\n".join(["not JSON", *map(json.dumps, messages)]))

    def test_are_the_executables_that_were_compiled_as_tests(self):
        root = "path+file:///c#ensign@0.1.0"
        self.assertEqual(
            self.found(
                artifact(root, "ensign", "bin"),
                artifact(root, "integration", "test"),
                artifact(root, "ensign", "bin", test=False),
                artifact(root, "secretless-app", "example", test=False),
                artifact("path+file:///c/crates/core#ensign-core@0.1.0", "ensign_core", "lib", executable=None),
                {"reason": "build-finished", "success": True},
            ),
            [program("ensign", "ensign", "bin"), program("ensign", "integration", "test")],
        )

    def test_may_have_their_own_main(self):
        found = self.found(artifact("path+file:///c#ensign-faults@0.1.0", "faults", "test", test=False))
        self.assertEqual(found, [program("ensign-faults", "faults", "test")])

    def test_run_in_the_folder_of_their_package(self):
        (found,) = self.found(artifact("path+file:///c/crates/api#ensign-api@0.1.0", "ensign_api", "lib", folder="/c/api"))
        self.assertEqual(found.folder, Path("/c/api"))
        self.assertEqual(found.environment(), {"CARGO_MANIFEST_DIR": "/c/api", "CARGO_PKG_NAME": "ensign-api"})

    def test_have_the_package_name_from_the_package_id(self):
        for package_id, name in (
            ("path+file:///c#ensign@0.1.0", "ensign"),
            ("path+file:///somewhere/ensign#0.1.0", "ensign"),
            ("registry+https://example.test/index#tower@0.5.2", "tower"),
        ):
            self.assertEqual(rust_tests.package_name(package_id), name)


class StepsOfTestBinaries(unittest.TestCase):
    def test_default_to_the_unit_tests(self):
        for one, apart in (
            (program("ensign", "integration", "test"), True),
            (program("ensign", "scale", "test"), True),
            (program("ensign-faults", "faults", "test"), True),
            (program("ensign-faults", "ensign_faults", "lib"), False),
            (program("ensign-core", "scale", "lib"), False),
            (program("ensign-core", "properties", "test"), False),
        ):
            self.assertIs(suite.is_apart(one), apart, one)


if __name__ == "__main__":
    unittest.main()
