"""Ensign uses what the chart grants, all of it, and nothing else: read from the audit log of a cluster where it lived.

golden/verbs.txt is what people review: each right with the objects that it is for. ENSIGN_UPDATE_GOLDEN=1 writes it anew.
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
# What everybody may do who has a token, by roles of Kubernetes.
DISCOVERY = re.compile(r"^/(api|apis|openapi|version|\.well-known|healthz|livez|readyz)(/[^/]+(/v[^/]+)?)?$")
# Rights that this test does not bring about, and why they are needed all the same.
NOT_BROUGHT_ABOUT = {
    ("ensign-controller", "events.k8s.io/events", "", "patch"): "an event that is told again within minutes is counted up",
}


class Verbs(unittest.TestCase):
    maxDiff = None

    def test_that_are_granted_are_those_that_are_used(self):
        scene = Scene()
        self.addCleanup(scene.close)
        self.live(scene)
        granted = rights(scene)
        used, beyond = uses(scene, granted)
        self.assertEqual(beyond, [], "requests that no rule of the chart covers")
        unused = granted - used - set(NOT_BROUGHT_ABOUT)
        self.assertEqual(sorted(unused), [], "granted and not used")
        self.assertLessEqual(set(NOT_BROUGHT_ABOUT), granted)
        lines = [f"{account:<18} {verb:<7} {resource}{f' {name}' if name else ''}" for account, resource, name, verb in sorted(granted)]
        text = "\n".join(lines) + "\n"
        if os.environ.get("ENSIGN_UPDATE_GOLDEN") == "1":
            GOLDEN.parent.mkdir(exist_ok=True)
            GOLDEN.write_text(text)
        self.assertEqual(text, GOLDEN.read_text(), "verbs.txt differs; ENSIGN_UPDATE_GOLDEN=1 writes it anew")

    def live(self, scene):
        """Everything that Ensign does in a cluster, once."""
        propagation = ("--set", "azure.propagationDelay=20s")
        scene.install("--set", "injection.mode=webhook", *propagation)
        scene.rolled_out()
        scene.asked()
        scene.kubectl("create", "namespace", "stranger")
        scene.kubectl("create", "serviceaccount", "orders", "-n", "stranger")
        refused = binding("refused", {"serviceAccountName": "orders"})
        scene.kubectl("create", "-n", "stranger", "-f", "-", stdin=json.dumps(refused))
        scene.kubectl("create", "namespace", "shop")
        scene.kubectl("create", "serviceaccount", "orders", "-n", "shop")
        scene.kubectl("apply", "-f", "-", stdin=json.dumps(identity(scene)))
        made = binding("orders", {"serviceAccountName": "orders", "injection": {"annotateServiceAccount": True}})
        scene.kubectl("create", "-n", "shop", "-f", "-", stdin=json.dumps(made))
        gated = scene.until("a gated pod", lambda: self.gated(scene))
        path = f"/api/v1/namespaces/shop/pods/{gated}"
        scene.until("the pod to be ungated", lambda: not scene.api.get(path)["spec"].get("schedulingGates"))
        account = "/api/v1/namespaces/shop/serviceaccounts/orders"
        scene.until("the service account to be annotated", lambda: scene.api.get(account)["metadata"].get("annotations"))
        # An identity of its own comes and goes with its binding.
        scene.kubectl("create", "-f", "-", stdin=json.dumps(identity_class(scene)))
        own = {"serviceAccountName": "own", "identityRef": {"kind": "ManagedIdentityClass", "name": "own"}}
        scene.kubectl("create", "-n", "shop", "-f", "-", stdin=json.dumps(binding("own", own)))
        scene.kubectl("wait", "-n", "shop", "managedidentitybinding/own", "--for=condition=Ready", "--timeout=120s")
        scene.kubectl("delete", "-n", "shop", "managedidentitybinding", "own", "--timeout=60s")
        scene.until("the identity to go with its binding", lambda: len(scene.api.get(f"{KINDS}/managedidentities")["items"]) == 1)
        # A new CA signs only after the webhook has seen it in the webhook configuration.
        scene.api.patch(SECRET, {"metadata": {"annotations": {"ensign.dev/rotate-ca": "now"}}})
        scene.until("the webhook to look at its registration", lambda: looked(scene))
        scene.upgrade(*propagation)
        scene.rolled_out()
        scene.until("the webhook to be registered no longer", lambda: not scene.api.get(REGISTRATION).get("webhooks"))
        # Back again, which empties the policies.
        scene.upgrade("--set", "injection.mode=webhook", *propagation)
        scene.rolled_out()
        scene.until("the webhook to be registered", lambda: scene.api.get(REGISTRATION).get("webhooks"))
        scene.until("the policies to be emptied", lambda: all(inert(scene.api.get(one)) for one in POLICIES))
        scene.kubectl("delete", "-n", "shop", "managedidentitybinding", "orders", "--timeout=60s")
        old = scene.api.get(LEASE)["metadata"]["uid"]
        scene.api.delete(LEASE)
        scene.until("the Lease to be made again", lambda: (scene.api.find(LEASE) or {}).get("metadata", {}).get("uid") not in (None, old))

    @staticmethod
    def gated(scene):
        """A pod that waits for its identity; one that is created too early or too late to be gated does not count."""
        created = scene.api.post("/api/v1/namespaces/shop/pods?dryRun=All", pod(False, "orders"))
        if not is_injected(created) or not created["spec"].get("schedulingGates"):
            return None
        return scene.api.post("/api/v1/namespaces/shop/pods", pod(False, "orders"))["metadata"]["name"]


def looked(scene):
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


def rights(scene):
    """What the chart's roles grant to its service accounts: account, resource, name, verb."""
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
    """The rights that requests used, and the requests that none of them covers."""
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
    """The name that a list or a watch is limited to."""
    found = re.search(r"fieldSelector=metadata\.name(?:%3D|=)([^&]+)", uri)
    return found.group(1) if found else ""


if __name__ == "__main__":
    unittest.main()
