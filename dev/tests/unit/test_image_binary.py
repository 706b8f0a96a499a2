import shlex
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensign_dev.failure import Failure  # noqa: E402
from ensign_dev.image import binary, elf, origin, platforms  # noqa: E402

RUSTC = """\
rustc 1.90.0 (abc 2025-01-01)
binary: rustc
commit-hash: abcdef
host: {host}
release: 1.90.0
"""
AMD64, ARM64 = platforms.PLATFORMS


def program(*kinds, content=b""):
    header = bytearray(64)
    header[:6] = elf.MAGIC + bytes((elf.CLASS_64, elf.LITTLE_ENDIAN))
    struct.pack_into("<Q", header, 32, 64)
    struct.pack_into("<HH", header, 54, 56, len(kinds))
    return bytes(header) + b"".join(struct.pack("<I", kind) + bytes(52) for kind in kinds) + content


class AProgram(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = Path(folder.name) / "program"

    def test_is_static_unless_it_has_an_interpreter(self):
        self.assertTrue(elf.is_static(program(1, 2)))
        self.assertFalse(elf.is_static(program(1, elf.INTERPRETER)))
        self.assertFalse(elf.is_static(Path(sys.executable).resolve().read_bytes()))

    def test_must_be_a_64_bit_elf_file(self):
        for content in (b"", b"#!/bin/sh\n", program(1).replace(b"\x7fELF\x02", b"\x7fELF\x01")):
            with self.assertRaisesRegex(ValueError, "not a 64-bit"):
                elf.is_static(content)

    def test_must_be_static_and_free_of_paths_of_the_build_machine(self):
        folders = [Path("/home/someone"), Path("/opt/checkout")]
        self.file.write_bytes(program(1, content=b"panicked at /crates/x/src/lib.rs"))
        binary.require_portable(self.file, folders)
        self.file.write_bytes(program(1, content=b"panicked at /home/someone/.cargo/x/src/lib.rs"))
        with self.assertRaisesRegex(Failure, "contains paths of this machine: /home/someone$"):
            binary.require_portable(self.file, folders)
        self.file.write_bytes(program(elf.INTERPRETER))
        with self.assertRaisesRegex(Failure, "is not static"):
            binary.require_portable(self.file, folders)


class TheBuild(unittest.TestCase):
    def setUp(self):
        self.rust = binary.toolchain(RUSTC.format(host=AMD64.target), "/rust\n")
        sources = [Path("/cargo/registry/b"), Path("/cargo/registry/a b"), Path("/cargo/registry/b")]
        self.replaced = binary.replacements(Path("/c"), Path("/c/target"), sources, self.rust)

    def env(self, **base):
        return binary.environment(self.replaced, AMD64, base)

    def test_knows_its_compiler(self):
        self.assertEqual(self.rust, ("1.90.0", "rustc 1.90.0 (abc 2025-01-01)", Path("/rust"), "abcdef"))

    def test_replaces_paths_of_the_machine_with_nested_ones_last(self):
        self.assertEqual([(str(folder), name) for folder, name in self.replaced], [
            ("/c", "/ensign"),
            ("/c/target", "/target"),
            ("/cargo/registry/a b", "/crates"),
            ("/cargo/registry/b", "/crates"),
            ("/rust/lib/rustlib/src/rust", "/rustc/abcdef"),
        ])

    def test_passes_the_replacements_to_both_compilers_even_with_spaces(self):
        env = self.env()
        rust = env["CARGO_ENCODED_RUSTFLAGS"].split("\x1f")
        c = shlex.split(env["CFLAGS_x86_64_unknown_linux_gnu"])
        for folder, name in self.replaced:
            self.assertIn(f"--remap-path-prefix={folder}={name}", rust)
            self.assertIn(f"-ffile-prefix-map={folder}={name}", c)
        self.assertEqual(env["CC_SHELL_ESCAPED_FLAGS"], "1")

    def test_is_static_and_gets_random_numbers_from_the_kernel(self):
        rust = self.env()["CARGO_ENCODED_RUSTFLAGS"].split("\x1f")
        self.assertIn("-Ctarget-feature=+crt-static", rust)
        self.assertIn('--cfg=getrandom_backend="linux_getrandom"', rust)

    def test_is_independent_of_the_callers_flags_and_the_commit_time(self):
        base = {
            "RUSTFLAGS": "-Ctarget-cpu=native", "CFLAGS": "-O0", "CFLAGS_x86_64_unknown_linux_gnu": "-g",
            "CARGO_PROFILE_RELEASE_LTO": "off", "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER": "other",
            "AWS_LC_SYS_CMAKE_BUILDER": "1", "SOURCE_DATE_EPOCH": "1234567890",
        }
        self.assertEqual(self.env(**base), self.env())
        self.assertEqual(self.env(CARGO_TARGET_DIR="/t", PATH="/p"), {
            **self.env(), "CARGO_TARGET_DIR": "/t/static", "PATH": "/p",
        })


class ThePlatform(unittest.TestCase):
    def test_is_that_of_the_machine(self):
        for platform in platforms.PLATFORMS:
            rustc = RUSTC.format(host=platform.target)
            self.assertEqual(platforms.choose("", rustc), platform)
            self.assertEqual(platforms.choose(platform.architecture, rustc), platform)

    def test_must_not_be_another_and_the_message_says_where_to_build_it(self):
        with self.assertRaisesRegex(Failure, "can't build an image for arm64 .* which is amd64.* on a machine that is arm64"):
            platforms.choose("arm64", RUSTC.format(host=AMD64.target))

    def test_must_be_supported(self):
        with self.assertRaisesRegex(Failure, "unsupported architecture 's390x'; supported: amd64, arm64"):
            platforms.choose("s390x", RUSTC.format(host=AMD64.target))
        with self.assertRaisesRegex(Failure, "is for x86_64-unknown-linux-musl"):
            platforms.choose("", RUSTC.format(host="x86_64-unknown-linux-musl"))


class TheOrigin(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)

    def git(self, *words):
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.com", "-c", "commit.gpgsign=false"]
        command = ["git", *identity, *words]
        done = subprocess.run(command, cwd=self.root, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def test_is_the_commit_and_its_time_marked_if_there_are_uncommitted_changes(self):
        self.git("init", "--quiet")
        (self.root / "file").write_text("")
        self.git("add", "file")
        self.git("commit", "--quiet", "--message", "m")
        commit, seconds = self.git("log", "-1", "--format=%H %ct").split()
        built_from = origin.read(self.root, "1.0.0", None, {})
        self.assertEqual(built_from, ("1.0.0", commit, int(seconds)))
        (self.root / "file").write_text("changed")
        self.assertEqual(origin.read(self.root, "1.0.0", None, {}).revision, f"{commit}-dirty")

    def test_is_set_by_the_caller_without_git(self):
        environ = {"SOURCE_DATE_EPOCH": "86400"}
        self.assertEqual(origin.read(self.root, "1.0.0", "abc", environ), ("1.0.0", "abc", 86400))
        built_from = origin.read(self.root, "1.0.0", None, environ)
        self.assertEqual((built_from.revision, built_from.time()), (None, "1970-01-02T00:00:00Z"))

    def test_must_be_known(self):
        with self.assertRaisesRegex(Failure, "set SOURCE_DATE_EPOCH to the time of the commit"):
            origin.read(self.root, "1.0.0", "abc", {})
        with self.assertRaisesRegex(Failure, "whole seconds since 1970"):
            origin.read(self.root, "1.0.0", "abc", {"SOURCE_DATE_EPOCH": "today"})


if __name__ == "__main__":
    unittest.main()
