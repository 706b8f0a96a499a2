import os
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensign_dev import children, paths  # noqa: E402
from ensign_dev.failure import Failure  # noqa: E402
from ensign_dev.image import contents, layout, origin, platforms, unpack, verify  # noqa: E402
from ensign_dev.image.assemble import LAYOUT, assemble  # noqa: E402

# The fastest: the debug binary is four times the size of the released one.
COMPRESSION = 1


class AnImageOfTheDebugBinary(unittest.TestCase):
    """Tests everything except the release build, which takes too long for a test; `make image` verifies its own output."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.binary, cls.scratch = Path(os.environ["ENSIGN_BIN"]), Path(folder.name)
        license_text = (paths.ROOT / "LICENSE").read_bytes()
        parts = contents.Parts(cls.binary, b"certificates\n", {"bomFormat": "CycloneDX"}, license_text, {})
        built_from = origin.Origin("0.0.0", None, 0)
        cls.facts = layout.Facts(built_from, platforms.PLATFORMS[0], "about", "Apache-2.0", "certificates", "rustc")
        cls.written = assemble(cls.scratch / "image", parts, cls.facts, COMPRESSION)
        cls.root = cls.scratch / "root"
        cls.root.mkdir()
        cls.unpacked = unpack.unpack(cls.scratch / "image" / LAYOUT, cls.root)

    def test_contains_the_unchanged_binary(self):
        self.assertEqual((self.root / contents.BINARY).read_bytes(), self.binary.read_bytes())

    def test_runs_and_prints_its_version(self):
        # Without chroot: the debug binary needs the machine's C library.
        ran = verify.run(self.root, self.unpacked.config, ["--version"], chroot=False)
        expected = children.output([str(self.binary), "--version"]).split()[1]
        verify.require_version(ran, expected)
        with self.assertRaisesRegex(Failure, "status 0: ensign "):
            verify.require_version(ran, expected + "0")


if __name__ == "__main__":
    unittest.main()
