import os
import stat
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensign_dev import preflight  # noqa: E402

GIB = preflight.GIB
GOOD = {
    "go": "go version go1.26.0 linux/amd64",
    "rustc": "rustc 1.89.0 (29483883e 2025-08-04)",
    "cargo": "cargo 1.89.0 (c24e10642 2025-06-23)",
    "node": "v20.0.0",
    "npm": "10.0.0",
    "javac": "javac 17.0.15",
    "mvn": "Apache Maven 3.8.7",
    "cc": "",
    "c++": "",
}


class PreflightTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.bin = Path(folder.name)
        environ = mock.patch.dict(os.environ, {"PATH": folder.name, "CC": "cc", "CXX": "c++"})
        environ.start()
        self.addCleanup(environ.stop)
        for name, size in (("available_memory", 64 * GIB),):
            patch = mock.patch.object(preflight, name, return_value=size)
            patch.start()
            self.addCleanup(patch.stop)
        free = mock.patch.object(preflight.shutil, "disk_usage", return_value=mock.Mock(free=100 * GIB))
        free.start()
        self.addCleanup(free.stop)

    def install(self, **tools):
        for name, answer in tools.items():
            file = self.bin / name
            file.write_text(f"#!/bin/sh\necho '{answer}'\n")
            file.chmod(file.stat().st_mode | stat.S_IXUSR)

    def missing(self, purpose="test"):
        return [problem.what for problem in preflight.check(purpose)]


class OnAMachine(PreflightTest):
    def test_with_all_tools_nothing_is_missing(self):
        self.install(**GOOD)
        self.assertEqual(self.missing(), [])

    def test_without_tools_all_are_listed_at_once_with_installation_hints(self):
        problems = preflight.check("test")
        listed = preflight.report(problems)
        for word in ("Go", "Rust compiler", "cargo", "rustfmt", "clippy", "Node.js", "npm", "JDK", "Maven", "C compiler"):
            self.assertIn(word, listed)
        for problem in problems:
            self.assertTrue(problem.how)
            self.assertIn(problem.how, listed)

    def test_with_old_tools_the_installed_and_the_required_versions_are_named(self):
        old = {"go": "go version go1.25.9 linux/amd64", "rustc": "rustc 1.88.0", "node": "v18.20.0",
               "javac": "javac 11.0.2"}
        self.install(**dict(GOOD, **old))
        missing = self.missing()
        self.assertEqual(len(missing), 4, missing)
        for wanted, found in (("Go 1.26", "go1.25.9"), ("compiler 1.89", "1.88.0"), ("Node.js 20", "v18.20.0"),
                              ("JDK 17", "11.0.2")):
            self.assertTrue(any(wanted in what and found in what for what in missing), missing)

    def test_without_node_the_demo_still_runs(self):
        self.install(**{name: answer for name, answer in GOOD.items() if name not in ("node", "npm")})
        self.assertEqual(self.missing("demo"), [])
        self.assertEqual(len(self.missing("test")), 2)

    def test_fuzzing_needs_a_cpp_compiler_but_not_go(self):
        self.install(**{name: answer for name, answer in GOOD.items() if name not in ("go", "node", "npm")})
        self.assertEqual(self.missing("fuzz"), [])
        (self.bin / "c++").unlink()
        self.assertEqual(self.missing("fuzz"), ["a C++ compiler (c++), for libFuzzer"])

    def test_an_image_needs_a_static_c_library_that_resolves_host_names(self):
        self.install(**{name: answer for name, answer in GOOD.items() if name not in ("go", "node", "npm", "c++")})
        self.install(cc="/usr/lib/libc.a")
        with mock.patch.object(preflight.platform, "libc_ver", return_value=("glibc", "2.34")):
            self.assertEqual(self.missing("image"), [])
            self.install(cc="libc.a")
            self.assertEqual(self.missing("image"), ["a static C library (libc.a)"])
        self.install(cc="/usr/lib/libc.a")
        for found, words in ((("glibc", "2.33"), "found: glibc 2.33"), (("", ""), "found: another C library")):
            with mock.patch.object(preflight.platform, "libc_ver", return_value=found):
                (what,) = self.missing("image")
                self.assertIn(words, what)

    def test_without_rust_the_control_plane_can_still_be_built(self):
        self.install(go=GOOD["go"])
        self.assertEqual(self.missing("control-plane"), [])

    def test_with_little_memory_or_disk_space_only_a_build_is_rejected(self):
        self.install(**GOOD)
        preflight.available_memory.return_value = 3 * GIB
        preflight.shutil.disk_usage.return_value = mock.Mock(free=5 * GIB)
        missing = [problem.what for problem in preflight.check("test", control_plane_built=False)]
        self.assertEqual(len(missing), 2, missing)
        self.assertIn("3.0 GiB", missing[0])
        self.assertIn("5.0 GiB", missing[1])
        self.assertEqual(preflight.check("test", control_plane_built=True), [])

    def test_with_a_failing_tool_its_error_message_is_shown(self):
        self.install(**GOOD)
        (self.bin / "cargo").write_text("#!/bin/sh\necho 'no default toolchain' >&2; exit 1\n")
        self.assertTrue(any("no default toolchain" in what for what in self.missing()))


class Versions(unittest.TestCase):
    def test_are_found_in_the_output_of_tools(self):
        for text, expected in (
            ("go version go1.26.8 linux/amd64", (1, 26, 8)),
            ("rustc 1.89.0-nightly (29483883e 2025-08-04)", (1, 89, 0)),
            ("v20.20.2", (20, 20, 2)),
            ("go version go1.27", (1, 27)),
            ("nonsense", None),
        ):
            self.assertEqual(preflight.version(text), expected)

    def test_are_compared_as_numbers(self):
        self.assertLess(preflight.version("1.9.0"), preflight.RUST)
        self.assertGreaterEqual(preflight.version("1.100.0"), preflight.RUST)


class Memory(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.meminfo = self.folder / "meminfo"
        self.meminfo.write_text("MemTotal:       16777216 kB\nMemAvailable:    8388608 kB\n")

    def limit(self, maximum):
        (self.folder / "memory.max").write_text(maximum + "\n")
        (self.folder / "memory.current").write_text(f"{3 * GIB}\n")
        (self.folder / "memory.stat").write_text(f"anon 1\ninactive_file {1 * GIB}\n")

    def test_is_the_machines_without_a_limit(self):
        self.assertEqual(preflight.available_memory(self.meminfo, self.folder), 8 * GIB)
        self.limit("max")
        self.assertEqual(preflight.available_memory(self.meminfo, self.folder), 8 * GIB)

    def test_is_the_containers_if_that_is_less(self):
        self.limit(str(4 * GIB))
        self.assertEqual(preflight.available_memory(self.meminfo, self.folder), 2 * GIB)

    def test_is_unknown_without_a_source(self):
        self.assertIsNone(preflight.available_memory(self.folder / "none", self.folder))


if __name__ == "__main__":
    unittest.main()
