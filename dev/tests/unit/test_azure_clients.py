import os
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensign_dev import azure_clients  # noqa: E402


class NodeModules(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.link = self.folder / "node_modules"
        for name in ("old", "new"):
            (self.folder / name).mkdir()

    def test_are_linked_and_relinked_when_the_lock_file_changes(self):
        for name in ("old", "new", "new"):
            azure_clients._link(self.link, self.folder / name)
            self.assertEqual(Path(os.readlink(self.link)), self.folder / name)
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), ["new", "node_modules", "old"])

    def test_are_not_replaced_if_they_were_installed_manually(self):
        self.link.mkdir()
        with self.assertRaisesRegex(azure_clients.NotInstalled, "already exists"):
            azure_clients._link(self.link, self.folder / "new")
        self.assertTrue(self.link.is_dir())


class MissingLockFiles(unittest.TestCase):
    def test_are_a_failure_that_names_the_file(self):
        with tempfile.TemporaryDirectory() as folder:
            with mock.patch.object(azure_clients.paths, "PYTHON_CLIENTS", Path(folder)):
                with self.assertRaisesRegex(azure_clients.NotInstalled, "requirements.txt is missing"):
                    azure_clients.python(mock.Mock())
            with mock.patch.object(azure_clients.paths, "JAVASCRIPT_CLIENTS", Path(folder)):
                with self.assertRaisesRegex(azure_clients.NotInstalled, "package.json is missing"):
                    azure_clients.node_modules(mock.Mock())


if __name__ == "__main__":
    unittest.main()
