"""The chart on a real control plane: install, upgrade under load, uninstall.

Ensign's processes run as specified in the pods of the chart's Deployments, with the tokens of their service accounts.
"""

import json
import unittest

from chart_values import NAMESPACE, RELEASE
from ensign_dev import paths
from scene import ADMISSION, POLICIES, REGISTRATION, SECRET, Load, Scene, is_injected

SERVICE = f"/api/v1/namespaces/{NAMESPACE}/services/ensign-webhook"
BINDINGS = [one.replace("policies/", "policybindings/") for one in POLICIES]
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class TheChart(unittest.TestCase):
    def setUp(self):
        self.scene = Scene()
        self.addCleanup(self.scene.close)

    def test_is_installed_upgraded_under_load_and_uninstalled(self):
        scene = self.scene
        scene.install("--set", "injection.mode=webhook")
        scene.rolled_out()
        scene.bound()
        self.injects_pods_through_the_webhooks_service()
        by_webhook = ("--set", "injection.mode=webhook")
        # Server-side apply is Helm 4's default; client-side apply is that of Helm 3 and `kubectl apply`.
        for method in ("true", "false"):
            self.upgrades_under_load(method, *by_webhook)
        self.switches_to_policies_under_load()
        for method in ("true", "false"):
            self.upgrades_under_load(method)
        self.can_be_applied_with_kubectl_without_changing_what_is_filled_in()
        self.leaves_nothing_that_blocks_pods()
        self.can_be_applied_and_pruned_with_kubectl()
        self.cleans_up_azure_with_the_teardown_hook()

    def injects_pods_through_the_webhooks_service(self):
        scene = self.scene
        scene.until("a pod to be injected", lambda: is_injected(scene.admitted() or no_pod()))
        scene.enforced()
        address = scene.api.get(SERVICE)["spec"]["clusterIP"]
        self.assertIn(f"CONNECT {address}:443 HTTP/1.1", scene.network.requests)
        self.assertEqual(len(scene.pods.webhook_ports()), 2)
        for entry in scene.api.get(REGISTRATION)["webhooks"]:
            self.assertEqual(entry["clientConfig"]["service"]["name"], "ensign-webhook")

    def upgrades_under_load(self, method, *arguments):
        scene = self.scene
        before, pods = scene.filled_in(), set(scene.pods.running)
        load = Load(scene)
        # An additional annotation, so that every pod is replaced.
        scene.upgrade(
            *arguments, f"--server-side={method}", "--set-string", f"controller.podAnnotations.method={method}",
            "--set-string", f"webhook.podAnnotations.method={method}",
        )
        self.assertEqual(scene.filled_in(), before, "an upgrade changed what is filled in at run time")
        scene.rolled_out()
        self.assertFalse(pods & set(scene.pods.running), "a pod was not replaced")
        count, errors = load.end()
        self.assertEqual(errors, [], f"of {count} pods")
        self.assertEqual(scene.filled_in(), before, "a rollout changed what is filled in at run time")

    def switches_to_policies_under_load(self):
        scene = self.scene
        load = Load(scene)
        scene.upgrade()
        scene.rolled_out()
        scene.until("the webhook to be unregistered", lambda: not scene.api.get(REGISTRATION).get("webhooks"))
        _, errors = load.end()
        # An API server that starts to watch bindings refuses rather than leave a pod without its identity.
        self.assertEqual([one for one in errors if "not yet synced" not in one], [])
        self.assertTrue(is_injected(scene.admitted()))
        for policy, binding in zip(POLICIES, BINDINGS):
            (owner,) = scene.api.get(policy)["metadata"]["ownerReferences"]
            self.assertEqual(owner["uid"], scene.api.get(binding)["metadata"]["uid"])

    def can_be_applied_with_kubectl_without_changing_what_is_filled_in(self):
        scene = self.scene
        before = scene.filled_in()
        self.assertTrue(all(before[policy] for policy in POLICIES))
        for method in (["--server-side", "--force-conflicts"], []):
            scene.kubectl("apply", *method, "-f", "-", stdin=scene.render(), timeout=120)
            self.assertEqual(scene.filled_in(), before, f"kubectl apply {method}")
        scene.rolled_out()

    def leaves_nothing_that_blocks_pods(self):
        scene = self.scene
        output = scene.uninstall()
        self.assertIn("managedidentitybindings.ensign.dev", output)
        self.assertIsNone(scene.api.find(REGISTRATION))
        self.is_uninstalled()

    def is_uninstalled(self):
        scene = self.scene
        scene.until("the policies to be deleted with their bindings", lambda: not any(scene.api.find(one) for one in POLICIES))
        # The API server observes their deletion a moment later.
        scene.until("pods to be admitted unchanged", lambda: not is_injected(scene.admitted(labelled=True) or injected_pod()))
        # The CRDs are kept, and with them the users' objects.
        for kind in ("managedidentities", "managedidentitybindings"):
            scene.api.get(f"{CRDS}/{kind}.ensign.dev")
        scene.api.get("/apis/ensign.dev/v1alpha1/managedidentities/orders")
        scene.until("Ensign's pods to be gone", lambda: not scene.pods.running)
        left = scene.kubectl(
            "get", "clusterroles,clusterrolebindings,validatingadmissionpolicies,mutatingwebhookconfigurations",
            "-l", f"app.kubernetes.io/instance={RELEASE}", "-o", "name",
        )
        self.assertEqual(left, "")

    def can_be_applied_and_pruned_with_kubectl(self):
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
            # Prune all objects of the release.
            last = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
                "name": "last", "namespace": NAMESPACE, "labels": {"app.kubernetes.io/instance": RELEASE}}}
            scene.kubectl(
                "apply", "--prune", "-l", f"app.kubernetes.io/instance={RELEASE}", *kinds, "-f", "-",
                stdin=json.dumps(last), timeout=120,
            )
            self.assertIsNone(scene.api.find(REGISTRATION))
            self.assertIsNone(scene.api.find(SECRET))
            self.is_uninstalled()

    def cleans_up_azure_with_the_teardown_hook(self):
        scene = self.scene
        hook = ("--set", "teardown.hook=true")
        scene.install(*hook)
        scene.rolled_out()
        scene.bound()
        self.assertEqual(len(scene.credentials()), 1)
        scene.uninstall()
        self.assertEqual(scene.credentials(), [], "a credential was left in Azure")
        self.is_uninstalled()
        for path in ("managedidentities/orders", "namespaces/shop/managedidentitybindings/orders"):
            left = scene.api.get(f"/apis/ensign.dev/v1alpha1/{path}")
            self.assertNotIn("finalizers", left["metadata"], "it could no longer be deleted")
        scene.kubectl("delete", "namespace", "shop", "--timeout=60s", timeout=90)


def injected_pod():
    return {"spec": {"containers": [{"env": [{"name": "AZURE_CLIENT_ID"}]}]}}


def no_pod():
    return {"spec": {"containers": [{}]}}


if __name__ == "__main__":
    unittest.main()
