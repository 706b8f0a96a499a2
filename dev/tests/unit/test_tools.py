import os
import re
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensign_dev import paths, tools  # noqa: E402
from ensign_dev.failure import Failure  # noqa: E402


def put(program):
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text("")
    program.chmod(0o755)


class ToolsTest(unittest.TestCase):
    def setUp(self):
        self.progress = mock.Mock()
        self.progress.options.return_value = {}
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        patch = mock.patch.dict(os.environ, {"ENSIGN_CACHE_DIR": folder.name})
        patch.start()
        self.addCleanup(patch.stop)

    def entries(self, kind):
        return [path for path in (self.root / kind).iterdir() if path.name != ".lock"]


class ACargoSubcommand(ToolsTest):
    def cargo(self, program="cargo-deny", status=0):
        """A fake cargo that installs a program and leaves object files behind."""

        def run(command, _cwd, _timeout, env, **_options):
            self.command, self.env = command, env
            put(Path(env["CARGO_TARGET_DIR"]) / "debug" / "deps" / "object.rlib")
            put(command[command.index("--root") + 1] / "bin" / program)
            return status

        return mock.patch.object(tools.children, "run", side_effect=run)

    def test_is_installed_once_in_a_fixed_version_with_its_own_lock_file(self):
        with self.cargo() as run:
            first, second = tools.cargo_deny(self.progress), tools.cargo_deny(self.progress)
        self.assertEqual(first, second)
        self.assertTrue(os.access(first, os.X_OK))
        self.assertEqual(run.call_count, 1)
        self.assertEqual(self.command[-1], f"cargo-deny@{tools.CARGO_DENY_VERSION}")
        self.assertIn("--locked", self.command)

    def test_is_compiled_inside_the_cache_without_keeping_object_files(self):
        with self.cargo():
            program = tools.cargo_deny(self.progress)
        self.assertTrue(Path(self.env["CARGO_TARGET_DIR"]).is_relative_to(self.root))
        self.assertEqual([path.name for path in program.parents[1].iterdir()], ["bin"])

    def test_leaves_nothing_behind_if_it_cannot_be_compiled(self):
        with self.cargo(status=101):
            with self.assertRaisesRegex(Failure, "could not install cargo-deny"):
                tools.cargo_deny(self.progress)
        self.assertEqual(self.entries("cargo-deny"), [])

    def test_must_install_the_program(self):
        with self.cargo(program="other"):
            with self.assertRaisesRegex(Failure, "did not produce `cargo-nextest`"):
                tools.cargo_nextest(self.progress)
        self.assertEqual(self.entries("cargo-nextest"), [])

    def test_has_a_cache_entry_per_version(self):
        with self.cargo():
            first = tools.cargo_deny(self.progress)
            with mock.patch.object(tools, "CARGO_DENY_VERSION", "0.0.1"):
                self.assertNotEqual(tools.cargo_deny(self.progress), first)


class Typos(ToolsTest):
    def test_is_installed_only_from_a_wheel(self):
        commands = []

        def output(command, **_options):
            commands.append(command)
            if "venv" in command:
                put(command[-1] / "bin" / "typos")

        with mock.patch.object(tools.children, "output", side_effect=output):
            self.assertTrue(os.access(tools.typos(self.progress), os.X_OK))
            tools.typos(self.progress)
        self.assertEqual(len(commands), 2)
        self.assertIn("--only-binary=:all:", commands[1])

    def test_fails_with_the_error_message_of_pip(self):
        failed = tools.children.CommandFailed(["pip"], 1, "no matching distribution")
        with mock.patch.object(tools.children, "output", side_effect=failed):
            with self.assertRaisesRegex(Failure, "no matching distribution"):
                tools.typos(self.progress)
        self.assertEqual(self.entries("typos"), [])


class Actionlint(ToolsTest):
    def test_fails_with_the_error_message_of_go(self):
        module = mock.Mock()
        module.build.side_effect = tools.go_module.BuildFailed("undefined: x")
        with mock.patch.object(tools.go_module, "GoModule", return_value=module):
            with mock.patch.object(tools.go_module, "build_key", return_value="key"):
                with self.assertRaisesRegex(Failure, "undefined: x"):
                    tools.actionlint(self.progress)
        self.assertEqual(self.entries("actionlint"), [])


class Versions(unittest.TestCase):
    def test_of_wheels_are_exact(self):
        lines = (paths.TOOLS / "requirements.txt").read_text().split()
        self.assertRegex(" ".join(lines), r"^typos==[\d.]+$")

    def test_of_actionlint_are_in_the_go_module(self):
        self.assertIn(f"\ntool {tools.ACTIONLINT_PACKAGE}\n", (paths.TOOLS / "go.mod").read_text())

    def test_of_nextest_satisfy_its_configuration(self):
        settings = (paths.ROOT / ".config" / "nextest.toml").read_text()
        least = re.search(r'^nextest-version = "(.+)"$', settings, re.MULTILINE).group(1)
        numbers = [tuple(map(int, version.split("."))) for version in (least, tools.CARGO_NEXTEST_VERSION)]
        self.assertLessEqual(*numbers)


if __name__ == "__main__":
    unittest.main()
