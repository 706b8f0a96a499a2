"""The recorder, against the emulator in place of Azure."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensign_dev import children, main, paths  # noqa: E402
from ensign_dev.azure_cases import azure, case, emulator, known, record, suite  # noqa: E402
from ensign_dev.azure_cases.replay import skipped  # noqa: E402
from ensign_dev.azure_cases.values import GUID  # noqa: E402
from ensign_dev.failure import Failure  # noqa: E402
from ensign_dev.waiting import until  # noqa: E402


class Recording(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name) / "recorded"
        self.process = emulator.Process(emulator.binary())
        self.addCleanup(self.process.stop)
        self.info = self.process.info
        self.token = self.process.control("GET", "arm-token")["access_token"]
        variables = {"SSL_CERT_FILE": self.info["ca_file"], azure.TOKEN_VARIABLE: self.token}
        patched = mock.patch.dict(os.environ, variables)
        patched.start()
        self.addCleanup(patched.stop)
        self.cases = case.load(paths.AZURE_CASES)
        self.said = []

    def settings(self):
        return record.Settings(
            arm=self.info["arm_endpoint"], authority=self.info["authority_host"],
            subscription=self.info["subscription_id"], location=self.info["location"], folder=self.folder, include=(),
            pace_seconds=0, settle_seconds=0,
        )

    def record(self, *only, is_confirmed=True):
        tokens = azure.Tokens("false")
        return record.record(case.chosen(self.cases, only), self.settings(), tokens, is_confirmed, self.said.append)

    def groups(self):
        groups = self.process.control("GET", "state")["subscriptions"][0]["resourceGroups"]
        return [group["name"] for group in groups]

    def faults(self, *rules):
        self.process.control("PUT", "faults", list(rules))

    def files(self):
        return sorted(file.name for file in self.folder.glob("*")) if self.folder.exists() else []

    def assert_nothing_is_left(self, before):
        after = self.process.control("GET", "state")
        for kept in ("subscriptions", "identities", "roleAssignments", "roleDefinitions"):
            self.assertEqual(after[kept], before[kept])

    def test_writes_only_what_is_known_to_differ(self):
        before = self.process.control("GET", "state")
        self.assertEqual(self.record(), 0, "\n".join(self.said))
        differing = known.load(paths.AZURE_CASES, self.cases)
        replayed = [one.id for one in self.cases if skipped(one, ()) is None]
        self.assertEqual(self.files(), sorted(f"{name}.json" for name in differing if name in replayed))
        self.assert_nothing_is_left(before)

    def test_writes_exactly_the_answer_that_differs_without_ids(self):
        subscription, tenant = self.info["subscription_id"], self.info["tenant_id"]
        message = f"Nobody of {tenant} at 10.1.2.3 may write in {subscription} before 2026-01-18T00:16:16Z."
        answer = {"status": 409, "code": "Conflict", "message": message}
        self.faults({"match": {"method": "PUT", "pathContains": "federatedIdentityCredentials/two"}, "action": answer})
        self.assertEqual(self.record("fic-refused-twin", "fic-delete-absent"), 0, "\n".join(self.said))
        self.assertEqual(self.files(), ["fic-refused-twin.json"])
        written = json.loads((self.folder / "fic-refused-twin.json").read_text())
        original = json.loads((paths.AZURE_CASES / "fic-refused-twin.json").read_text())
        expected = {
            "status": [400, 409],
            "error": {"message": "Nobody of {tenant} at <any> may write in {subscription} before <time>."},
        }
        self.assertEqual(written["steps"][-1]["expect"], expected)
        self.assertEqual(written["steps"][:-1], original["steps"][:-1])
        self.assertEqual((written["id"], written["evidence"]), ("fic-refused-twin", "recorded"))
        text = (self.folder / "fic-refused-twin.json").read_text() + "".join(self.said[1:])
        self.assertEqual(re.findall(GUID, text), [])
        self.assertNotIn(self.token, text)
        # What was written is a case that the emulator differs from, in that answer.
        [result] = suite.run(case.load(self.folder), {}, emulator.binary())
        self.assertEqual({one.step for one in result.found}, {3})

    def test_makes_nothing_unless_that_is_confirmed(self):
        self.assertEqual(self.record(is_confirmed=False), record.NOT_CONFIRMED_STATUS)
        self.assertEqual(self.process.control("GET", "log?kind=arm-write"), [])
        self.assertIn("PUT {identities}/{new}", "\n".join(self.said))

    def test_removes_everything_when_it_is_interrupted(self):
        before = self.process.control("GET", "state")
        # While the role assignment is read, there are an identity and a role assignment.
        match = {"method": "GET", "pathContains": "/roleAssignments/"}
        self.faults({"match": match, "action": {"delayMs": 60_000}})
        command = [
            sys.executable, "-B", paths.ROOT / "dev" / "azure_cases.py", "record", "--yes", "--pace", "0", "--settle", "0",
            "--only", "role-assignment-create-read-delete", "--to", self.folder, "--arm", self.info["arm_endpoint"],
            "--authority", self.info["authority_host"], "--subscription", self.info["subscription_id"],
            "--location", self.info["location"],
        ]
        env = children.environment({"SSL_CERT_FILE": self.info["ca_file"], azure.TOKEN_VARIABLE: self.token})
        process = children.start(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            until("the delayed read", lambda: self.process.control("GET", "faults")[0]["fired"] or None, 30)
            self.assertEqual(len(self.process.control("GET", "state")["roleAssignments"]), 1)
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=30)
        finally:
            children.end(process)
        self.assertEqual(process.returncode, main.INTERRUPTED_STATUS, output)
        self.assertIn("removed the resource group", output)
        self.assert_nothing_is_left(before)

    def test_says_what_to_do_if_the_group_cannot_be_removed(self):
        locked = {"status": 409, "code": "ScopeLocked", "message": "Locked."}
        match = {"method": "DELETE", "pathContains": "?api-version=2021-04-01"}
        self.faults({"match": match, "times": 1000, "action": locked})
        with mock.patch.object(record, "REMOVAL_SECONDS", 0.2), mock.patch.object(record, "REMOVAL_PAUSE_SECONDS", 0.05):
            with self.assertRaisesRegex(Failure, "not everything was removed"):
                self.record("uai-absent")
        [group] = set(self.groups()) - {self.info["resource_group"]}
        self.assertRegex("\n".join(self.said), f"az group delete --yes --name {group} --subscription")

    def test_does_not_keep_a_file_that_says_whose_it_is(self):
        with mock.patch.object(record.Scrubber, "value", lambda self, value: value):
            self.faults({"match": {"method": "DELETE", "pathContains": "/nope"}, "action": {
                "status": 403, "code": "No", "message": f"Not in {self.info['subscription_id']}.",
            }})
            self.assertEqual(self.record("fic-delete-absent"), 1)
        self.assertEqual(self.files(), [])
        self.assertIn("refused", "\n".join(self.said))


if __name__ == "__main__":
    unittest.main()
