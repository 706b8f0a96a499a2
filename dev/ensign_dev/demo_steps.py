"""The demo's steps. Each shows something, says why it matters, and holds or fails."""

from __future__ import annotations

import json
import os
import re
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from . import dedicated_steps, paths, pod_runner, seed
from .azure import Arm, credentials_of
from .environment import Environment, Programs
from .failure import Failure
from .kubectl import Kubectl
from .narration import Narrator
from .pod_runner import PodProcess, PodRunner, Run
from .waiting import until

NAMESPACE = "shop"
NAME = "orders"
STRANGER = "invoices"
BINDING = f"managedidentitybinding/{NAME}"
INJECTED_ENV = ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_AUTHORITY_HOST")
READY_SECONDS = 60
POD_SECONDS = 60.0
PROPAGATION_SLACK_SECONDS = 30.0
# 700213: no credential for this subject; the others are said of the issuer, the audience, the letter case, and of an
# identity that has no credential at all.
NO_TRUST = re.compile(r"AADSTS(700211|700212|700213|7002138|70021|70025)\b")

# By mode.
PROCESSES = {
    "webhook": "webhook and controller, two processes of the same binary, each with its own few rights",
    "policy": "only the controller, with few rights; the API server injects pods by itself, by Ensign's admission policies",
}
INJECTORS = {"webhook": "Ensign's webhook", "policy": "the API server, by Ensign's admission policies,"}

Detail = Dict[str, Any]


# Every step by its name in the report: its heading, and the method of Demo that takes it.
PLAN = {
    "environment-started": ("Start Kubernetes, Azure, and Ensign between them", "start"),
    "examples-applied": ("Say which identity there is, who may use it, and who wants it", "apply"),
    "binding-ready": ("Wait until Ensign has made Azure trust the service account", "ready"),
    "credential-in-azure": ("Look at that trust from Azure's side", "credential"),
    "pod-injected": ("Look at the pod that Kubernetes admitted", "pod"),
    "rust-exchange": ("Run the Rust program as that pod: it gets an Azure token", "rust"),
    "python-exchange": ("Run the Python program as that pod", "python"),
    "refused-without-binding": ("The point: another service account is refused by Entra", "stranger"),
    "credential-removed": ("Delete the binding: the trust goes with it", "remove"),
    **dedicated_steps.PLAN,
    "environment-stopped": ("Stop everything", "stop"),
}


class Samples(NamedTuple):
    """How the two sample programs are started on this machine."""

    rust: List[str]
    python: List[str]


class Demo(dedicated_steps.SecondAct):
    """The state that goes from step to step."""

    def __init__(
        self, environment: Environment, programs: Programs, samples: Samples, propagation: int, mode: str, tell: Narrator
    ) -> None:
        self._environment = environment
        self._programs = programs
        self._samples = samples
        self._propagation = propagation
        self._mode = mode
        self._tell = tell
        self._kubectl: Optional[Kubectl] = None
        self._runner: Optional[PodRunner] = None
        self._pod: Dict[str, Any] = {}
        self._identity: Dict[str, Any] = {}
        self._resource_id = ""

    def steps(self) -> "Dict[str, tuple[str, Callable[[Detail], None]]]":
        """Every step in order: name, heading, and what it does."""
        return {name: (heading, getattr(self, method)) for name, (heading, method) in PLAN.items()}

    def start(self, detail: Detail) -> None:
        self._environment.start(self._programs, self._propagation, leashed=True, mode=self._mode)
        info = self._environment.info
        self._kubectl = self._environment.kubectl(self._programs.cluster)
        self._runner = PodRunner(self._kubectl)
        version = self._kubectl.json("version")["serverVersion"]["gitVersion"]
        self._tell.facts({
            "Kubernetes": f"kube-apiserver {version} at {info['api_server']}",
            "its token issuer": info["issuer"],
            "Azure (emulator)": f"Resource Manager and Entra at {info['arm_endpoint']}",
            "Ensign": PROCESSES[self._mode],
        })
        self._tell.say(
            "Ensign's controller has no secret either: it signs in to Azure with its own service account's token, the "
            "way it is about to make possible for others."
        )
        records = self._environment.registry.records()
        same(any(record.name == "webhook" for record in records), self._mode == "webhook", "whether a webhook runs")
        detail.update(
            kubernetes=version, api_server=info["api_server"], issuer=info["issuer"], arm_endpoint=info["arm_endpoint"],
            authority_host=info["authority_host"], tenant_id=info["tenant_id"],
            processes={record.name: record.identity.pid for record in records},
        )

    def apply(self, detail: Detail) -> None:
        self._tell.say(
            f"The cluster operator says in a ManagedIdentity which Azure identity exists and that only the service "
            f"account {NAMESPACE}/{NAME} may use it. The app team, who hold no rights in Azure, ask for it in a "
            "ManagedIdentityBinding beside their Deployment. Nobody copies a client ID."
        )
        detail["applied"] = self._run("apply", "-f", "examples/").splitlines()
        spec = self.kubectl.json("get", "managedidentity", NAME)["spec"]
        self._resource_id = spec["existing"]["resourceID"]
        detail.update(resource_id=self._resource_id, allowed_subjects=spec["allowedSubjects"])

    def ready(self, detail: Detail) -> None:
        waiting = [
            "wait", "--for=condition=Ready", BINDING, "-n", NAMESPACE, f"--timeout={READY_SECONDS}s",
        ]
        try:
            self._run(*waiting)
        except Failure as error:
            raise Failure(f"{error}\n{self._why_not()}") from None
        detail["shown"] = self._run("get", "managedidentities,managedidentitybindings", "-n", NAMESPACE).splitlines()
        status = self.kubectl.json("get", BINDING, "-n", NAMESPACE)["status"]
        detail["status"] = status
        self._identity = self.arm.identity(self._resource_id)["properties"]
        same(status.get("clientID"), self._identity["clientId"], "the client ID in the binding's status")
        self._tell.say(
            "Ready means that Azure has confirmed it: the controller found the identity, checked that the operator "
            "allows this service account, and wrote one federated identity credential."
        )

    def credential(self, detail: Detail) -> None:
        url = f"{self._resource_id}/federatedIdentityCredentials"
        self._tell.command(f"GET {url}")
        found = self._credentials()
        same(len(found), 1, "the number of credentials for this subject")
        properties = found[0]["properties"]
        shown = {
            "name": found[0]["name"],
            "issuer": properties["issuer"],
            "subject": properties["subject"],
            "audience": properties["audiences"][0],
        }
        self._tell.facts(shown)
        self._tell.say(
            "That is all the trust there is: Entra will accept a token of this cluster, for this one service account, "
            "made for this audience. There is no password or certificate in it that could leak or run out. The name "
            "tells whose it is, so that Ensign never touches a credential that somebody else made."
        )
        same(properties["audiences"], [seed.TOKEN_AUDIENCE], "the credential's audiences")
        status = self.kubectl.json("get", BINDING, "-n", NAMESPACE)["status"]
        same(status["credential"]["name"], found[0]["name"], "the credential's name in the binding's status")
        detail.update(shown, audiences=properties["audiences"])

    def pod(self, detail: Detail) -> None:
        template = self.kubectl.json("get", f"deployment/{NAME}", "-n", NAMESPACE)["spec"]["template"]["spec"]
        written = [entry["name"] for one in template["containers"] for entry in one.get("env", [])]
        same(written, [], "the environment variables that the Deployment's author wrote")
        self._pod = until(
            f"a pod of deployment {NAME} that may start", self._first_pod, POD_SECONDS + self._propagation,
            tail=self._why_no_pod,
        )
        name = self._pod["metadata"]["name"]
        containers = [one["name"] for one in self._pod["spec"]["containers"]]
        process = {one: pod_runner.read(self._pod, one) for one in containers}
        first = process[containers[0]]
        self._tell.command(f"kubectl get pod {name} -n {NAMESPACE} -o yaml")
        self._tell.say(f"Of that, what no author wrote: {INJECTORS[self._mode]} put these variables into each container,")
        self._tell.facts({one: first.env.get(one, "(missing)") for one in INJECTED_ENV})
        expected = {
            "AZURE_CLIENT_ID": self._identity["clientId"],
            "AZURE_TENANT_ID": self._environment.info["tenant_id"],
            "AZURE_AUTHORITY_HOST": self._environment.info["authority_host"],
        }
        for one in containers:
            for variable, value in expected.items():
                same(process[one].env.get(variable), value, f"{variable} of container {one}")
            same(len(process[one].tokens), 1, f"the number of projected tokens of container {one}")
            same(
                process[one].tokens[0].file, process[one].env.get("AZURE_FEDERATED_TOKEN_FILE"),
                f"the token's path in container {one}",
            )
        token = first.tokens[0]
        volume = {
            "volume": token.volume, "mounted at": token.mount_path, "path": token.path, "audience": token.audience,
            "lifetime": f"{token.expiration_seconds} seconds; the kubelet renews it",
        }
        self._tell.say("and the volume with the token, which Kubernetes makes for this pod alone:")
        self._tell.facts(volume)
        same(token.audience, seed.TOKEN_AUDIENCE, "the token's audience")
        detail.update(
            pod=name, service_account=first.service_account, containers=containers,
            env={one: first.env[one] for one in INJECTED_ENV},
            volume={**token._asdict(), "file": token.file},
            annotations=self._pod["metadata"].get("annotations", {}),
        )

    def rust(self, detail: Detail) -> None:
        self._tell.say(
            "There is no kubelet in this cluster, so this demo does its part: it asks the API server's TokenRequest "
            "for the token that the pod's volume describes, bound to this pod, and starts the program with the pod's "
            "environment and the token at that very path. The program is examples/secretless-app; all it does is ask "
            "Microsoft's azure_identity for a token."
        )
        self._exchange("rust", self._samples.rust, detail)

    def python(self, detail: Detail) -> None:
        self._tell.say(
            "The same in another language, with Microsoft's azure-identity for Python and examples/"
            "secretless-app-python. Neither program knows of Ensign."
        )
        self._exchange("python", self._samples.python, detail)

    def stranger(self, detail: Detail) -> None:
        self._tell.say(
            "Someone in the same namespace copies everything that was injected, the client ID included, into a pod of "
            f"their own. Its service account {STRANGER} has no binding. Kubernetes gladly makes a token for it, with "
            "the right issuer and the right audience, and the same Rust program sends it to Entra:"
        )
        self.kubectl("create", "serviceaccount", STRANGER, "-n", NAMESPACE)
        self._tell.command(f"kubectl create -n {NAMESPACE} -f copied-pod.json   # serviceAccountName: {STRANGER}")
        created = self.kubectl("create", "-f", "-", "-o", "json", stdin=json.dumps(copied(self._pod, STRANGER)))
        process = pod_runner.read(json.loads(created), "rust")
        run = self._start(process, self._samples.rust)
        code = self._refused(run, seed.subject(NAMESPACE, STRANGER), detail)
        self._tell.say(
            f"{code} is Entra's word for: nobody has told me to trust this service account. Knowing a client ID gives "
            "nothing, and there was no secret to copy. What counts is who the cluster says the pod is."
        )

    def remove(self, detail: Detail) -> None:
        before = [one["name"] for one in self._credentials()]
        self._run("delete", BINDING, "-n", NAMESPACE, f"--timeout={READY_SECONDS}s")
        self._tell.command(f"GET {self._resource_id}/federatedIdentityCredentials")
        left = self.arm.credentials(self._resource_id)
        self._tell.output(json.dumps({"value": left}))
        same([one["name"] for one in left if one["name"] in before], [], "what is left of the credential in Azure")
        same(credentials_of(self._subject, self._environment.info["issuer"], left), [], "the trust that is left")
        self._tell.say(
            "The binding was held back until Azure had confirmed that its credential is gone: a credential that is "
            "left behind would let in whoever makes a service account of that name next. The old pod still has its "
            "token file, and Entra no longer takes it:"
        )
        detail.update(deleted=before, credentials_left=left)
        self._refused(self._start(pod_runner.read(self._pod, "rust"), self._samples.rust), self._subject, detail)

    def stop(self, detail: Detail) -> None:
        stopped = self._environment.stop()
        left = [record.name for record in self._environment.registry.records()]
        same(left, [], "the processes that still run")
        self._tell.say(f"Stopped {', '.join(stopped)}. The logs are in {self._environment.registry.logs}.")
        detail.update(stopped=stopped, left_running=left)

    # What the steps are made of.

    @property
    def kubectl(self) -> Kubectl:
        if self._kubectl is None:
            raise Failure("the environment was not started")
        return self._kubectl

    @property
    def arm(self) -> Arm:
        return self._environment.arm()

    @property
    def _subject(self) -> str:
        return seed.subject(NAMESPACE, NAME)

    def _credentials(self) -> List[Dict[str, Any]]:
        listed = self.arm.credentials(self._resource_id)
        return credentials_of(self._subject, self._environment.info["issuer"], listed)

    def _run(self, *arguments: str) -> str:
        self._tell.command("kubectl " + " ".join(arguments))
        there = [str(paths.ROOT / one) if one.startswith("examples/") else one for one in arguments]
        out = self.kubectl(*there, timeout=READY_SECONDS + 5)
        self._tell.output(out)
        return out

    def _first_pod(self) -> Optional[Dict[str, Any]]:
        items = self.kubectl.json("get", "pods", "-n", NAMESPACE, "-l", f"app={NAME}")["items"]
        # A gated pod is given no node by any scheduler, so that no kubelet would start it.
        return dict(items[0]) if items and not items[0]["spec"].get("schedulingGates") else None

    def _start(self, process: PodProcess, program: List[str]) -> Run:
        if self._runner is None:
            raise Failure("the environment was not started")
        # The one thing that a real pod would not need: Entra's certificate is signed by a public authority.
        trust = dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), self._environment.info["ca_file"])
        run = self._runner.run(process, [*program, "-o", "json"], trust)
        if run.rewritten:
            self._tell.say(
                "(This machine refuses mount namespaces, so the token is in a temporary folder and "
                "AZURE_FEDERATED_TOKEN_FILE was changed to it.)"
            )
        return run

    def _start_once_trusted(self, process: PodProcess, program: List[str]) -> Run:
        """Runs a program; again while its credential has not propagated, where that was made to take time."""
        if self._propagation == 0:
            return self._start(process, program)
        self._tell.say(
            f"(PROPAGATION_SECONDS={self._propagation}: a new credential takes that long to propagate in Entra, as it "
            "does in real life. Until then the program is refused and tries again.)"
        )

        def propagated() -> Optional[Run]:
            run = self._start(process, program)
            return None if NO_TRUST.search(str(answer_of(run).get("error", ""))) else run

        return until("the credential to propagate", propagated, self._propagation + PROPAGATION_SLACK_SECONDS)

    def _exchange(self, container: str, program: List[str], detail: Detail) -> None:
        process = pod_runner.read(self._pod, container)
        run = self._start_once_trusted(process, program)
        given = next(iter(run.given.values()))
        self._tell.say("In: the token of the pod, signed by this cluster, of no use to anybody but Entra.")
        self._tell.facts({name: given[name] for name in ("iss", "sub", "aud")})
        answer = answer_of(run)
        if run.status != 0 or not answer.get("ok"):
            raise Failure(f"the program got no token: {answer.get('error') or run.error.strip() or run.out.strip()}")
        claims = answer["claims"]
        self._tell.say(f"Out: a token of Entra for Azure, got by {answer['sdk']}. Its claims:")
        shown = ("iss", "aud", "tid", "appid", "oid", "sub")
        self._tell.facts({name: claims[name] for name in shown if name in claims})
        same(claims.get("tid"), self._environment.info["tenant_id"], "the tenant in the token")
        same(claims.get("appid"), self._identity["clientId"], "the client ID in the token")
        same(claims.get("oid"), self._identity["principalId"], "the principal in the token")
        detail.update(
            container=container, program=os.path.relpath(program[-1], paths.ROOT), sdk=answer["sdk"],
            token_file=next(iter(run.given)), path_rewritten=run.rewritten, pod_token_claims=given, claims=claims,
        )

    def _refused(self, run: Run, subject: str, detail: Detail) -> str:
        answer = answer_of(run)
        if run.status == 0 or answer.get("ok"):
            raise Failure(f"Entra gave a token to {subject}, which nothing lets in")
        said = str(answer.get("error", ""))
        code = NO_TRUST.search(said)
        given = next(iter(run.given.values()))
        self._tell.facts({"sub": given["sub"], "Entra's answer": first_sentence(said)})
        if code is None:
            raise Failure(f"Entra was to refuse {subject} for want of trust, but the program said: {said}")
        same(given["sub"], subject, "the subject of the refused token")
        detail.update(error_code=code.group(0), error=said, subject=given["sub"], pod_token_claims=given)
        return code.group(0)

    def _why_not(self) -> str:
        answer = self.kubectl.try_("get", BINDING, "-n", NAMESPACE, "-o", "yaml")
        return f"{answer.out}\n{self._environment.registry.tail('controller')}"

    def _why_no_pod(self) -> str:
        answer = self.kubectl.try_("get", "events", "-n", NAMESPACE, "--sort-by=.lastTimestamp")
        return f"events in {NAMESPACE}:\n{answer.out}\n{self._environment.registry.tail('webhook')}"


def same(found: Any, wanted: Any, what: str) -> None:
    """Fails unless two values are equal."""
    if found != wanted:
        raise Failure(f"{what}: expected {wanted!r}, found {found!r}")


def answer_of(run: Run) -> Dict[str, Any]:
    """The line of JSON that a sample program printed."""
    try:
        return dict(json.loads(run.out))
    except (ValueError, TypeError):
        return {}


def first_sentence(text: str) -> str:
    """Entra's words without its trace IDs, and without what an SDK puts before them."""
    start = text.find("AADSTS")
    return re.split(r"\s+(?:Check your|https://|Trace ID)", text[max(start, 0) :], maxsplit=1)[0].strip()


def copied(pod: Dict[str, Any], service_account: str) -> Dict[str, Any]:
    """A pod that has all that was injected into `pod`, written by hand, under another service account."""
    spec = pod["spec"]
    containers = [
        {key: one[key] for key in ("name", "image", "command", "env", "volumeMounts") if key in one}
        for one in spec["containers"]
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"copied-by-{service_account}", "namespace": pod["metadata"]["namespace"]},
        "spec": {
            "serviceAccountName": service_account,
            "automountServiceAccountToken": False,
            "containers": containers,
            "volumes": spec.get("volumes", []),
        },
    }
