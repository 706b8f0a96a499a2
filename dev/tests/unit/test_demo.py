"""The parts of the demo and of the environment that need no processes."""

import base64
import io
import json
import os
import subprocess
import sys
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensign_dev import azure, build, dedicated_steps, demo_steps, environment, jwt, paths, seed  # noqa: E402
from ensign_dev.failure import Failure  # noqa: E402
from ensign_dev.narration import Narrator  # noqa: E402
from ensign_dev.pod_runner import Run  # noqa: E402

ERROR = (
    "ClientAssertionCredential authentication failed. AADSTS700213: No matching federated identity record found for "
    "presented assertion subject 'system:serviceaccount:shop:invoices'. Check your federated identity credential "
    "Subject, Audience and Issuer against the presented assertion. Trace ID: 1"
)


class Mode(unittest.TestCase):
    def test_compatibility_is_enabled_with_1(self):
        for text, wanted in (("1", True), ("0", False), ("", False)):
            with mock.patch.dict(os.environ, {"COMPAT": text}):
                self.assertEqual(environment.compatibility(), wanted)
        with mock.patch.dict(os.environ, {"COMPAT": "yes"}), self.assertRaises(Failure):
            environment.compatibility()


class Rejections(unittest.TestCase):
    def test_the_error_code_for_missing_trust_is_found(self):
        self.assertEqual(demo_steps.NO_TRUST.search(ERROR).group(0), "AADSTS700213")
        self.assertEqual(demo_steps.NO_TRUST.search("AADSTS70025: none").group(0), "AADSTS70025")

    def test_other_errors_are_not_mistaken_for_it(self):
        for other in ("AADSTS7000272: key", "AADSTS700016: application", "AADSTS90061: endpoint", "timed out"):
            self.assertIsNone(demo_steps.NO_TRUST.search(other), other)

    def test_only_the_relevant_part_of_the_message_is_shown(self):
        self.assertEqual(
            demo_steps.first_sentence(ERROR),
            "AADSTS700213: No matching federated identity record found for presented assertion subject "
            "'system:serviceaccount:shop:invoices'.",
        )


class TheCopiedPod(unittest.TestCase):
    def test_has_everything_that_was_injected_but_another_service_account(self):
        container = {"name": "c", "image": "i", "env": [{"name": "A", "value": "1"}], "volumeMounts": [{"name": "v"}]}
        original = {
            "metadata": {"name": "orders-1", "namespace": "shop", "labels": {"ensign.dev/inject": "true"}, "uid": "u"},
            "spec": {"serviceAccountName": "orders", "containers": [container], "volumes": [{"name": "v"}]},
        }
        copied = demo_steps.copied(original, "invoices")
        self.assertEqual(copied["spec"]["containers"], [container])
        self.assertEqual(copied["spec"]["volumes"], [{"name": "v"}])
        self.assertEqual(copied["spec"]["serviceAccountName"], "invoices")
        self.assertNotIn("labels", copied["metadata"])


class TheDedicatedIdentity(unittest.TestCase):
    @staticmethod
    def run_with_output(out, error=""):
        return Run(status=1, out=out, error=error, rewritten=False, given={})

    def test_the_response_of_storage_is_parsed_from_the_programs_output(self):
        line = {"ok": False, "storage": {"status": 403, "code": "AuthorizationPermissionMismatch"}}
        response = dedicated_steps.storage_response(self.run_with_output(json.dumps(line) + "\n"))
        self.assertEqual(response, dedicated_steps.DENIED_BY_STORAGE)

    def test_a_missing_token_is_not_mistaken_for_a_denial_by_storage(self):
        for out in (json.dumps({"ok": False, "error": ERROR}), "", "[]", '{"storage": null}'):
            with self.assertRaises(Failure) as caught:
                dedicated_steps.storage_response(self.run_with_output(out, "crashed"))
            self.assertIn(out or "crashed", str(caught.exception))

    def test_access_is_denied_until_the_role_is_added(self):
        names = list(demo_steps.PLAN)
        steps = names[names.index("class-applied") : names.index("environment-stopped")]
        self.assertEqual(
            steps, ["class-applied", "identity-made", "own-exchange", "role-missing", "role-working", "identity-gone"]
        )

    def test_all_pages_of_role_assignments_are_read(self):
        pages = {
            "https://arm/s/providers/Microsoft.Authorization/roleAssignments?api-version=2022-04-01": {
                "value": [{"name": "a"}], "nextLink": "https://arm/next",
            },
            "https://arm/next": {"value": [{"name": "b"}]},
        }
        arm = azure.Arm.__new__(azure.Arm)
        arm._endpoint = "https://arm"
        with mock.patch.object(arm, "_get", pages.__getitem__):
            self.assertEqual([one["name"] for one in arm.role_assignments("/s")], ["a", "b"])


class Azure(unittest.TestCase):
    def test_credentials_are_matched_by_issuer_and_subject(self):
        def credential(issuer, subject):
            return {"properties": {"issuer": issuer, "subject": subject}}

        listed = [credential("i", "s"), credential("i", "other"), credential("other", "s"), credential("i", "S")]
        self.assertEqual(azure.credentials_of("s", "i", listed), listed[:1])

    def test_initially_only_the_controllers_service_account_is_trusted(self):
        controller, orders = seed.state("https://issuer")["identities"]
        [trust] = controller["federatedIdentityCredentials"]
        self.assertEqual(trust["subject"], "system:serviceaccount:ensign-system:ensign-controller")
        self.assertEqual((trust["issuer"], controller["armRights"]), ("https://issuer", "all"))
        self.assertNotIn("federatedIdentityCredentials", orders)
        self.assertNotIn("armRights", orders)


class Claims(unittest.TestCase):
    def test_are_decoded_from_an_unpadded_payload(self):
        payload = base64.urlsafe_b64encode(json.dumps({"sub": "s?>"}).encode()).decode().rstrip("=")
        self.assertEqual(jwt.claims(f"h.{payload}.s\n"), {"sub": "s?>"})

    def test_of_invalid_tokens_fail_without_disclosing_the_token(self):
        for text in ("secret", "a.secret.c", "a.W10.c", "a.b.c.d"):
            with self.assertRaises(Failure) as caught:
                jwt.claims(text)
            self.assertNotIn(text, str(caught.exception))


class Builds(unittest.TestCase):
    def test_programs_are_found_in_cargos_messages(self):
        messages = [
            {"reason": "compiler-artifact", "target": {"name": "serde"}, "executable": None},
            {"reason": "compiler-artifact", "target": {"name": "ensign"}, "executable": "/t/ensign"},
            {"reason": "build-finished", "success": True},
        ]
        self.assertEqual(build.executables("\n".join(map(json.dumps, messages))), {"ensign": Path("/t/ensign")})


class TheEnvironment(unittest.TestCase):
    INFO = {
        "kubeconfig": "/a folder/kubeconfig", "kubectl": "/c/kubectl", "arm_endpoint": "https://127.0.0.1:1",
        "arm_token_url": "https://127.0.0.1:1/_emulator/arm-token", "authority_host": "https://127.0.0.1:1/",
        "ca_file": "/a/ca.crt", "subscription_id": "s", "resource_group": "g",
    }

    def test_shell_variables_work_even_with_spaces_in_paths(self):
        script = environment.shell_variables(self.INFO) + 'printf %s "$KUBECONFIG"; test "${PATH%%:*}" = /c'
        shell = subprocess.run(["sh", "-eu", "-c", script], capture_output=True, text=True, check=True)
        self.assertEqual(shell.stdout, "/a folder/kubeconfig")

    def test_a_kubeconfig_references_the_token_file_and_contains_no_token(self):
        config = environment.kubeconfig("me", {"server": "https://127.0.0.1:1"}, Path("/t"))
        self.assertEqual(config["users"], [{"name": "me", "user": {"tokenFile": "/t"}}])
        self.assertEqual(config["clusters"][0]["cluster"]["server"], "https://127.0.0.1:1")


class Narration(unittest.TestCase):
    def test_is_plain_text(self):
        out = io.StringIO()
        narrator = Narrator(2, out)
        narrator.step("Look")
        narrator.say("word " * 40)
        narrator.facts({"a": ["x", "y"], "long": 1})
        text = out.getvalue()
        self.assertIn("[1/2] Look\n----------\n", text)
        self.assertIn("    a     x, y\n    long  1\n", text)
        self.assertTrue(all(len(line) <= 100 for line in text.splitlines()))
        self.assertNotIn("\x1b", text)


class TheExamples(unittest.TestCase):
    def test_use_the_same_version_of_azure_identity_as_the_tests(self):
        sample = (paths.ROOT / "examples/secretless-app-python/requirements.txt").read_text().split()
        locked = (paths.PYTHON_CLIENTS / "requirements.txt").read_text().lower()
        for requirement in sample:
            self.assertIn(requirement, locked)


if __name__ == "__main__":
    unittest.main()
