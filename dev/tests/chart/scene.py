"""A cluster to install the chart on, with the Azure emulator, and an emulated network and kubelet for Ensign's pods."""

import json
import os
import shutil
import tempfile
import threading
from pathlib import Path

from api import Api, Refused
from chart_values import NAMESPACE, RELEASE
from egress import Network
from ensign_dev import build, control_plane, environment, helm, paths, seed
from ensign_dev.azure import Arm
from ensign_dev.kubectl import Kubectl
from ensign_dev.progress import Progress
from ensign_dev.waiting import until
from kubelet import Kubelet

SECONDS = 180.0
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
REGISTRATION = f"{ADMISSION}/mutatingwebhookconfigurations/ensign"
SECRET = f"/api/v1/namespaces/{NAMESPACE}/secrets/ensign-webhook-tls"
POLICIES = [
    f"{ADMISSION}/{kind}/{name}.ensign.dev"
    for kind, names in (
        ("mutatingadmissionpolicies", ("labelled-pods", "pods", "probe")),
        ("validatingadmissionpolicies", ("injected-pods", "labelled-pods", "pods")),
    )
    for name in names
]
# The Prometheus operator's kinds, because the API server needs to know the chart's objects.
MONITORS = {"servicemonitors": "ServiceMonitor", "prometheusrules": "PrometheusRule"}


def programs():
    """Returns the programs that the test suite has built, or builds them."""
    cluster = control_plane.ensure(Progress())
    if "ENSIGN_BIN" in os.environ and "ENSIGN_AZURE_EMULATOR_BIN" in os.environ:
        ensign, emulator = (Path(os.environ[name]) for name in ("ENSIGN_BIN", "ENSIGN_AZURE_EMULATOR_BIN"))
        return environment.Programs(ensign, emulator, cluster)
    return environment.Programs.of(build.programs(), cluster)


class Scene(environment.Environment):
    """A cluster for the duration of a test or a test class."""

    def __init__(self):
        root = Path(tempfile.mkdtemp(prefix="ensign-chart-"))
        super().__init__(root, Progress())
        self.programs = programs()
        self._state.mkdir(mode=0o700)
        self.network = self.pods = self.api = None
        try:
            cluster = self._start_control_plane(self.programs, die_with_parent=True)
            self.azure = self._start_emulator(self.programs, cluster, 0, die_with_parent=True)
            self.audit_log = Path(cluster["audit_log"])
            self.kubectl = Kubectl(self.programs.cluster.kubectl, Path(cluster["kubeconfig"]), root / "kubectl-cache")
            self.helm = helm.Helm(helm.ensure(Progress()), root / "helm", Path(cluster["kubeconfig"]))
            folder = root / "administrator"
            folder.mkdir()
            self.api = Api.administrator(self.kubectl, folder)
            self.issuer = cluster["issuer"]
            namespace = {"metadata": {"name": NAMESPACE, "labels": {
                "pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}}}
            self.api.post("/api/v1/namespaces", namespace)
            ca = {"metadata": {"name": "azure-ca"}, "data": {"ca.crt": Path(self.azure["ca_file"]).read_text()}}
            self.api.post(f"/api/v1/namespaces/{NAMESPACE}/configmaps", ca)
            self.pods = Kubelet(self.api, NAMESPACE, self.programs.ensign, root / "pods")
            self.network = Network(cluster["egress_socket"], self.pods.webhook_ports)
            self.values = root / "values.yaml"
            self.values.write_text(json.dumps(self._values()))
        except BaseException:
            self.close()
            raise

    def close(self):
        """Stops everything."""
        for one in (self.pods, self.network, self.api):
            if one is not None:
                one.close()
        self.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    def _values(self):
        return {
            "image": {"repository": "registry.example/ensign"},
            "azure": {
                "tenantID": self.azure["tenant_id"], "clientID": seed.CONTROLLER_CLIENT_ID, "cloud": "custom",
                "armEndpoint": self.azure["arm_endpoint"], "authorityHost": self.azure["authority_host"],
                "propagationDelay": "0s", "extraCA": {"configMapName": "azure-ca"},
            },
            # The issuer is only reachable from this machine, where the emulator runs.
            "cluster": {"allowPrivateIssuer": True},
            # There is no cluster DNS.
            "controller": {"extraArgs": [f"--webhook-probe-address=127.0.0.1:{self.network.port}"]},
            "log": {"format": "text"},
        }

    # Operations on the chart

    def install(self, *arguments):
        self.helm("install", RELEASE, paths.CHART, "-n", NAMESPACE, "--values", self.values, *arguments)

    def upgrade(self, *arguments):
        self.helm("upgrade", RELEASE, paths.CHART, "-n", NAMESPACE, "--values", self.values, *arguments)

    def uninstall(self):
        return self.helm("uninstall", RELEASE, "-n", NAMESPACE, "--ignore-not-found")

    def render(self, *arguments):
        version = self.api.get("/version")["gitVersion"]
        return self.helm(
            "template", RELEASE, paths.CHART, "-n", NAMESPACE, "--values", self.values, "--kube-version", version, *arguments
        )

    # Waiting

    def until(self, what, probe, tail=lambda: ""):
        """Waits for a condition; fails immediately if a pod exits unexpectedly or the kubelet fails."""
        def hopeless():
            return "; ".join(self.pods.failures) or None

        return until(what, lambda: probe() or None, SECONDS, hopeless, lambda: tail() + self.pods.logs())

    def rolled_out(self):
        """Waits until every Deployment has finished its rollout."""
        def done():
            for one in self.api.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments")["items"]:
                status, wanted = one.get("status", {}), one["spec"]["replicas"]
                counts = [status.get(name) for name in ("replicas", "updatedReplicas", "availableReplicas")]
                if counts != [wanted] * 3 or status.get("observedGeneration") != one["metadata"]["generation"]:
                    return False
            return not any(pod.stopping for pod in list(self.pods.running.values()))

        self.until("the rollout", done)

    def bound(self):
        """Waits until the binding of the README's example is Ready."""
        for file in ("01-namespace", "02-managed-identity", "03-binding"):
            self.kubectl("apply", "-f", str(paths.ROOT / "examples" / f"{file}.yaml"))
        path = "/apis/ensign.dev/v1alpha1/namespaces/shop/managedidentitybindings/orders"
        self.until(
            "the binding to be Ready", lambda: condition(self.api.get(path), "Ready") == "True",
            lambda: json.dumps(self.api.get(path).get("status")),
        )

    def credentials(self):
        """Returns the names of the credentials of the README's identity in Azure."""
        identity = self.api.get("/apis/ensign.dev/v1alpha1/managedidentities/orders")["spec"]["existing"]["resourceID"]
        arm = Arm(self.azure["arm_endpoint"], self.azure["arm_token_url"], Path(self.azure["ca_file"]))
        return [one["name"] for one in arm.credentials(identity)]

    def enforced(self):
        """Waits until the API server denies a labelled pod that no binding matches."""
        self.until("labelled pods to be denied", lambda: self.admitted("default", labelled=True, account="default") is None)

    def admitted(self, namespace="shop", labelled=False, account="orders"):
        """Returns the pod as it would be stored; None if it is denied."""
        try:
            return self.api.post(f"/api/v1/namespaces/{namespace}/pods?dryRun=All", pod(labelled, account))
        except Refused as refused:
            if refused.status != 403:
                raise
            return None

    def filled_in(self):
        """Returns what controller and webhook have filled in, by object path."""
        found = {}
        for path, field in ((REGISTRATION, "webhooks"), (SECRET, "data"), *((one, "spec") for one in POLICIES)):
            found[path] = (self.api.find(path) or {}).get(field)
        return found

    def audit(self):
        """Returns the audit events so far."""
        text = self.audit_log.read_text()
        return [json.loads(line) for line in text.split("\n")[:-1]]


class Load:
    """Creates pods continuously. All must be created and injected."""

    def __init__(self, scene):
        self._scene = scene
        self._stop = threading.Event()
        self.seen = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        scene.until("the first pods", lambda: len(self.seen) >= 5)

    def _run(self):
        while not self._stop.is_set():
            try:
                created = self._scene.api.post("/api/v1/namespaces/shop/pods?dryRun=All", pod(True, "orders"))
                self.seen.append("injected" if is_injected(created) else f"not injected: {json.dumps(created['spec'])}")
            except Exception as error:
                self.seen.append(repr(error))

    def end(self):
        """Stops; returns how many pods were created, and the distinct errors."""
        self._stop.set()
        self._thread.join()
        return len(self.seen), sorted({one for one in self.seen if one != "injected"})


def pod(labelled, account):
    labels = {"ensign.dev/inject": "true"} if labelled else {}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "pod-", "labels": labels},
        "spec": {
            "serviceAccountName": account, "automountServiceAccountToken": False,
            "containers": [{"name": "app", "image": "app:1"}],
        },
    }


def is_injected(created):
    names = [one["name"] for one in created["spec"]["containers"][0].get("env", [])]
    return "AZURE_CLIENT_ID" in names


def condition(found, kind):
    """Returns the status of a condition."""
    conditions = found.get("status", {}).get("conditions", [])
    return next((one["status"] for one in conditions if one["type"] == kind), None)
