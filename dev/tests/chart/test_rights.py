"""The permissions that the chart grants: bindings to app teams, and only its own objects and fields to the controller.

The golden files are meant for review. ENSIGN_UPDATE_GOLDEN=1 updates them.
"""

import os
import unittest
from pathlib import Path

from api import Refused
from chart_values import NAMESPACE, SETS
from ensign_dev import paths
from scene import MONITORS, Scene

GOLDEN = Path(__file__).resolve().parent / "golden"
KINDS = "/apis/ensign.dev/v1alpha1"
BINDING = f"{KINDS}/namespaces/shop/managedidentitybindings/orders"
IDENTITY = f"{KINDS}/managedidentities/orders"
# Permissions that an app team needs, and permissions that it must not have.
QUESTIONS = [
    (verb, resource, namespace)
    for resource in ("managedidentitybindings", "managedidentitybindings/status", "managedidentities", "managedidentities/status")
    for verb in ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
    for namespace in ("shop", "other")
]


class Permissions(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scene = Scene()
        cls.addClassCleanup(cls.scene.close)
        cls.scene.install("--set", "injection.mode=webhook", "--set", "policies.namespaceLabels={team}")
        cls.scene.rolled_out()
        cls.scene.bound()
        cls.scene.enforced()

    def golden(self, name, lines):
        file, text = GOLDEN / name, "\n".join(lines) + "\n"
        if os.environ.get("ENSIGN_UPDATE_GOLDEN") == "1":
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        self.assertEqual(text, file.read_text(), f"{name} differs; ENSIGN_UPDATE_GOLDEN=1 updates it")

    def token(self, namespace, account):
        return self.scene.kubectl.token(namespace, account, 3600)

    def test_of_app_teams_match_the_golden_file(self):
        scene = self.scene
        scene.kubectl("create", "namespace", "other")
        for role in ("view", "edit", "admin"):
            scene.kubectl("create", "serviceaccount", role, "-n", "shop")
            scene.kubectl("create", "rolebinding", role, f"--clusterrole={role}", f"--serviceaccount=shop:{role}", "-n", "shop")
        lines = []
        for role in ("view", "edit", "admin"):
            user = f"system:serviceaccount:shop:{role}"
            scene.until(
                "the roles to be aggregated",
                lambda: self.may(user, "get", "managedidentitybindings", "shop")
                and (role == "view" or self.may(user, "create", "managedidentitybindings", "shop")),
            )
            for verb, resource, namespace in QUESTIONS:
                answer = "yes" if self.may(user, verb, resource, namespace) else "no"
                lines.append(f"{role:<6} {verb:<17} {resource:<31} in {namespace:<6} {answer}")
        self.golden("app-teams.txt", lines)
        allowed = [line for line in lines if line.endswith("yes")]
        self.assertFalse([line for line in allowed if "status" in line or "managedidentities " in line or " other " in line])

    def may(self, user, verb, resource, namespace):
        resource, _, subresource = resource.partition("/")
        attributes = {
            "group": "ensign.dev", "resource": resource, "subresource": subresource, "verb": verb, "namespace": namespace,
        }
        spec = {"user": user, "groups": ["system:serviceaccounts", "system:authenticated"], "resourceAttributes": attributes}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        return self.scene.api.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", body)["status"]["allowed"]

    def test_of_the_controller_are_limited_to_its_own_objects_and_fields(self):
        scene = self.scene
        controller = scene.api.as_bearer(self.token(NAMESPACE, "ensign-controller"))
        self.addCleanup(controller.close)
        pod = {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "gated", "labels": {"ensign.dev/gated": "true", "app": "x"}, "finalizers": ["example.com/theirs"]},
            "spec": {
                "schedulingGates": [{"name": "ensign.dev/identity"}, {"name": "example.com/theirs"}],
                "containers": [{"name": "app", "image": "app:1"}], "automountServiceAccountToken": False,
            },
        }
        # A running controller would ungate the pod meanwhile.
        scene.kubectl("scale", "deployment/ensign-controller", "-n", NAMESPACE, "--replicas=0")
        scene.until("the controllers to exit", lambda: all(one.account != "ensign-controller" for one in list(scene.pods.running.values())))
        path = "/api/v1/namespaces/kube-system/pods"
        scene.until("the service account", lambda: scene.api.find("/api/v1/namespaces/kube-system/serviceaccounts/default"))
        scene.api.post(path, pod)
        path += "/gated"
        violations = [
            (path, [{"op": "replace", "path": "/spec/containers/0/image", "value": "evil:1"}], "the spec of a pod"),
            (path, [{"op": "add", "path": "/spec/tolerations/-", "value": {"operator": "Exists"}}], "the spec of a pod"),
            (path, [{"op": "add", "path": "/spec/nodeSelector", "value": {"a": "b"}}], "the spec of a pod"),
            (path, [{"op": "add", "path": "/spec/activeDeadlineSeconds", "value": 5}], "the spec of a pod"),
            (path, [{"op": "remove", "path": "/spec/schedulingGates/1"}], "the scheduling gates of a pod"),
            (path, [{"op": "replace", "path": "/metadata/labels/app", "value": "y"}], "the metadata of a pod"),
            (path, [{"op": "add", "path": "/metadata/labels/more", "value": "y"}], "the metadata of a pod"),
            (path, [{"op": "remove", "path": "/metadata/labels/app"}], "the metadata of a pod"),
            (path, [{"op": "add", "path": "/metadata/annotations", "value": {"a": "b"}}], "the metadata of a pod"),
            (path, [{"op": "remove", "path": "/metadata/finalizers"}], "the metadata of a pod"),
            (IDENTITY, [{"op": "replace", "path": "/spec/allowedSubjects/0/serviceAccounts", "value": ["*"]}], "an object of ensign.dev"),
            (IDENTITY, [{"op": "add", "path": "/metadata/annotations", "value": {"ensign.dev/abandon": "true"}}], "an object of ensign.dev"),
            (BINDING, [{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}], "an object of ensign.dev"),
            (BINDING, [{"op": "add", "path": "/metadata/finalizers/-", "value": "example.com/theirs"}], "an object of ensign.dev"),
            ("/api/v1/namespaces/shop/serviceaccounts/orders",
             [{"op": "add", "path": "/metadata/annotations", "value": {"eks.amazonaws.com/role-arn": "x"}}], "a service account"),
            ("/api/v1/namespaces/shop/serviceaccounts/orders",
             [{"op": "add", "path": "/imagePullSecrets", "value": [{"name": "x"}]}], "a service account"),
        ]
        for where, patch, words in violations:
            with self.assertRaises(Refused, msg=f"{where} {patch}") as raised:
                controller.patch(f"{where}?dryRun=All", patch, "json")
            self.assertIn("limit-controller.ensign.dev", raised.exception.message, patch)
            self.assertIn(words, raised.exception.message)
        own = {
            "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentity", "metadata": {"name": "mib-1"},
            "spec": {
                **scene.api.get(IDENTITY)["spec"], "className": "own", "claimRef": {"namespace": "shop", "name": "own", "uid": "1"},
            },
        }
        unclaimed = {**own, "spec": {name: value for name, value in own["spec"].items() if name != "claimRef"}}
        for identity in (unclaimed, {**own, "metadata": {"name": "mib-2"}}):
            with self.assertRaises(Refused, msg=f"{identity}") as raised:
                controller.post(f"{KINDS}/managedidentities?dryRun=All", identity)
            self.assertIn("may only create and delete ManagedIdentities", raised.exception.message)
        with self.assertRaises(Refused) as raised:
            controller.delete(f"{IDENTITY}?dryRun=All")
        self.assertIn("may only create and delete ManagedIdentities", raised.exception.message)
        # It may write its own objects and fields.
        controller.post(f"{KINDS}/managedidentities?dryRun=All", own)
        ungate = [{"op": "remove", "path": "/spec/schedulingGates/0"}, {"op": "remove", "path": "/metadata/labels/ensign.dev~1gated"}]
        ungated = controller.patch(f"{path}?dryRun=All", ungate, "json")
        self.assertEqual(ungated["spec"]["schedulingGates"], [{"name": "example.com/theirs"}])
        annotate = {"metadata": {"annotations": {"azure.workload.identity/client-id": "x"}}}
        controller.patch("/api/v1/namespaces/shop/serviceaccounts/orders?dryRun=All", annotate)
        controller.patch(f"{BINDING}?dryRun=All", [{"op": "replace", "path": "/metadata/finalizers", "value": []}], "json")
        # It may neither write the policy that restricts it, nor put a policy into effect.
        for where in ("validatingadmissionpolicies/limit-controller.ensign.dev",
                      "validatingadmissionpolicybindings/limit-controller.ensign.dev",
                      "mutatingadmissionpolicybindings/pods.ensign.dev"):
            with self.assertRaises(Refused) as raised:
                controller.patch(f"/apis/admissionregistration.k8s.io/v1/{where}?dryRun=All", {"metadata": {"labels": {"a": "b"}}})
            self.assertEqual(raised.exception.status, 403)
        # Other users are not restricted.
        scene.api.patch(f"{path}?dryRun=All", {"metadata": {"labels": {"more": "y"}}})

    def test_to_label_namespaces_are_reserved_for_cluster_operators(self):
        scene = self.scene
        scene.kubectl("create", "clusterrole", "labeller", "--verb=get,create,update,patch", "--resource=namespaces,namespaces/status")
        scene.kubectl("create", "serviceaccount", "labeller", "-n", "default")
        scene.kubectl("create", "clusterrolebinding", "labeller", "--clusterrole=labeller", "--serviceaccount=default:labeller")
        labeller = scene.api.as_bearer(self.token("default", "labeller"))
        self.addCleanup(labeller.close)
        team = {"metadata": {"labels": {"team": "orders"}}}
        for path in ("/api/v1/namespaces/shop", "/api/v1/namespaces/shop/status"):
            with self.assertRaises(Refused) as raised:
                labeller.patch(f"{path}?dryRun=All", team)
            self.assertIn("namespace labels team decide who may use identities", raised.exception.message)
        with self.assertRaises(Refused):
            labeller.post("/api/v1/namespaces?dryRun=All", {"metadata": {"name": "new", "labels": {"team": "orders"}}})
        labeller.patch("/api/v1/namespaces/shop?dryRun=All", {"metadata": {"labels": {"other": "x"}}})
        scene.kubectl("create", "clusterrolebinding", "operator", "--clusterrole=ensign-operator", "--serviceaccount=default:labeller")
        scene.until("an operator to be allowed", lambda: self.labels(labeller, team))

    @staticmethod
    def labels(api, change):
        try:
            return api.patch("/api/v1/namespaces/shop?dryRun=All", change)
        except Refused:
            return None


class Rendered(unittest.TestCase):
    def test_is_accepted_by_the_api_server_with_every_set_of_values(self):
        scene = Scene()
        self.addCleanup(scene.close)
        for plural, kind in MONITORS.items():
            scene.api.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", monitor(plural, kind))
        scene.kubectl("create", "-f", str(paths.ROOT / "crds"), timeout=60)
        scene.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        version = scene.api.get("/version")["gitVersion"]
        for values in SETS:
            with self.subTest(values.name):
                text = scene.helm(
                    "template", "ensign", values.parents[1], "-n", NAMESPACE, "--values", values, "--kube-version", version
                )
                answer = scene.kubectl.try_(
                    "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", "-o", "json", stdin=text, timeout=120
                )
                self.assertEqual(answer.status, 0, answer.error)
                # Pod Security warns if it would reject the pods.
                self.assertNotIn("would violate PodSecurity", answer.error)
                self.assertNotIn("Warning", answer.error)


def monitor(plural, kind):
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com", "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": True}}}],
        },
    }


if __name__ == "__main__":
    unittest.main()
