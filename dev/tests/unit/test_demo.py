"""The pure parts of the demo and of the environment."""

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

REFUSAL = (
    "ClientAssertionCredential authentication failed. AADSTS700213: No matching federated identity record found for "
    "presented assertion subject 'system:serviceaccount:shop:invoices'. Check your federated identity credential "
    "Subject, Audience and Issuer against the presented assertion. Trace ID: 1"
)


class Mode(unittest.TestCase):
    def test_compatibility_is_asked_for_with_a_one(self):
        for text, wanted in (("1", True), ("0", False), ("", False)):
            with mock.patch.dict(os.environ, {"COMPAT": text}):
                self.assertEqual(environment.compatibility(), wanted)
        with mock.patch.dict(os.environ, {"COMPAT": "yes"}), self.assertRaises(Failure):
            environment.compatibility()


class Refusals(unittest.TestCase):
    def test_the_code_of_missing_trust_is_found(self):
        self.assertEqual(demo_steps.NO_TRUST.search(REFUSAL).group(0), "AADSTS700213")
        self.assertEqual(demo_steps.NO_TRUST.search("AADSTS70025: none").group(0), "AADSTS70025")

    def test_any_other_refusal_is_not_taken_for_it(self):
        for other in ("AADSTS7000272: key", "AADSTS700016: application", "AADSTS90061: endpoint", "timed out"):
            self.assertIsNone(demo_steps.NO_TRUST.search(other), other)

    def test_a_person_is_shown_what_matters_of_it(self):
        self.assertEqual(
            demo_steps.first_sentence(REFUSAL),
            "AADSTS700213: No matching federated identity record found for presented assertion subject "
            "'system:serviceaccount:shop:invoices'.",
        )


class TheCopiedPod(unittest.TestCase):
    def test_it_has_what_was_injected_and_another_service_account(self):
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


class TheSecondAct(unittest.TestCase):
    @staticmethod
    def run_that_says(out, error=""):
        return Run(status=1, out=out, error=error, rewritten=False, given={})

    def test_storages_answer_is_read_from_the_programs_line(self):
        said = {"ok": False, "storage": {"status": 403, "code": "AuthorizationPermissionMismatch"}}
        answer = dedicated_steps.answer_of_storage(self.run_that_says(json.dumps(said) + "\n"))
        self.assertEqual(answer, dedicated_steps.REFUSED_BY_STORAGE)

    def test_a_program_that_got_no_token_was_not_refused_by_storage(self):
        for out in (json.dumps({"ok": False, "error": REFUSAL}), "", "[]", '{"storage": null}'):
            with self.assertRaises(Failure) as caught:
                dedicated_steps.answer_of_storage(self.run_that_says(out, "crashed"))
            self.assertIn(out or "crashed", str(caught.exception))

    def test_the_identity_is_refused_between_being_made_and_being_given_the_role(self):
        names = list(demo_steps.PLAN)
        act = names[names.index("class-applied") : names.index("environment-stopped")]
        self.assertEqual(
            act, ["class-applied", "identity-made", "own-exchange", "role-missing", "role-working", "identity-gone"]
        )

    def test_role_assignments_are_asked_for_in_every_page(self):
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
    def test_a_credential_counts_only_for_its_own_issuer_and_subject(self):
        def credential(issuer, subject):
            return {"properties": {"issuer": issuer, "subject": subject}}

        listed = [credential("i", "s"), credential("i", "other"), credential("other", "s"), credential("i", "S")]
        self.assertEqual(azure.credentials_of("s", "i", listed), listed[:1])

    def test_the_controllers_identity_trusts_its_service_account_and_the_examples_trusts_nobody(self):
        controller, orders = seed.state("https://issuer")["identities"]
        [trust] = controller["federatedIdentityCredentials"]
        self.assertEqual(trust["subject"], "system:serviceaccount:ensign-system:ensign-controller")
        self.assertEqual((trust["issuer"], controller["armRights"]), ("https://issuer", "all"))
        self.assertNotIn("federatedIdentityCredentials", orders)
        self.assertNotIn("armRights", orders)


class Claims(unittest.TestCase):
    def test_they_are_read_from_an_unpadded_payload(self):
        payload = base64.urlsafe_b64encode(json.dumps({"sub": "s?>"}).encode()).decode().rstrip("=")
        self.assertEqual(jwt.claims(f"h.{payload}.s\n"), {"sub": "s?>"})

    def test_what_is_not_a_token_is_refused_without_being_repeated(self):
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

    def test_a_shell_takes_the_variables_even_from_a_folder_with_a_space(self):
        script = environment.shell_variables(self.INFO) + 'printf %s "$KUBECONFIG"; test "${PATH%%:*}" = /c'
        shell = subprocess.run(["sh", "-eu", "-c", script], capture_output=True, text=True, check=True)
        self.assertEqual(shell.stdout, "/a folder/kubeconfig")

    def test_a_kubeconfig_names_the_token_file_and_has_no_token(self):
        made = environment.kubeconfig("me", {"server": "https://127.0.0.1:1"}, Path("/t"))
        self.assertEqual(made["users"], [{"name": "me", "user": {"tokenFile": "/t"}}])
        self.assertEqual(made["clusters"][0]["cluster"]["server"], "https://127.0.0.1:1")


class Narration(unittest.TestCase):
    def test_a_step_reads_the_same_without_a_terminal(self):
        out = io.StringIO()
        tell = Narrator(2, out)
        tell.step("Look")
        tell.say("word " * 40)
        tell.facts({"a": ["x", "y"], "long": 1})
        text = out.getvalue()
        self.assertIn("[1/2] Look\n----------\n", text)
        self.assertIn("    a     x, y\n    long  1\n", text)
        self.assertTrue(all(len(line) <= 100 for line in text.splitlines()))
        self.assertNotIn("\x1b", text)


class TheExamples(unittest.TestCase):
    def test_the_python_sample_and_the_test_suite_use_the_same_azure_identity(self):
        sample = (paths.ROOT / "examples/secretless-app-python/requirements.txt").read_text().split()
        locked = (paths.PYTHON_CLIENTS / "requirements.txt").read_text().lower()
        for requirement in sample:
            self.assertIn(requirement, locked)


if __name__ == "__main__":
    unittest.main()
