"""Only recorded processes are ever signalled, even if their IDs are reused."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensign_dev import children, processes, waiting  # noqa: E402
from ensign_dev.failure import Failure  # noqa: E402

SLEEP = ["sleep", "600"]
STUBBORN = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 600; done"]


class Identities(unittest.TestCase):
    def setUp(self):
        self.child = subprocess.Popen(SLEEP)
        self.addCleanup(self.child.wait)
        self.addCleanup(self.child.kill)

    def test_a_process_keeps_its_identity(self):
        first = processes.identity(self.child.pid)
        self.assertEqual(first, processes.identity(self.child.pid))
        self.assertTrue(processes.is_alive(first))

    def test_two_processes_differ(self):
        self.assertNotEqual(processes.identity(self.child.pid), processes.identity(os.getpid()))

    def test_a_process_that_exited_is_not_alive_even_before_its_parent_waits_for_it(self):
        found = processes.identity(self.child.pid)
        self.child.kill()
        os.waitid(os.P_PID, self.child.pid, os.WEXITED | os.WNOWAIT)
        self.assertIsNone(processes.identity(self.child.pid))
        self.assertFalse(processes.is_alive(found))

    def test_another_process_with_a_recorded_id_is_not_stopped(self):
        found = processes.identity(self.child.pid)
        earlier = found._replace(started=found.started + "0")
        self.assertTrue(processes.stop(earlier))
        self.assertTrue(processes.is_alive(found))

    def test_a_process_is_stopped(self):
        found = processes.identity(self.child.pid)
        self.assertTrue(processes.stop(found))
        self.assertEqual(self.child.wait(), -signal.SIGTERM)
        self.assertTrue(processes.stop(found), "stopping it again has no effect")

    def test_a_command_name_may_contain_spaces_and_parentheses(self):
        with tempfile.TemporaryDirectory() as folder:
            proc = Path(folder)
            (proc / "sys/kernel/random").mkdir(parents=True)
            (proc / "sys/kernel/random/boot_id").write_text("boot\n")
            (proc / "7").mkdir()
            fields = ["S", *(str(number) for number in range(4, 53))]
            (proc / "7/stat").write_text("7 (a) b (c) " + " ".join(fields) + "\n")
            self.assertEqual(processes.identity(7, proc), processes.Identity(7, "boot/22"))


class ARegistry(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        self.registry = processes.Registry(self.root)
        self.addCleanup(self.registry.stop_all)

    def start(self, name, command, die_with_parent=False):
        self.registry.start(name, command, children.environment(), die_with_parent)

    def test_finds_and_stops_processes_that_another_registry_started(self):
        self.start("one", SLEEP)
        self.start("two", SLEEP)
        other = processes.Registry(self.root)
        found = [record.identity for record in other.records()]
        self.assertEqual([record.name for record in other.records()], ["one", "two"])
        self.assertEqual(other.stop_all(), [])
        self.assertFalse(any(processes.is_alive(one) for one in found))
        self.assertEqual(self.registry.records(), [])

    def test_kills_a_process_that_ignores_sigterm(self):
        self.start("stubborn", STUBBORN)
        waiting.until("the trap", lambda: self.registry.out("stubborn").read_text() or None, 20)
        [record] = self.registry.records()
        self.assertTrue(processes.stop(record.identity, grace_seconds=0.05))
        self.assertFalse(processes.is_alive(record.identity))

    def test_has_nothing_to_stop_without_processes(self):
        self.assertEqual(self.registry.stop_all(), [])

    def test_treats_a_corrupt_file_like_a_missing_one(self):
        for text in ("", "{", "{}", '[{"name": "x"}]', "[1]"):
            (self.root / "processes.json").write_text(text)
            self.assertEqual(self.registry.records(), [], text)

    def test_does_not_find_or_stop_a_process_with_a_reused_id(self):
        me = {"name": "me", "pid": os.getpid(), "started": "boot/1", "program": ""}
        (self.root / "processes.json").write_text(json.dumps([me]))
        self.assertIsNone(self.registry.find("me"))
        self.assertEqual(self.registry.stop_all(), [])

    def test_reports_how_a_process_exited_with_the_end_of_its_log(self):
        self.start("broken", ["sh", "-c", "echo first >&2; echo port is taken >&2; exit 3"])
        message = waiting.until("it to exit", lambda: self.registry.ended("broken"), 20)
        self.assertIn("broken exited with status 3", message)
        self.assertIn("port is taken", message)

    def test_reports_no_exit_of_a_running_process(self):
        self.start("one", SLEEP)
        self.assertIsNone(self.registry.ended("one"))

    def test_terminates_a_process_with_its_parent_even_if_that_is_killed(self):
        script = (
            "import sys, time; sys.path.insert(0, sys.argv[1])\n"
            "from pathlib import Path\n"
            "from ensign_dev import children, processes\n"
            "registry = processes.Registry(Path(sys.argv[2]))\n"
            "registry.start('one', ['sleep', '600'], children.environment(), die_with_parent=True)\n"
            "print('started', flush=True); time.sleep(600)\n"
        )
        dev = str(Path(__file__).resolve().parents[2])
        command = [sys.executable, "-c", script, dev, str(self.root)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
            self.assertEqual(parent.stdout.readline(), "started\n")
            self.assertIsNotNone(self.registry.find("one"))
            parent.kill()
        waiting.until("the process to exit with its parent", lambda: None if self.registry.find("one") else True, 20)


class Waiting(unittest.TestCase):
    def test_ends_with_the_first_result(self):
        answers = iter([None, None, 7])
        self.assertEqual(waiting.until("seven", lambda: next(answers), 20), 7)

    def test_fails_immediately_if_it_is_hopeless(self):
        with self.assertRaisesRegex(Failure, "waited for a port, but it exited"):
            waiting.until("a port", lambda: None, 600, lambda: "it exited")

    def test_fails_at_the_deadline_with_details(self):
        with self.assertRaisesRegex(Failure, "0 seconds waiting for a port; its log is empty"):
            waiting.until("a port", lambda: None, 0, tail=lambda: "its log is empty")


if __name__ == "__main__":
    unittest.main()
