"""The demo provides to a pod's program what a kubelet would, or fails."""

import copy
import stat
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensign_dev import pod_runner  # noqa: E402
from ensign_dev.failure import Failure  # noqa: E402

MOUNT = "/var/run/secrets/azure/wi"
POD = {
    "metadata": {"name": "orders-1", "namespace": "shop", "uid": "u-1"},
    "spec": {
        "serviceAccountName": "orders",
        "containers": [
            {
                "name": "app",
                "env": [
                    {"name": "AZURE_CLIENT_ID", "value": "c-1"},
                    {"name": "AZURE_FEDERATED_TOKEN_FILE", "value": f"{MOUNT}/token/azure-identity-token"},
                ],
                "volumeMounts": [{"name": "identity", "mountPath": MOUNT, "readOnly": True}],
            },
            {"name": "bare"},
        ],
        "volumes": [
            {
                "name": "identity",
                "projected": {
                    "sources": [
                        {
                            "serviceAccountToken": {
                                "audience": "api://AzureADTokenExchange",
                                "expirationSeconds": 7200,
                                "path": "token/azure-identity-token",
                            }
                        }
                    ]
                },
            }
        ],
    },
}


def pod(change=None):
    """The pod above; `change` modifies its first container and its volume."""
    changed = copy.deepcopy(POD)
    if change is not None:
        change(changed["spec"]["containers"][0], changed["spec"]["volumes"][0])
    return changed


def with_env(*entries):
    return pod(lambda container, _volume: container.update(env=list(entries)))


class ReadingAPod(unittest.TestCase):
    def test_a_container_gets_its_environment_and_its_token(self):
        process = pod_runner.read(pod(), "app")
        self.assertEqual(process.env["AZURE_CLIENT_ID"], "c-1")
        self.assertEqual((process.namespace, process.service_account, process.uid), ("shop", "orders", "u-1"))
        [token] = process.tokens
        self.assertEqual(token.file, process.env["AZURE_FEDERATED_TOKEN_FILE"])
        self.assertEqual(token.audience, "api://AzureADTokenExchange")
        self.assertEqual(token.expiration_seconds, 7200)
        self.assertTrue(token.read_only)

    def test_a_container_without_a_mount_gets_no_token(self):
        process = pod_runner.read(pod(), "bare")
        self.assertEqual((process.env, process.tokens), ({}, []))

    def test_a_missing_container_is_an_error(self):
        with self.assertRaisesRegex(Failure, "orders-1 has no container other"):
            pod_runner.read(pod(), "other")

    def test_a_token_has_the_default_lifetime_and_audience_of_kubernetes(self):
        def change(_container, volume):
            volume["projected"]["sources"] = [{"serviceAccountToken": {"path": "t"}}]

        [token] = pod_runner.read(pod(change), "app").tokens
        self.assertEqual((token.audience, token.expiration_seconds), (None, 3600))

    def test_variables_are_expanded_as_in_kubernetes(self):
        process = pod_runner.read(
            with_env(
                {"name": "HOST", "value": "h"},
                {"name": "URL", "value": "https://$(HOST)/$(LATER)/$$(HOST)/$HOST"},
                {"name": "LATER", "value": "l"},
                {"name": "EMPTY"},
            ),
            "app",
        )
        self.assertEqual(process.env["URL"], "https://h/$(LATER)/$(HOST)/$HOST")
        self.assertEqual(process.env["EMPTY"], "")

    def test_variables_can_reference_fields_of_the_pod(self):
        source = {"fieldRef": {"fieldPath": "spec.serviceAccountName"}}
        process = pod_runner.read(with_env({"name": "ME", "valueFrom": source}), "app")
        self.assertEqual(process.env["ME"], "orders")

    def test_a_variable_from_another_source_is_an_error(self):
        source = {"secretKeyRef": {"name": "s", "key": "k"}}
        with self.assertRaisesRegex(Failure, "valueFrom of PASSWORD"):
            pod_runner.read(with_env({"name": "PASSWORD", "valueFrom": source}), "app")

    def test_env_from_is_an_error(self):
        with self.assertRaisesRegex(Failure, "envFrom"):
            pod_runner.read(pod(lambda container, _: container.update(envFrom=[{"secretRef": {"name": "s"}}])), "app")

    def test_a_volume_with_anything_but_tokens_is_an_error(self):
        for change in (
            lambda _, volume: volume["projected"]["sources"].append({"configMap": {"name": "c"}}),
            lambda _, volume: volume.update(projected={}, emptyDir={}),
        ):
            with self.assertRaisesRegex(Failure, "volume identity contains something other than"):
                pod_runner.read(pod(change), "app")

    def test_a_mount_of_a_missing_volume_is_an_error(self):
        with self.assertRaisesRegex(Failure, "mounts the volume other"):
            pod_runner.read(pod(lambda container, _: container["volumeMounts"][0].update(name="other")), "app")

    def test_a_mount_with_a_sub_path_is_an_error(self):
        with self.assertRaisesRegex(Failure, "volume identity with a subPath"):
            pod_runner.read(pod(lambda container, _: container["volumeMounts"][0].update(subPath="token")), "app")


class WithoutMountNamespaces(unittest.TestCase):
    def test_only_paths_below_a_mount_are_rewritten(self):
        env = {"IN": f"{MOUNT}/token/t", "ITSELF": MOUNT, "BESIDE": f"{MOUNT}-other/t", "OTHER": "x"}
        self.assertEqual(
            pod_runner.rewrite(env, {MOUNT: "/tmp/0"}),
            {"IN": "/tmp/0/token/t", "ITSELF": "/tmp/0", "BESIDE": f"{MOUNT}-other/t", "OTHER": "x"},
        )

    def test_the_innermost_mount_applies(self):
        env = {"FILE": "/a/b/c"}
        self.assertEqual(pod_runner.rewrite(env, {"/a": "/tmp/0", "/a/b": "/tmp/1"}), {"FILE": "/tmp/1/c"})

    def test_token_files_are_readable_only_by_their_owner(self):
        mounts = [{"path": MOUNT, "read_only": True, "files": {"token/t": "text"}}]
        with tempfile.TemporaryDirectory() as folder:
            moved = pod_runner._write(Path(folder), mounts)
            file = Path(moved[MOUNT]) / "token/t"
            self.assertEqual(file.read_text(), "text")
            self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)


if __name__ == "__main__":
    unittest.main()
