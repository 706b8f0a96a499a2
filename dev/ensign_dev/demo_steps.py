"""The demo's steps. Each shows something, explains why it matters, and verifies it."""

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
UNBOUND = "invoices"
BINDING = f"managedidentitybinding/{NAME}"
INJECTED_ENV = ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_AUTHORITY_HOST")
READY_SECONDS = 60
POD_SECONDS = 60.0
PROPAGATION_SLACK_SECONDS = 30.0
# 700213: no credential matches the subject. The others are for the issuer, the audience, the letter case, and an identity
# without credentials.
NO_TRUST = re.compile(r"AADSTS(700211|700212|700213|7002138|70021|70025)\b")

# By mode.
PROCESSES = {
    "webhook": "webhook and controller: two processes of the same binary, each with its own minimal permissions",
    "policy": "only the controller; the API server injects pods through Ensign's admission policies",
}
INJECTORS = {"webhook": "Ensign's webhook added", "policy": "the API server added, through Ensign's admission policies"}

Detail = Dict[str, Any]


# Every step by its name in the report: its heading, and the method of Demo that runs it.
PLAN = {
    "environment-started": ("Start Kubernetes, the Azure emulator and Ensign", "start"),
    "examples-applied": ("Declare an identity, who may use it, and a binding that requests it", "apply"),
    "binding-ready": ("Wait until Azure trusts the service account", "ready"),
    "credential-in-azure": ("Inspect the federated identity credential in Azure", "credential"),
    "pod-injected": ("Inspect the pod that Kubernetes admitted", "pod"),
    "rust-exchange": ("Run the Rust program as that pod: it gets an Azure token", "rust"),
    "python-exchange": ("Run the Python program as that pod", "python"),
    "refused-without-binding": ("Copy the pod to another service account: Entra rejects it", "without_binding"),
    "credential-removed": ("Delete the binding: Azure no longer trusts the service account", "remove"),
    **dedicated_steps.PLAN,
    "environment-stopped": ("Stop everything", "stop"),
}


class Samples(NamedTuple):
    """The command lines of the two sample programs."""

    rust: List[str]
    python: List[str]


class Demo(dedicated_steps.DedicatedIdentitySteps):
    """The steps, and the state that they share."""

    def __init__(
        self, environment: Environment, programs: Programs, samples: Samples, propagation: int, mode: str, narrator: Narrator
    ) -> None:
        self._environment = environment
        self._programs = programs
        self._samples = samples
        self._propagation = propagation
        self._mode = mode
        self._narrator = narrator
        self._kubectl: Optional[Kubectl] = None
        self._runner: Optional[PodRunner] = None
        self._pod: Dict[str, Any] = {}
        self._identity: Dict[str, Any] = {}
        self._resource_id = ""

    def steps(self) -> "Dict[str, tuple[str, Callable[[Detail], None]]]":
        """Returns the steps in order: name, heading and function."""
        return {name: (heading, getattr(self, method)) for name, (heading, method) in PLAN.items()}

    def start(self, detail: Detail) -> None:
        self._environment.start(self._programs, self._propagation, die_with_parent=True, mode=self._mode)
        info = self._environment.info
        self._kubectl = self._environment.kubectl(self._programs.cluster)
        self._runner = PodRunner(self._kubectl)
        version = self._kubectl.json("version")["serverVersion"]["gitVersion"]
        self._narrator.facts({
            "Kubernetes": f"kube-apiserver {version} at {info['api_server']}",
            "Token issuer": info["issuer"],
            "Azure (emulator)": f"Resource Manager and Entra at {info['arm_endpoint']}",
            "Ensign": PROCESSES[self._mode],
        })
        self._narrator.say(
            "Ensign's controller has no secret either: it authenticates to Azure with the token of its own service "
            "account, in the same way as the pods below."
        )
        records = self._environment.registry.records()
        same(any(record.name == "webhook" for record in records), self._mode == "webhook", "whether a webhook is running")
        detail.update(
            kubernetes=version, api_server=info["api_server"], issuer=info["issuer"], arm_endpoint=info["arm_endpoint"],
            authority_host=info["authority_host"], tenant_id=info["tenant_id"],
            processes={record.name: record.identity.pid for record in records},
        )

    def apply(self, detail: Detail) -> None:
        self._narrator.say(
            f"The cluster operator declares in a ManagedIdentity which Azure identity there is, and that only the service "
            f"account {NAMESPACE}/{NAME} may use it. The app team, which needs no permissions in Azure, requests it with a "
            "ManagedIdentityBinding next to its Deployment. No client ID has to be copied."
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
        self._narrator.say(
            "Ready means that Azure has confirmed it: the controller found the identity, checked that the operator "
            "allows this service account, and created a federated identity credential."
        )

    def credential(self, detail: Detail) -> None:
        url = f"{self._resource_id}/federatedIdentityCredentials"
        self._narrator.command(f"GET {url}")
        found = self._credentials()
        same(len(found), 1, "the number of credentials for this subject")
        properties = found[0]["properties"]
        shown = {
            "name": found[0]["name"],
            "issuer": properties["issuer"],
            "subject": properties["subject"],
            "audience": properties["audiences"][0],
        }
        self._narrator.facts(shown)
        self._narrator.say(
            "This is all that Azure trusts: tokens from this cluster's issuer, for this service account, with this "
            "audience. The credential contains no password or certificate that could leak or expire. Its name records "
            "which cluster and service account it is for, and Ensign never changes a credential that it did not create."
        )
        same(properties["audiences"], [seed.TOKEN_AUDIENCE], "the credential's audiences")
        status = self.kubectl.json("get", BINDING, "-n", NAMESPACE)["status"]
        same(status["credential"]["name"], found[0]["name"], "the credential's name in the binding's status")
        detail.update(shown, audiences=properties["audiences"])

    def pod(self, detail: Detail) -> None:
        template = self.kubectl.json("get", f"deployment/{NAME}", "-n", NAMESPACE)["spec"]["template"]["spec"]
        written = [entry["name"] for one in template["containers"] for entry in one.get("env", [])]
        same(written, [], "the environment variables in the Deployment")
        self._pod = until(
            f"an ungated pod of deployment {NAME}", self._first_pod, POD_SECONDS + self._propagation,
            tail=self._why_no_pod,
        )
        name = self._pod["metadata"]["name"]
        containers = [one["name"] for one in self._pod["spec"]["containers"]]
        process = {one: pod_runner.read(self._pod, one) for one in containers}
        first = process[containers[0]]
        self._narrator.command(f"kubectl get pod {name} -n {NAMESPACE} -o yaml")
        self._narrator.say(f"The Deployment sets none of this: {INJECTORS[self._mode]} these variables to each container,")
        self._narrator.facts({one: first.env.get(one, "(missing)") for one in INJECTED_ENV})
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
        self._narrator.say("and a volume with a service account token, which Kubernetes issues for this pod only:")
        self._narrator.facts(volume)
        same(token.audience, seed.TOKEN_AUDIENCE, "the token's audience")
        detail.update(
            pod=name, service_account=first.service_account, containers=containers,
            env={one: first.env[one] for one in INJECTED_ENV},
            volume={**token._asdict(), "file": token.file},
            annotations=self._pod["metadata"].get("annotations", {}),
        )

    def rust(self, detail: Detail) -> None:
        self._narrator.say(
            "There is no kubelet in this cluster, so the demo does its job: it requests the token that the pod's volume "
            "describes, bound to this pod, through the TokenRequest API, and starts the program with the pod's environment "
            "and with the token at the same path. The program, examples/secretless-app, gets an Azure token with "
            "Microsoft's azure_identity crate."
        )
        self._exchange("rust", self._samples.rust, detail)

    def python(self, detail: Detail) -> None:
        self._narrator.say(
            "The same in Python, with Microsoft's azure-identity package and examples/secretless-app-python. Neither "
            "program contains anything specific to Ensign."
        )
        self._exchange("python", self._samples.python, detail)

    def without_binding(self, detail: Detail) -> None:
        self._narrator.say(
            "Someone in the same namespace copies everything that was injected, including the client ID, into another pod. "
            f"Its service account {UNBOUND} has no binding. Kubernetes issues a token for it all the same, with the same "
            "issuer and audience, and the same Rust program sends it to Entra:"
        )
        self.kubectl("create", "serviceaccount", UNBOUND, "-n", NAMESPACE)
        self._narrator.command(f"kubectl create -n {NAMESPACE} -f copied-pod.json   # serviceAccountName: {UNBOUND}")
        created = self.kubectl("create", "-f", "-", "-o", "json", stdin=json.dumps(copied(self._pod, UNBOUND)))
        process = pod_runner.read(json.loads(created), "rust")
        run = self._start(process, self._samples.rust)
        code = self._rejected(run, seed.subject(NAMESPACE, UNBOUND), detail)
        self._narrator.say(
            f"{code} means that no federated identity credential trusts this service account. A client ID alone is "
            "useless, and there is no secret to copy: only the service account in the pod's token matters."
        )

    def remove(self, detail: Detail) -> None:
        before = [one["name"] for one in self._credentials()]
        self._run("delete", BINDING, "-n", NAMESPACE, f"--timeout={READY_SECONDS}s")
        self._narrator.command(f"GET {self._resource_id}/federatedIdentityCredentials")
        left = self.arm.credentials(self._resource_id)
        self._narrator.output(json.dumps({"value": left}))
        same([one["name"] for one in left if one["name"] in before], [], "the binding's credentials left in Azure")
        same(credentials_of(self._subject, self._environment.info["issuer"], left), [], "the credentials left for the subject")
        self._narrator.say(
            "A finalizer kept the binding until Azure had confirmed the deletion of its credential. If the credential were "
            "left behind, anyone who creates a service account with that name later could use the identity. The old pod "
            "still has its token, but Entra no longer accepts it:"
        )
        detail.update(deleted=before, credentials_left=left)
        self._rejected(self._start(pod_runner.read(self._pod, "rust"), self._samples.rust), self._subject, detail)

    def stop(self, detail: Detail) -> None:
        stopped = self._environment.stop()
        left = [record.name for record in self._environment.registry.records()]
        same(left, [], "the processes that are still running")
        self._narrator.say(f"Stopped {', '.join(stopped)}. The logs are in {self._environment.registry.logs}.")
        detail.update(stopped=stopped, left_running=left)

    # Shared code

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
        self._narrator.command("kubectl " + " ".join(arguments))
        there = [str(paths.ROOT / one) if one.startswith("examples/") else one for one in arguments]
        out = self.kubectl(*there, timeout=READY_SECONDS + 5)
        self._narrator.output(out)
        return out

    def _first_pod(self) -> Optional[Dict[str, Any]]:
        items = self.kubectl.json("get", "pods", "-n", NAMESPACE, "-l", f"app={NAME}")["items"]
        # No scheduler assigns a gated pod to a node, so no kubelet would start it.
        return dict(items[0]) if items and not items[0]["spec"].get("schedulingGates") else None

    def _start(self, process: PodProcess, program: List[str]) -> Run:
        if self._runner is None:
            raise Failure("the environment was not started")
        # The only thing that a real pod would not need: Entra's certificate is signed by a public CA.
        trust = dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), self._environment.info["ca_file"])
        run = self._runner.run(process, [*program, "-o", "json"], trust)
        if run.rewritten:
            self._narrator.say(
                "(Mount namespaces are not permitted on this machine, so the token is in a temporary folder and "
                "AZURE_FEDERATED_TOKEN_FILE was changed accordingly.)"
            )
        return run

    def _start_once_trusted(self, process: PodProcess, program: List[str]) -> Run:
        """Runs a program, and repeats it until the credential has propagated, if the emulator delays that."""
        if self._propagation == 0:
            return self._start(process, program)
        self._narrator.say(
            f"(PROPAGATION_SECONDS={self._propagation}: a new credential takes that long to propagate, as in the real "
            "Entra. Until then the program's requests fail, and it is run again.)"
        )

        def propagated() -> Optional[Run]:
            run = self._start(process, program)
            return None if NO_TRUST.search(str(output_of(run).get("error", ""))) else run

        return until("the credential to propagate", propagated, self._propagation + PROPAGATION_SLACK_SECONDS)

    def _exchange(self, container: str, program: List[str], detail: Detail) -> None:
        process = pod_runner.read(self._pod, container)
        run = self._start_once_trusted(process, program)
        given = next(iter(run.given.values()))
        self._narrator.say("Sent: the pod's service account token, signed by this cluster, for Entra only. Its claims:")
        self._narrator.facts({name: given[name] for name in ("iss", "sub", "aud")})
        answer = output_of(run)
        if run.status != 0 or not answer.get("ok"):
            raise Failure(f"the program got no token: {answer.get('error') or run.error.strip() or run.out.strip()}")
        claims = answer["claims"]
        self._narrator.say(f"Received: an Azure token from Entra, through {answer['sdk']}. Its claims:")
        shown = ("iss", "aud", "tid", "appid", "oid", "sub")
        self._narrator.facts({name: claims[name] for name in shown if name in claims})
        same(claims.get("tid"), self._environment.info["tenant_id"], "the tenant in the token")
        same(claims.get("appid"), self._identity["clientId"], "the client ID in the token")
        same(claims.get("oid"), self._identity["principalId"], "the principal in the token")
        detail.update(
            container=container, program=os.path.relpath(program[-1], paths.ROOT), sdk=answer["sdk"],
            token_file=next(iter(run.given)), path_rewritten=run.rewritten, pod_token_claims=given, claims=claims,
        )

    def _rejected(self, run: Run, subject: str, detail: Detail) -> str:
        answer = output_of(run)
        if run.status == 0 or answer.get("ok"):
            raise Failure(f"Entra issued a token for {subject}, which no credential trusts")
        error = str(answer.get("error", ""))
        code = NO_TRUST.search(error)
        given = next(iter(run.given.values()))
        self._narrator.facts({"sub": given["sub"], "Entra's error": first_sentence(error)})
        if code is None:
            raise Failure(f"expected Entra to reject {subject} because no credential matches, but the error is: {error}")
        same(given["sub"], subject, "the subject of the rejected token")
        detail.update(error_code=code.group(0), error=error, subject=given["sub"], pod_token_claims=given)
        return code.group(0)

    def _why_not(self) -> str:
        answer = self.kubectl.try_("get", BINDING, "-n", NAMESPACE, "-o", "yaml")
        return f"{answer.out}\n{self._environment.registry.tail('controller')}"

    def _why_no_pod(self) -> str:
        answer = self.kubectl.try_("get", "events", "-n", NAMESPACE, "--sort-by=.lastTimestamp")
        return f"events in {NAMESPACE}:\n{answer.out}\n{self._environment.registry.tail('webhook')}"


def same(found: Any, wanted: Any, what: str) -> None:
    """Raises `Failure` unless two values are equal."""
    if found != wanted:
        raise Failure(f"{what}: expected {wanted!r}, found {found!r}")


def output_of(run: Run) -> Dict[str, Any]:
    """Returns the line of JSON that a sample program printed."""
    try:
        return dict(json.loads(run.out))
    except (ValueError, TypeError):
        return {}


def first_sentence(text: str) -> str:
    """Returns Entra's error message without its trace IDs and without the SDK's prefix."""
    start = text.find("AADSTS")
    return re.split(r"\s+(?:Check your|https://|Trace ID)", text[max(start, 0) :], maxsplit=1)[0].strip()


def copied(pod: Dict[str, Any], service_account: str) -> Dict[str, Any]:
    """Returns a pod with another service account that has everything that was injected into `pod`."""
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
