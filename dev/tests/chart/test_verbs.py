"""Ensign uses all permissions that the chart grants, and no others, according to the audit log of a cluster.

golden/verbs.txt is meant for review: it lists each permission with its objects. ENSIGN_UPDATE_GOLDEN=1 updates it.
"""

import json
import os
import re
import unittest
from pathlib import Path

from chart_values import NAMESPACE
from scene import POLICIES, REGISTRATION, SECRET, Scene, is_injected, pod

GOLDEN = Path(__file__).resolve().parent / "golden" / "verbs.txt"
ACCOUNTS = {f"system:serviceaccount:{NAMESPACE}:{name}": name for name in ("ensign-controller", "ensign-webhook")}
RBAC = "/apis/rbac.authorization.k8s.io/v1"
KINDS = "/apis/ensign.dev/v1alpha1"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/ensign-controller"
# Kubernetes grants these to every authenticated user.
DISCOVERY = re.compile(r"^/(api|apis|openapi|version|\.well-known|healthz|livez|readyz)(/[^/]+(/v[^/]+)?)?$")
# Permissions that this test does not exercise, and what they are needed for.
NOT_EXERCISED = {
    ("ensign-controller", "events.k8s.io/events", "", "patch"): "to increase the count of an event that recurs within minutes",
}


class Verbs(unittest.TestCase):
    maxDiff = None

    def test_that_are_granted_are_exactly_those_that_are_used(self):
        scene = Scene()
        self.addCleanup(scene.close)
        self.exercise(scene)
        granted = permissions(scene)
        used, beyond = uses(scene, granted)
        self.assertEqual(beyond, [], "requests that the chart does not grant")
        unused = granted - used - set(NOT_EXERCISED)
        self.assertEqual(sorted(unused), [], "granted but not used")
        self.assertLessEqual(set(NOT_EXERCISED), granted)
        lines = [f"{account:<18} {verb:<7} {resource}{f' {name}' if name else ''}" for account, resource, name, verb in sorted(granted)]
        text = "\n".join(lines) + "\n"
        if os.environ.get("ENSIGN_UPDATE_GOLDEN") == "1":
            GOLDEN.parent.mkdir(exist_ok=True)
            GOLDEN.write_text(text)
        self.assertEqual(text, GOLDEN.read_text(), "verbs.txt differs; ENSIGN_UPDATE_GOLDEN=1 updates it")

    def exercise(self, scene):
        """Makes Ensign do once everything that it does in a cluster."""
        propagation = ("--set", "azure.propagationDelay=20s")
        scene.install("--set", "injection.mode=webhook", *propagation)
        scene.rolled_out()
        scene.enforced()
        scene.kubectl("create", "namespace", "not-allowed")
        scene.kubectl("create", "serviceaccount", "orders", "-n", "not-allowed")
        not_accepted = binding("not-accepted", {"serviceAccountName": "orders"})
        scene.kubectl("create", "-n", "not-allowed", "-f", "-", stdin=json.dumps(not_accepted))
        scene.kubectl("create", "namespace", "shop")
        scene.kubectl("create", "serviceaccount", "orders", "-n", "shop")
        scene.kubectl("apply", "-f", "-", stdin=json.dumps(identity(scene)))
        accepted = binding("orders", {"serviceAccountName": "orders", "injection": {"annotateServiceAccount": True}})
        scene.kubectl("create", "-n", "shop", "-f", "-", stdin=json.dumps(accepted))
        gated = scene.until("a gated pod", lambda: self.gated(scene))
        path = f"/api/v1/namespaces/shop/pods/{gated}"
        scene.until("the pod to be ungated", lambda: not scene.api.get(path)["spec"].get("schedulingGates"))
        account = "/api/v1/namespaces/shop/serviceaccounts/orders"
        scene.until("the service account to be annotated", lambda: scene.api.get(account)["metadata"].get("annotations"))
        # A dedicated identity is created and deleted with its binding.
        scene.kubectl("create", "-f", "-", stdin=json.dumps(identity_class(scene)))
        own = {"serviceAccountName": "own", "identityRef": {"kind": "ManagedIdentityClass", "name": "own"}}
        scene.kubectl("create", "-n", "shop", "-f", "-", stdin=json.dumps(binding("own", own)))
        scene.kubectl("wait", "-n", "shop", "managedidentitybinding/own", "--for=condition=Ready", "--timeout=120s")
        scene.kubectl("delete", "-n", "shop", "managedidentitybinding", "own", "--timeout=60s")
        scene.until("the identity to be deleted with its binding", lambda: len(scene.api.get(f"{KINDS}/managedidentities")["items"]) == 1)
        # A new CA signs only after the webhook has seen it in the webhook configuration.
        scene.api.patch(SECRET, {"metadata": {"annotations": {"ensign.dev/rotate-ca": "now"}}})
        scene.until("the webhook to read its registration", lambda: has_read_registration(scene))
        scene.upgrade(*propagation)
        scene.rolled_out()
        scene.until("the webhook to be unregistered", lambda: not scene.api.get(REGISTRATION).get("webhooks"))
        # Switching back disables the policies.
        scene.upgrade("--set", "injection.mode=webhook", *propagation)
        scene.rolled_out()
        scene.until("the webhook to be registered", lambda: scene.api.get(REGISTRATION).get("webhooks"))
        scene.until("the policies to be disabled", lambda: all(inert(scene.api.get(one)) for one in POLICIES))
        scene.kubectl("delete", "-n", "shop", "managedidentitybinding", "orders", "--timeout=60s")
        old = scene.api.get(LEASE)["metadata"]["uid"]
        scene.api.delete(LEASE)
        scene.until("the Lease to be recreated", lambda: (scene.api.find(LEASE) or {}).get("metadata", {}).get("uid") not in (None, old))

    @staticmethod
    def gated(scene):
        """Creates a pod and returns its name, but only if it is injected and gated at the moment; otherwise returns None."""
        created = scene.api.post("/api/v1/namespaces/shop/pods?dryRun=All", pod(False, "orders"))
        if not is_injected(created) or not created["spec"].get("schedulingGates"):
            return None
        return scene.api.post("/api/v1/namespaces/shop/pods", pod(False, "orders"))["metadata"]["name"]


def has_read_registration(scene):
    """Whether the webhook has read its registration."""
    name = f"system:serviceaccount:{NAMESPACE}:ensign-webhook"
    return any(
        event["user"]["username"] == name and event["objectRef"].get("resource") == "mutatingwebhookconfigurations"
        for event in scene.audit() if event.get("objectRef")
    )


def inert(policy):
    expressions = policy["spec"]["matchConstraints"]["namespaceSelector"].get("matchExpressions", [{}])
    return expressions[0].get("operator") == "DoesNotExist"


def identity(scene):
    resource = (
        f"/subscriptions/{scene.azure['subscription_id']}/resourceGroups/{scene.azure['resource_group']}"
        "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders"
    )
    subject = {"name": "orders", "namespace": "shop", "serviceAccounts": ["orders"]}
    return {
        "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentity", "metadata": {"name": "orders"},
        "spec": {"existing": {"resourceID": resource}, "allowedSubjects": [subject]},
    }


def identity_class(scene):
    provision = {
        "subscriptionID": scene.azure["subscription_id"], "resourceGroup": scene.azure["resource_group"],
        "location": scene.azure["location"],
    }
    subject = {"name": "own", "namespace": "shop", "serviceAccounts": ["own"]}
    return {
        "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityClass", "metadata": {"name": "own"},
        "spec": {"provision": provision, "allowedSubjects": [subject]},
    }


def binding(name, spec):
    return {
        "apiVersion": "ensign.dev/v1alpha1", "kind": "ManagedIdentityBinding", "metadata": {"name": name},
        "spec": {"identityRef": {"name": "orders"}, **spec},
    }


def permissions(scene):
    """Returns what the chart's roles grant to its service accounts: account, resource, name, verb."""
    found = set()
    for account in ACCOUNTS.values():
        roles = [scene.api.get(f"{RBAC}/clusterroles/{account}"), scene.api.get(f"{RBAC}/namespaces/{NAMESPACE}/roles/{account}")]
        for rule in (rule for role in roles for rule in role["rules"]):
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    for name in rule.get("resourceNames", [""]):
                        found |= {(account, f"{group}/{resource}", name, verb) for verb in rule["verbs"]}
    return found


def uses(scene, granted):
    """Returns the permissions that requests used, and the requests that no permission covers."""
    used, beyond = set(), []
    for event in scene.audit():
        account = ACCOUNTS.get(event["user"]["username"])
        if account is None or event["stage"] != "ResponseComplete" and event["verb"] != "watch":
            continue
        reference, verb = event.get("objectRef"), event["verb"]
        if reference is None or "resource" not in reference:
            if not DISCOVERY.match(event["requestURI"].split("?")[0].rstrip("/")):
                beyond.append(f"{account} {verb} {event['requestURI']}")
            continue
        subresource = reference.get("subresource")
        resource = f"{reference.get('apiGroup', '')}/{reference['resource']}" + (f"/{subresource}" if subresource else "")
        name = reference.get("name") or selected(event["requestURI"])
        covering = {(account, resource, one, verb) for one in (name, "")} & granted
        if not covering:
            beyond.append(f"{account} {verb} {event['requestURI']}")
        used |= covering
    return used, sorted(set(beyond))


def selected(uri):
    """Returns the name that a list or a watch is limited to."""
    found = re.search(r"fieldSelector=metadata\.name(?:%3D|=)([^&]+)", uri)
    return found.group(1) if found else ""


if __name__ == "__main__":
    unittest.main()
