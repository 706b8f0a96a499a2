import os
import sys
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensign_dev import chosen_cluster, control_plane, paths  # noqa: E402


class TheBuild(unittest.TestCase):
    def test_takes_its_version_from_go_mod(self):
        go_mod = "require (\n\tk8s.io/api v0.37.2\n\tk8s.io/kubernetes v1.37.2\n)\n"
        self.assertEqual(control_plane.kubernetes_version(go_mod), "v1.37.2")

    def test_rejects_a_go_mod_without_a_released_version(self):
        for go_mod in ("", "require k8s.io/kubernetesque v1.0.0", "\tk8s.io/kubernetes v1.38.0-alpha.1\n"):
            with self.assertRaises(control_plane.BuildFailed):
                control_plane.kubernetes_version(go_mod)

    def test_sets_the_version_in_both_packages_that_upstream_uses(self):
        stamp = control_plane.version_stamp("v1.37.2", "2026-01-02T03:04:05Z")
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
            for setting in ("gitVersion=v1.37.2", "gitMajor=1", "gitMinor=37", "buildDate=2026-01-02T03:04:05Z"):
                self.assertIn(f"-X {package}.{setting}", stamp)

    def test_is_cached_by_its_sources_but_not_by_their_tests(self):
        names = {file.name for file in control_plane.sources()}
        self.assertLessEqual({"main.go", "go.mod", "go.sum"}, names)
        self.assertFalse([name for name in names if name.endswith("_test.go")])
        self.assertTrue(all(paths.CONTROL_PLANE_SOURCE in file.parents for file in control_plane.sources()))

    def test_is_skipped_if_the_caller_names_both_binaries(self):
        named = {"ENSIGN_CONTROL_PLANE": "/x/control-plane", "ENSIGN_KUBECTL": "/x/kubectl"}
        with mock.patch.dict(os.environ, named):
            self.assertEqual(control_plane.chosen(), (Path("/x/control-plane"), Path("/x/kubectl")))
        with mock.patch.dict(os.environ, {"ENSIGN_CONTROL_PLANE": "/x/control-plane"}):
            os.environ.pop("ENSIGN_KUBECTL", None)
            self.assertIsNone(control_plane.chosen())


class TheClusterForTests(unittest.TestCase):
    LOOPBACK = ["https://127.0.0.1:6443", "https://127.9.9.9", "https://localhost:6443", "https://[::1]:6443/prefix"]
    ELSEWHERE = [
        "https://10.0.0.1:6443",
        "https://example.com",
        "https://localhost.example.com",
        "https://127.0.0.1.example.com",
        "https://127.0.0.1@example.com",
        "https://[2001:db8::1]:6443",
        "https://0.0.0.0:6443",
        "https://[::ffff:10.0.0.1]:6443",
        "127.0.0.1:6443",
        "https://[",
        "",
    ]

    def test_may_be_on_loopback(self):
        for server in self.LOOPBACK:
            self.assertIsNone(chosen_cluster.problem(server, None), server)

    def test_is_rejected_elsewhere_and_the_message_names_the_override(self):
        for server in self.ELSEWHERE:
            message = chosen_cluster.problem(server, None)
            self.assertIsNotNone(message, server)
            self.assertIn("ENSIGN_TEST_ALLOW_REMOTE=yes", message)
            self.assertIn(server, message)

    def test_may_be_remote_only_if_the_override_is_exactly_yes(self):
        self.assertIsNone(chosen_cluster.problem("https://example.com", "yes"))
        for word in (None, "", "no", "1", "true", "YES"):
            self.assertIsNotNone(chosen_cluster.problem("https://example.com", word), word)

    def test_is_never_the_ambient_one(self):
        missing = control_plane.Binaries(Path("/nowhere"), Path("/nowhere"))
        self.assertIsNone(chosen_cluster.check(missing, {"KUBECONFIG": "/home/me/.kube/config"}))


if __name__ == "__main__":
    unittest.main()
