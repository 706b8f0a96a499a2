"""The demo's second act: an identity that is made for one binding, belongs to it alone, and is gone with it."""

from __future__ import annotations

import json
from typing import Any, Dict, List

from . import paths, pod_runner
from .failure import Failure
from .waiting import until

EXAMPLES = "examples/dedicated/"
NAMESPACE = "shop"
NAME = "reports"
BINDING = f"managedidentitybinding/{NAME}"
READY_SECONDS = 60
GONE_SECONDS = 60.0

Detail = Dict[str, Any]

PLAN = {
    "class-applied": ("The second act: ask for an identity that does not exist yet", "ask_for_own"),
    "identity-made": ("Look at the identity that Ensign made, from Azure's side", "own_identity"),
    "own-exchange": ("Run the Rust program with the identity of its own", "own_exchange"),
    "identity-gone": ("Delete the binding: credential, object and identity go with it", "own_gone"),
}


class SecondAct:
    """Steps of the demo; what they are made of is the demo's."""

    _before: List[Dict[str, Any]] = []
    _own: Dict[str, Any] = {}
    _own_object = ""

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
        detail.update(status=status, identities_before=[one["name"] for one in self._before])

    def own_identity(self: Any, detail: Detail) -> None:
        known = {one["id"] for one in self._before}
        made = [one for one in self._in_azure() if one["id"] not in known]
        if len(made) != 1:
            raise Failure(f"one identity was to be made, but {[one['name'] for one in made]} came")
        self._own = made[0]
        binding = self.kubectl.json("get", BINDING, "-n", NAMESPACE)
        if binding["status"]["clientID"] != self._own["properties"]["clientId"]:
            raise Failure("the binding's status has another client ID than the identity that was made")
        uid = self.kubectl.json("get", "managedidentity", self._own_object)["metadata"]["uid"]
        if self._own["tags"].get("ensign.dev-object") != uid:
            raise Failure("the identity's tags do not say whose it is")
        self._tell.command(f"GET {self._own['id']}")
        self._tell.facts({"name": self._own["name"], "client ID": self._own["properties"]["clientId"], **self._own["tags"]})
        self._tell.say(
            "The tags say whose it is. Ensign deletes an identity only if they do, and never takes one over that somebody "
            "else made unless the operator says so."
        )
        detail.update(name=self._own["name"], tags=self._own["tags"], client_id=self._own["properties"]["clientId"])

    def own_exchange(self: Any, detail: Detail) -> None:
        self._run("create", "-f", f"{EXAMPLES}03-pod.yaml")
        self._pod = until("the pod to be free to start", self._own_pod, GONE_SECONDS + self._propagation)
        self._identity = self._own["properties"]
        env = pod_runner.read(self._pod, "rust").env
        if env.get("AZURE_CLIENT_ID") != self._identity["clientId"]:
            raise Failure("the pod was not given the client ID of the identity that was made for it")
        self._exchange("rust", self._samples.rust, detail)

    def own_gone(self: Any, detail: Detail) -> None:
        self._run("delete", BINDING, "-n", NAMESPACE, f"--timeout={READY_SECONDS}s")
        self._run("wait", "--for=delete", f"managedidentity/{self._own_object}", f"--timeout={READY_SECONDS}s")
        after = self._in_azure()
        if after != self._before:
            raise Failure(f"Azure is not as it was: {json.dumps(after)} instead of {json.dumps(self._before)}")
        self._tell.say("Azure is as it was before the second act, to the last tag and credential.")
        self.kubectl("delete", "-f", str(paths.ROOT / EXAMPLES), "--ignore-not-found", "--wait=false")
        detail.update(identities_left=[one["name"] for one in after])

    def _own_pod(self: Any) -> Any:
        pod = self.kubectl.json("get", f"pod/{NAME}", "-n", NAMESPACE)
        return None if pod["spec"].get("schedulingGates") else pod

    def _in_azure(self: Any) -> List[Dict[str, Any]]:
        """Every identity with what is under it."""
        group = self._resource_id.rsplit("/", 1)[0]
        found = sorted(self.arm.identities(group), key=lambda one: str(one["id"]))
        return [{**one, "credentials": self.arm.credentials(one["id"])} for one in found]
