import io
import os
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensign_dev import cache, paths  # noqa: E402
from ensign_dev.progress import Progress  # noqa: E402


class CacheTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        patch = mock.patch.dict(os.environ, {"ENSIGN_CACHE_DIR": folder.name})
        patch.start()
        self.addCleanup(patch.stop)
        self.out = io.StringIO()
        self.progress = Progress(self.out)

    def entry(self, name, build):
        return cache.entry("thing", name, build, self.progress)

    def left(self):
        return sorted(path.name for path in (self.root / "thing").iterdir() if path.name != ".lock")


class AnEntry(CacheTest):
    def test_is_built_once(self):
        builds = []

        def build(folder):
            builds.append(folder)
            (folder / "file").write_text("content")

        first, second = self.entry("a", build), self.entry("a", build)
        self.assertEqual(first, second)
        self.assertEqual((first / "file").read_text(), "content")
        self.assertEqual(len(builds), 1)
        self.assertEqual(self.left(), ["a"])

    def test_leaves_nothing_when_its_build_fails_or_is_interrupted(self):
        for failure in (RuntimeError, KeyboardInterrupt):

            def build(folder, failure=failure):
                (folder / "half").write_text("")
                raise failure

            with self.assertRaises(failure):
                self.entry("a", build)
            self.assertEqual(self.left(), [])
        self.entry("a", lambda folder: None)
        self.assertEqual(self.left(), ["a"])

    def test_is_built_from_scratch_after_a_killed_build(self):
        part = self.root / "thing" / ".partial-a"
        part.mkdir(parents=True)
        (part / "half").write_text("")
        self.assertEqual(list(self.entry("a", lambda folder: None).iterdir()), [])

    def test_is_built_only_once_by_concurrent_processes_and_the_waiting_one_reports_it(self):
        inside, go_on, builds = threading.Event(), threading.Event(), []

        def build(folder):
            builds.append(folder)
            inside.set()
            go_on.wait(60)

        waited = io.StringIO()
        first = threading.Thread(target=self.entry, args=("a", build))
        first.start()
        self.assertTrue(inside.wait(60))
        second = threading.Thread(target=cache.entry, args=("thing", "a", build, Progress(waited)))
        second.start()
        deadline = time.monotonic() + 60
        while "in progress" not in waited.getvalue():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.001)
        go_on.set()
        first.join()
        second.join()
        self.assertEqual(len(builds), 1)

    def test_is_deleted_if_no_checkout_used_it_for_a_month(self):
        old, used = self.entry("old", lambda folder: None), self.entry("used", lambda folder: None)
        long_ago = time.time() - 40 * 24 * 3600
        for path in (old, used):
            os.utime(path, (long_ago, long_ago))
        self.entry("used", lambda folder: None)
        self.entry("new", lambda folder: None)
        self.assertEqual(self.left(), ["new", "used"])


class AKey(CacheTest):
    def test_depends_on_the_boundaries_between_parts(self):
        self.assertNotEqual(cache.key("ab", "c"), cache.key("a", "bc"))
        self.assertEqual(cache.key("ab"), cache.key(b"ab"))

    def test_of_files_depends_on_names_and_contents_but_not_on_order(self):
        one, two = self.root / "1", self.root / "2"
        one.write_text("x")
        two.write_text("y")
        before = cache.hash_files(self.root, [one, two])
        self.assertEqual(cache.hash_files(self.root, [two, one]), before)
        two.write_text("z")
        self.assertNotEqual(cache.hash_files(self.root, [one, two]), before)
        two.write_text("y")
        two.rename(self.root / "3")
        self.assertNotEqual(cache.hash_files(self.root, [one, self.root / "3"]), before)


class TheCacheFolder(unittest.TestCase):
    def test_is_chosen_by_the_callers_environment(self):
        for environ, expected in (
            ({"ENSIGN_CACHE_DIR": "/c", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/c"),
            ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/ensign"),
            ({"HOME": "/h"}, "/h/.cache/ensign"),
        ):
            with mock.patch.dict(os.environ, environ, clear=True):
                self.assertEqual(paths.cache_dir(), Path(expected))


if __name__ == "__main__":
    unittest.main()
