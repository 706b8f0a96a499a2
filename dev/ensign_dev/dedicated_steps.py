"""The demo's second act: an identity that is made for one binding, belongs to it alone, and is gone with it.

What the identity may do in Azure is shown twice. Its class gives it a role from the start, and because pods wait for that,
no pod is ever refused for want of it; nor can a class be changed later. So what is refused at first is what the class does
not give, and then the operator gives it to this one identity, in the ManagedIdentity that Ensign made.
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
GONE_SECONDS = 60.0
WRITER = "Storage Blob Data Contributor"
REFUSED_BY_STORAGE = (403, "AuthorizationPermissionMismatch")

Detail = Dict[str, Any]

PLAN = {
    "class-applied": ("The second act: ask for an identity that does not exist yet", "ask_for_own"),
    "identity-made": ("Look at the identity that Ensign made, from Azure's side", "own_identity"),
    "own-exchange": ("Run the Rust program with the identity of its own", "own_exchange"),
    "role-missing": ("Read and write a blob with it: its class lets it read, and no more", "role_missing"),
    "role-working": ("Give that one identity one role more: now it may write", "role_working"),
    "identity-gone": ("Delete the binding: credential, roles, object and identity go with it", "own_gone"),
}


class SecondAct:
    """Steps of the demo; what they are made of is the demo's."""

    _before: Dict[str, List[Dict[str, Any]]] = {}
    _own: Dict[str, Any] = {}
    _own_object = ""
    _account = ""

    def ask_for_own(self: Any, detail: Detail) -> None:
        self._before = self._in_azure()
        self._tell.say(
            "The operator says in a ManagedIdentityClass where identities may be made and who may have one, as a "
            "StorageClass does for volumes. The app team asks for one of their own; nobody goes to Azure."
        )
        detail["applied"] = self._run("apply", "-f", f"{EXAMPLES}01-class.yaml", "-f", f"{EXAMPLES}02-binding.yaml").splitlines()
        self._run("wait", "--for=condition=Ready", BINDING, "-n", NAMESPACE, f"--timeout={READY_SECONDS}s")
        detail["shown"] = self._run("get", "managedidentities", "-o", "wide").splitlines()
        status = self.kubectl.json("get", BINDING, "-n", NAMESPACE)["status"]
        self._own_object = status["managedIdentityName"]
        [role] = self.kubectl.json("get", "managedidentityclass", "dedicated")["spec"]["roleAssignments"]
        self._account = role["scope"]
        detail.update(status=status, identities_before=[one["name"] for one in self._before["identities"]])

    def own_identity(self: Any, detail: Detail) -> None:
        known = {one["id"] for one in self._before["identities"]}
        made = [one for one in self._in_azure()["identities"] if one["id"] not in known]
        if len(made) != 1:
            raise Failure(f"one identity was to be made, but {[one['name'] for one in made]} came")
        self._own = made[0]
        binding = self.kubectl.json("get", BINDING, "-n", NAMESPACE)
        if binding["status"]["clientID"] != self._own["properties"]["clientId"]:
            raise Failure("the binding's status has another client ID than the identity that was made")
        made_object = self.kubectl.json("get", "managedidentity", self._own_object)
        if self._own["tags"].get("ensign.dev-object") != made_object["metadata"]["uid"]:
            raise Failure("the identity's tags do not say whose it is")
        roles = self._own_roles(1)
        self._tell.command(f"GET {self._own['id']}")
        self._tell.facts({"name": self._own["name"], "client ID": self._own["properties"]["clientId"], **self._own["tags"]})
        self._tell.say(
            "The tags say whose it is. Ensign deletes an identity only if they do, and never takes one over that somebody "
            "else made unless the operator says so. It has the role that its class gives to each:"
        )
        self._tell.facts(roles)
        detail.update(
            name=self._own["name"], tags=self._own["tags"], client_id=self._own["properties"]["clientId"], roles=roles,
        )

    def own_exchange(self: Any, detail: Detail) -> None:
        self._run("create", "-f", f"{EXAMPLES}03-pod.yaml")
        self._pod = until("the pod to be free to start", self._own_pod, GONE_SECONDS + self._propagation)
        self._identity = self._own["properties"]
        env = pod_runner.read(self._pod, "rust").env
        if env.get("AZURE_CLIENT_ID") != self._identity["clientId"]:
            raise Failure("the pod was not given the client ID of the identity that was made for it")
        self._exchange("rust", self._samples.rust, detail)

    def role_missing(self: Any, detail: Detail) -> None:
        self._tell.say(
            "Azure Storage asks two things: who is this, which the token answers, and what may it do, which role "
            "assignments say. The same program, as the same pod, given the URL of a blob:"
        )
        read, written = self._storage("read"), self._storage("write")
        if read != (200, None):
            raise Failure(f"reading the blob was answered with {read}, though the class gives the role for it")
        if written != REFUSED_BY_STORAGE:
            raise Failure(f"writing the blob was answered with {written}, though nobody gave a role for it")
        detail.update(read=read, written=written)

    def role_working(self: Any, detail: Detail) -> None:
        entry = {"roleDefinition": WRITER, "scope": self._account}
        patch = json.dumps([{"op": "add", "path": "/spec/roleAssignments/-", "value": entry}])
        name = f"managedidentity/{self._own_object}"
        self._run("patch", name, "--type=json", "--patch", patch)
        # Of the generation that was just made: kubectl takes no condition that speaks of an earlier one.
        self._run("wait", "--for=condition=PermissionsReady", name, f"--timeout={READY_SECONDS}s")
        roles = self._own_roles(2)
        self._tell.facts(roles)
        written = self._storage("write")
        if written != (200, None):
            raise Failure(f"writing the blob was answered with {written}, though the identity has the role for it")
        self._tell.say(
            "Nobody touched the pod, and nobody but Ensign asked Azure for the role. Ensign refuses roles with which an "
            "identity could get at more than it was given, and assigns none at all unless it is started so."
        )
        detail.update(roles=roles, written=written)

    def own_gone(self: Any, detail: Detail) -> None:
        self._run("delete", BINDING, "-n", NAMESPACE, f"--timeout={READY_SECONDS}s")
        self._run("wait", "--for=delete", f"managedidentity/{self._own_object}", f"--timeout={READY_SECONDS}s")
        after = self._in_azure()
        if after != self._before:
            raise Failure(f"Azure is not as it was: {json.dumps(after)} instead of {json.dumps(self._before)}")
        self._tell.say("Azure is as it was before the second act, to the last tag, credential and role assignment.")
        self.kubectl("delete", "-f", str(paths.ROOT / EXAMPLES), "--ignore-not-found", "--wait=false")
        detail.update(
            identities_left=[one["name"] for one in after["identities"]], roles_left=[one["name"] for one in after["roles"]]
        )

    def _own_pod(self: Any) -> Any:
        pod = self.kubectl.json("get", f"pod/{NAME}", "-n", NAMESPACE)
        return None if pod["spec"].get("schedulingGates") else pod

    def _own_roles(self: Any, count: int) -> Dict[str, str]:
        """The scope of each of the identity's roles; Azure and the object's status have to agree on them."""
        principal = self._own["properties"]["principalId"]
        there = [one["name"] for one in self._in_azure()["roles"] if one["properties"]["principalId"] == principal]
        status = self.kubectl.json("get", "managedidentity", self._own_object)["status"]
        said = status.get("roleAssignments", [])
        if len(there) != count or sorted(there) != sorted(one["name"] for one in said):
            raise Failure(f"{count} role assignments were to be there; Azure has {there}, and the status says {said}")
        return {one["roleDefinition"]: one["scope"] for one in said}

    def _storage(self: Any, verb: str) -> "tuple[int, Optional[str]]":
        """What Azure Storage answers to the program that runs as the pod."""
        url = f"{self._environment.info['arm_endpoint'].rstrip('/')}/protected{blob_in(self._account)}"
        self._tell.command(f"secretless-app {verb} {url}")
        run = self._start(pod_runner.read(self._pod, "rust"), [*self._samples.rust, verb, url])
        status, code = answer_of_storage(run)
        self._tell.output(f"{status} {code or ''}".rstrip())
        return status, code

    def _in_azure(self: Any) -> Dict[str, List[Dict[str, Any]]]:
        """Every identity with what is under it, and every role assignment of the subscription."""
        group = self._resource_id.rsplit("/", 1)[0]
        found = sorted(self.arm.identities(group), key=lambda one: str(one["id"]))
        subscription = group.split("/resourceGroups/")[0]
        roles = self.arm.role_assignments(subscription)
        return {
            "identities": [{**one, "credentials": self.arm.credentials(one["id"])} for one in found],
            "roles": sorted(roles, key=lambda one: str(one["id"])),
        }


def blob_in(account: str) -> str:
    """The ARM ID of a blob in a storage account. The emulator serves blobs by it; Azure has host names for them."""
    return f"{account}/blobServices/default/containers/monthly/blobs/november"


def answer_of_storage(run: Run) -> "tuple[int, Optional[str]]":
    """The status and the error code that the sample program was answered with."""
    try:
        answer = json.loads(run.out)
        return int(answer["storage"]["status"]), answer["storage"]["code"]
    except (ValueError, TypeError, KeyError):
        raise Failure(f"the program got no answer from Azure Storage: {run.out.strip() or run.error.strip()}") from None
