"""The demo's second part: a dedicated identity, created for one binding and deleted with it.

It shows role assignments twice. The class assigns a role from the beginning; pods are gated until it is assigned, so they
never fail for lack of it, and the roles of a class are immutable. Therefore the demo first tries an operation that this role
does not allow, and then the operator adds another role to this one identity, in the ManagedIdentity that Ensign created.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Optional

from . import paths, pod_runner
from .failure import Failure
from .pod_runner import Run
from .waiting import until

EXAMPLES = "examples/dedicated/"
NAMESPACE = "shop"
NAME = "reports"
BINDING = f"managedidentitybinding/{NAME}"
READY_SECONDS = 60
POD_SECONDS = 60.0
WRITER = "Storage Blob Data Contributor"
DENIED_BY_STORAGE = (403, "AuthorizationPermissionMismatch")

Detail = Dict[str, Any]

PLAN = {
    "class-applied": ("Request a dedicated identity that does not exist yet", "request_identity"),
    "identity-made": ("Inspect the identity that Ensign created in Azure", "identity_created"),
    "own-exchange": ("Run the Rust program with the dedicated identity", "dedicated_exchange"),
    "role-missing": ("Read and write a blob: the class only allows reading", "role_missing"),
    "role-working": ("Add a role to that identity: now it may write", "role_added"),
    "identity-gone": ("Delete the binding: the identity and everything that belongs to it are deleted", "identity_deleted"),
}


class DedicatedIdentitySteps:
    """Steps of the demo. They use the state and methods of `Demo`."""

    _before: Dict[str, List[Dict[str, Any]]] = {}
    _own: Dict[str, Any] = {}
    _own_object = ""
    _account = ""

    def request_identity(self: Any, detail: Detail) -> None:
        self._before = self._in_azure()
        self._narrator.say(
            "With a ManagedIdentityClass, the operator declares where identities may be created and who may have one, like "
            "a StorageClass for volumes. The app team requests a dedicated identity; no one has to create it in Azure."
        )
        applied = self._run("apply", "-f", f"{EXAMPLES}01-class.yaml", "-f", f"{EXAMPLES}02-binding.yaml")
        detail["applied"] = applied.splitlines()
        self._run("wait", "--for=condition=Ready", BINDING, "-n", NAMESPACE, f"--timeout={READY_SECONDS}s")
        detail["shown"] = self._run("get", "managedidentities", "-o", "wide").splitlines()
        status = self.kubectl.json("get", BINDING, "-n", NAMESPACE)["status"]
        self._own_object = status["managedIdentityName"]
        [role] = self.kubectl.json("get", "managedidentityclass", "dedicated")["spec"]["roleAssignments"]
        self._account = role["scope"]
        detail.update(status=status, identities_before=[one["name"] for one in self._before["identities"]])

    def identity_created(self: Any, detail: Detail) -> None:
        known = {one["id"] for one in self._before["identities"]}
        created = [one for one in self._in_azure()["identities"] if one["id"] not in known]
        if len(created) != 1:
            raise Failure(f"expected one new identity, found {[one['name'] for one in created]}")
        self._own = created[0]
        binding = self.kubectl.json("get", BINDING, "-n", NAMESPACE)
        if binding["status"]["clientID"] != self._own["properties"]["clientId"]:
            raise Failure("the client ID in the binding's status is not that of the new identity")
        owner = self.kubectl.json("get", "managedidentity", self._own_object)
        if self._own["tags"].get("ensign.dev-object") != owner["metadata"]["uid"]:
            raise Failure("the identity's tags do not name its ManagedIdentity")
        roles = self._own_roles(1)
        self._narrator.command(f"GET {self._own['id']}")
        properties = self._own["properties"]
        self._narrator.facts({"name": self._own["name"], "client ID": properties["clientId"], **self._own["tags"]})
        self._narrator.say(
            "The tags record its owner. Ensign deletes only identities with its own tags, and adopts an existing identity "
            "only if the operator allows it. The identity has the role from its class:"
        )
        self._narrator.facts(roles)
        detail.update(
            name=self._own["name"], tags=self._own["tags"], client_id=self._own["properties"]["clientId"], roles=roles,
        )

    def dedicated_exchange(self: Any, detail: Detail) -> None:
        self._run("create", "-f", f"{EXAMPLES}03-pod.yaml")
        self._pod = until("the pod to be ungated", self._own_pod, POD_SECONDS + self._propagation)
        self._identity = self._own["properties"]
        env = pod_runner.read(self._pod, "rust").env
        if env.get("AZURE_CLIENT_ID") != self._identity["clientId"]:
            raise Failure("the pod does not have the client ID of its dedicated identity")
        self._exchange("rust", self._samples.rust, detail)

    def role_missing(self: Any, detail: Detail) -> None:
        self._narrator.say(
            "Azure Storage checks two things: authentication, by the token, and authorization, by role assignments. The "
            "same program, as the same pod, with the URL of a blob:"
        )
        read, written = self._storage("read"), self._storage("write")
        if read != (200, None):
            raise Failure(f"reading the blob returned {read}, although the class assigns a role that allows it")
        if written != DENIED_BY_STORAGE:
            raise Failure(f"writing the blob returned {written}, although no role allows it")
        detail.update(read=read, written=written)

    def role_added(self: Any, detail: Detail) -> None:
        entry = {"roleDefinition": WRITER, "scope": self._account}
        patch = json.dumps([{"op": "add", "path": "/spec/roleAssignments/-", "value": entry}])
        name = f"managedidentity/{self._own_object}"
        self._run("patch", name, "--type=json", "--patch", patch)
        # kubectl only accepts a condition that was computed for the current generation.
        self._run("wait", "--for=condition=PermissionsReady", name, f"--timeout={READY_SECONDS}s")
        roles = self._own_roles(2)
        self._narrator.facts(roles)
        written = self._storage("write")
        if written != (200, None):
            raise Failure(f"writing the blob returned {written}, although the identity has a role that allows it")
        self._narrator.say(
            "The pod did not change, and Ensign created the role assignment. Ensign rejects roles that would let an "
            "identity escalate its permissions, and assigns roles only with --role-assignments."
        )
        detail.update(roles=roles, written=written)

    def identity_deleted(self: Any, detail: Detail) -> None:
        self._run("delete", BINDING, "-n", NAMESPACE, f"--timeout={READY_SECONDS}s")
        self._run("wait", "--for=delete", f"managedidentity/{self._own_object}", f"--timeout={READY_SECONDS}s")
        after = self._in_azure()
        if after != self._before:
            raise Failure(f"leftovers in Azure: {json.dumps(after)} instead of {json.dumps(self._before)}")
        self._narrator.say("Nothing is left in Azure: every identity, tag, credential and role assignment is as before.")
        self.kubectl("delete", "-f", str(paths.ROOT / EXAMPLES), "--ignore-not-found", "--wait=false")
        detail.update(
            identities_left=[one["name"] for one in after["identities"]], roles_left=[one["name"] for one in after["roles"]]
        )

    def _own_pod(self: Any) -> Any:
        pod = self.kubectl.json("get", f"pod/{NAME}", "-n", NAMESPACE)
        return None if pod["spec"].get("schedulingGates") else pod

    def _own_roles(self: Any, count: int) -> Dict[str, str]:
        """Returns the scope of each of the identity's roles; Azure and the object's status must agree."""
        principal = self._own["properties"]["principalId"]
        found = [one["name"] for one in self._in_azure()["roles"] if one["properties"]["principalId"] == principal]
        status = self.kubectl.json("get", "managedidentity", self._own_object)["status"]
        reported = status.get("roleAssignments", [])
        if len(found) != count or sorted(found) != sorted(one["name"] for one in reported):
            raise Failure(f"expected {count} role assignments, but Azure has {found}, and the status lists {reported}")
        return {one["roleDefinition"]: one["scope"] for one in reported}

    def _storage(self: Any, verb: str) -> "tuple[int, Optional[str]]":
        """Runs the program as the pod; returns the response of Azure Storage."""
        url = f"{self._environment.info['arm_endpoint'].rstrip('/')}/protected{blob_in(self._account)}"
        self._narrator.command(f"secretless-app {verb} {url}")
        run = self._start(pod_runner.read(self._pod, "rust"), [*self._samples.rust, verb, url])
        status, code = storage_response(run)
        self._narrator.output(f"{status} {code or ''}".rstrip())
        return status, code

    def _in_azure(self: Any) -> Dict[str, List[Dict[str, Any]]]:
        """Returns all identities with their credentials, and all role assignments of the subscription."""
        group = self._resource_id.rsplit("/", 1)[0]
        found = sorted(self.arm.identities(group), key=lambda one: str(one["id"]))
        subscription = group.split("/resourceGroups/")[0]
        roles = self.arm.role_assignments(subscription)
        return {
            "identities": [{**one, "credentials": self.arm.credentials(one["id"])} for one in found],
            "roles": sorted(roles, key=lambda one: str(one["id"])),
        }


def blob_in(account: str) -> str:
    """Returns the ARM ID of a blob. The emulator serves blobs under it, while Azure Storage has host names."""
    return f"{account}/blobServices/default/containers/monthly/blobs/november"


def storage_response(run: Run) -> "tuple[int, Optional[str]]":
    """Returns the status and the error code of Azure Storage, as the sample program printed them."""
    try:
        answer = json.loads(run.out)
        return int(answer["storage"]["status"]), answer["storage"]["code"]
    except (ValueError, TypeError, KeyError):
        raise Failure(f"the program got no response from Azure Storage: {run.out.strip() or run.error.strip()}") from None
