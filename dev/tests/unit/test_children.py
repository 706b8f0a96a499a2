import os
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensign_dev import children  # noqa: E402


class TheEnvironmentOfAChild(unittest.TestCase):
    def test_excludes_ambient_clusters_and_azure_accounts(self):
        ambient = {
            "KUBECONFIG": "/home/me/.kube/config",
            "KUBERC": "/home/me/kuberc",
            "KUBERNETES_SERVICE_HOST": "10.0.0.1",
            "KUBE_FEATURE_WatchListClient": "true",
            "HELM_NAMESPACE": "prod",
            "AZURE_CLIENT_ID": "x",
            "ARM_CLIENT_SECRET": "x",
            "IDENTITY_ENDPOINT": "x",
            "ENSIGN_AZURE_ARM_ENDPOINT": "https://management.azure.com",
        }
        env = children.environment(base=dict(ambient, PATH="/bin", HOME="/home/me"))
        for name, value in ambient.items():
            self.assertNotEqual(env.get(name), value, name)
        self.assertEqual(env["PATH"], "/bin")
        self.assertEqual(env["HOME"], "/home/me")

    def test_prevents_clients_from_falling_back_to_the_home_folder(self):
        env = children.environment(base={})
        self.assertEqual(env["KUBECONFIG"], os.devnull)
        self.assertEqual(env["KUBERC"], "off")

    def test_contains_explicit_settings(self):
        env = children.environment(
            {"KUBECONFIG": Path("/tmp/ours"), "AZURE_TENANT_ID": "t"},
            base={"KUBECONFIG": "/theirs", "ENSIGN_TEST_KUBECONFIG": "/chosen", "ENSIGN_TEST_ALLOW_REMOTE": "yes"},
        )
        self.assertEqual(env["KUBECONFIG"], "/tmp/ours")
        self.assertEqual(env["AZURE_TENANT_ID"], "t")
        self.assertEqual(env["ENSIGN_TEST_KUBECONFIG"], "/chosen")
        self.assertEqual(env["ENSIGN_TEST_ALLOW_REMOTE"], "yes")

    def test_excludes_loopback_from_proxies(self):
        env = children.environment(base={"NO_PROXY": "example.com,127.0.0.1"})
        self.assertEqual(env["NO_PROXY"], "example.com,127.0.0.1,::1,localhost")
        self.assertEqual(env["no_proxy"], "127.0.0.1,::1,localhost")


class RunningACommand(unittest.TestCase):
    def test_a_failure_contains_the_command_and_its_error_output(self):
        with self.assertRaises(children.CommandFailed) as failed:
            children.output(["/bin/sh", "-c", "echo broken >&2; exit 3"])
        self.assertEqual(failed.exception.status, 3)
        self.assertIn("/bin/sh", str(failed.exception))
        self.assertIn("broken", str(failed.exception))

    def test_ending_a_command_also_ends_its_children(self):
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        script = f"sleep 600 & echo $! >&{writer}; wait"
        process = children.start(["/bin/sh", "-c", script], pass_fds=[writer])
        os.close(writer)
        self.assertTrue(os.read(reader, 100), "the grandchild never started")
        children.end(process)
        self.assertIsNotNone(process.poll())
        # The grandchild held the pipe: its end is the end of the pipe.
        self.assertEqual(os.read(reader, 100), b"")

    def test_a_timeout_has_its_own_exit_status(self):
        self.assertEqual(children.run(["/bin/sh", "-c", "sleep 600"], Path("/"), timeout=0.01), 124)
        self.assertEqual(children.run(["/bin/sh", "-c", "exit 4"], Path("/"), timeout=60), 4)


if __name__ == "__main__":
    unittest.main()
