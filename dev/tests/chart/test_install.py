"""The chart on the real control plane: installed, used, upgraded under load, removed.

Ensign's processes run as the pods of the chart's Deployments say, with the tokens of their service accounts.
"""

import json
import unittest

from chart_values import NAMESPACE, RELEASE
from ensign_dev import paths
from scene import ADMISSION, POLICIES, REGISTRATION, SECRET, Load, Scene, is_injected

SERVICE = f"/api/v1/namespaces/{NAMESPACE}/services/ensign-webhook"
BINDINGS = [one.replace("policies/", "policybindings/") for one in POLICIES]
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class TheChart(unittest.TestCase):
    def setUp(self):
        self.scene = Scene()
        self.addCleanup(self.scene.close)

    def test_is_installed_upgraded_under_load_and_removed(self):
        scene = self.scene
        scene.install("--set", "injection.mode=webhook")
        scene.rolled_out()
        scene.bound()
        self.injects_by_the_webhook_behind_its_service()
        by_webhook = ("--set", "injection.mode=webhook")
        # Helm 4's way, and the one of Helm 3 and of `kubectl apply`.
        for way in ("true", "false"):
            self.upgrades_under_load(way, *by_webhook)
        self.goes_over_to_policies_under_load()
        for way in ("true", "false"):
            self.upgrades_under_load(way)
        self.is_applied_by_kubectl_without_a_change_of_what_is_filled_in()
        self.leaves_nothing_in_the_way_when_it_goes()
        self.is_applied_and_pruned_by_kubectl()
        self.takes_everything_along_where_it_is_asked_to()

    def injects_by_the_webhook_behind_its_service(self):
        scene = self.scene
        scene.until("a pod to be injected", lambda: is_injected(scene.admitted() or no_pod()))
        scene.asked()
        address = scene.api.get(SERVICE)["spec"]["clusterIP"]
        self.assertIn(f"CONNECT {address}:443 HTTP/1.1", scene.network.asked)
        self.assertEqual(len(scene.pods.webhook_ports()), 2)
        for entry in scene.api.get(REGISTRATION)["webhooks"]:
            self.assertEqual(entry["clientConfig"]["service"]["name"], "ensign-webhook")

    def upgrades_under_load(self, way, *arguments):
        scene = self.scene
        before, pods = scene.filled_in(), set(scene.pods.running)
        load = Load(scene)
        # One annotation more, so that every pod is replaced.
        scene.upgrade(
            *arguments, f"--server-side={way}", "--set-string", f"controller.podAnnotations.way={way}",
            "--set-string", f"webhook.podAnnotations.way={way}",
        )
        self.assertEqual(scene.filled_in(), before, "an upgrade changed what is filled in at run time")
        scene.rolled_out()
        self.assertFalse(pods & set(scene.pods.running), "a pod was not replaced")
        count, wrong = load.end()
        self.assertEqual(wrong, [], f"of {count} pods")
        self.assertEqual(scene.filled_in(), before, "a rollout changed what is filled in at run time")

    def goes_over_to_policies_under_load(self):
        scene = self.scene
        load = Load(scene)
        scene.upgrade()
        scene.rolled_out()
        scene.until("the webhook to be registered no longer", lambda: not scene.api.get(REGISTRATION).get("webhooks"))
        _, wrong = load.end()
        # An API server that starts to watch bindings refuses rather than leave a pod without its identity.
        self.assertEqual([one for one in wrong if "not yet synced" not in one], [])
        self.assertTrue(is_injected(scene.admitted()))
        for policy, binding in zip(POLICIES, BINDINGS):
            (owner,) = scene.api.get(policy)["metadata"]["ownerReferences"]
            self.assertEqual(owner["uid"], scene.api.get(binding)["metadata"]["uid"])

    def is_applied_by_kubectl_without_a_change_of_what_is_filled_in(self):
        scene = self.scene
        before = scene.filled_in()
        self.assertTrue(all(before[policy] for policy in POLICIES))
        for way in (["--server-side", "--force-conflicts"], []):
            scene.kubectl("apply", *way, "-f", "-", stdin=scene.render(), timeout=120)
            self.assertEqual(scene.filled_in(), before, f"kubectl apply {way}")
        scene.rolled_out()

    def leaves_nothing_in_the_way_when_it_goes(self):
        scene = self.scene
        said = scene.uninstall()
        self.assertIn("managedidentitybindings.ensign.dev", said)
        self.assertIsNone(scene.api.find(REGISTRATION))
        self.is_out_of_the_way()

    def is_out_of_the_way(self):
        scene = self.scene
        scene.until("the policies to follow their bindings", lambda: not any(scene.api.find(one) for one in POLICIES))
        # The API server takes in a moment later that they are gone.
        scene.until("pods to be taken as they are", lambda: not is_injected(scene.admitted(labelled=True) or injected_pod()))
        # The definitions stay, and with them what people wrote.
        for kind in ("managedidentities", "managedidentitybindings"):
            scene.api.get(f"{DEFINITIONS}/{kind}.ensign.dev")
        scene.api.get("/apis/ensign.dev/v1alpha1/managedidentities/orders")
        scene.until("Ensign's pods to be gone", lambda: not scene.pods.running)
        left = scene.kubectl(
            "get", "clusterroles,clusterrolebindings,validatingadmissionpolicies,mutatingwebhookconfigurations",
            "-l", f"app.kubernetes.io/instance={RELEASE}", "-o", "name",
        )
        self.assertEqual(left, "")

    def is_applied_and_pruned_by_kubectl(self):
        scene = self.scene
        for mode in ("webhook", "auto"):
            scene.kubectl("apply", "-f", "-", stdin=scene.render("--set", f"injection.mode={mode}"), timeout=120)
            scene.rolled_out()
            scene.until("a pod to be injected", lambda: is_injected(scene.admitted() or no_pod()))
            kinds = [
                word for kind in (
                    "rbac.authorization.k8s.io/v1/ClusterRole", "rbac.authorization.k8s.io/v1/ClusterRoleBinding",
                    "rbac.authorization.k8s.io/v1/Role", "rbac.authorization.k8s.io/v1/RoleBinding",
                    "apps/v1/Deployment", "core/v1/Service", "core/v1/Secret", "core/v1/ServiceAccount",
                    "policy/v1/PodDisruptionBudget", "networking.k8s.io/v1/NetworkPolicy", "coordination.k8s.io/v1/Lease",
                    "apiextensions.k8s.io/v1/CustomResourceDefinition",
                    *(f"{ADMISSION[6:]}/{kind}" for kind in (
                        "MutatingWebhookConfiguration", "MutatingAdmissionPolicyBinding",
                        "ValidatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy")),
                ) for word in ("--prune-allowlist", kind)
            ]
            # Nothing of the release is wanted any more.
            last = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
                "name": "last", "namespace": NAMESPACE, "labels": {"app.kubernetes.io/instance": RELEASE}}}
            scene.kubectl(
                "apply", "--prune", "-l", f"app.kubernetes.io/instance={RELEASE}", *kinds, "-f", "-",
                stdin=json.dumps(last), timeout=120,
            )
            self.assertIsNone(scene.api.find(REGISTRATION))
            self.assertIsNone(scene.api.find(SECRET))
            self.is_out_of_the_way()

    def takes_everything_along_where_it_is_asked_to(self):
        scene = self.scene
        hook = ("--set", "teardown.hook=true")
        scene.install(*hook)
        scene.rolled_out()
        scene.bound()
        self.assertEqual(len(scene.credentials()), 1)
        scene.uninstall()
        self.assertEqual(scene.credentials(), [], "a credential outlived its install")
        self.is_out_of_the_way()
        for path in ("managedidentities/orders", "namespaces/shop/managedidentitybindings/orders"):
            left = scene.api.get(f"/apis/ensign.dev/v1alpha1/{path}")
            self.assertNotIn("finalizers", left["metadata"], "deleted now, it would wait for nobody")
        scene.kubectl("delete", "namespace", "shop", "--timeout=60s", timeout=90)


def injected_pod():
    return {"spec": {"containers": [{"env": [{"name": "AZURE_CLIENT_ID"}]}]}}


def no_pod():
    return {"spec": {"containers": [{}]}}


if __name__ == "__main__":
    unittest.main()
