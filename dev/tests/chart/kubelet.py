"""Emulates a kubelet for the pods of one namespace: each pod is a process on this machine.

A pod is assigned to a node and gets its volumes as folders, tokens of its service account bound to the pod, its arguments and
its environment. Because there is no separate network and file system, pods listen on free loopback ports, and paths below a
mount are replaced by those of the volume's folder. Readiness is written to the pod's status, so that the Deployment
controller performs rollouts as usual. A deleted pod receives SIGTERM and is removed once its process has exited. The pod of
a Job succeeds or fails like its process.
"""

import json
import os
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request

from api import Refused
from ensign_dev import children, processes

NODE = "node-of-the-test"
PAUSE_SECONDS = 0.2
TOKEN_SECONDS = 3600
API_TOKEN_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


class Running:
    """The process of one pod."""

    def __init__(self, pod, folder, process):
        self.name = pod["metadata"]["name"]
        self.uid = pod["metadata"]["uid"]
        self.labels = pod["metadata"]["labels"]
        self.account = pod["spec"]["serviceAccountName"]
        self.runs_once = pod["spec"].get("restartPolicy") == "Never"
        self.folder = folder
        self.process = process
        self.ready = False
        self.stopping = False
        self.condition = None

    def addresses(self):
        try:
            return json.loads((self.folder / "ready.json").read_text())
        except (OSError, ValueError):
            return {}

    def is_ready(self):
        address = self.addresses().get("health_address")
        if address is None or self.process.poll() is not None:
            return False
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://{address}/readyz", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def log(self):
        return (self.folder / "log").read_text(errors="replace")


class Kubelet:
    """Runs the pods of a namespace until it is closed."""

    def __init__(self, api, namespace, program, folder):
        self._api = api
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._namespace = namespace
        self._program = program
        self._folder = folder
        self._stop = threading.Event()
        self.running = {}
        self.done = set()
        self.ended = []
        self.failures = []
        api.post("/api/v1/nodes", {"kind": "Node", "apiVersion": "v1", "metadata": {"name": NODE}})
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self):
        self._stop.set()
        self._thread.join()

    def ready(self, component):
        """The ready pods of a component that are not terminating."""
        label = "app.kubernetes.io/component"
        return [
            one for one in list(self.running.values())
            if one.ready and not one.stopping and one.labels.get(label) == component
        ]

    def webhook_ports(self):
        """The ports of the ready webhook replicas, like the addresses in an EndpointSlice."""
        urls = [one.addresses().get("webhook_url") for one in self.ready("webhook")]
        return sorted(int(url.split("/")[2].rpartition(":")[2]) for url in urls if url)

    def logs(self):
        """The end of every log, for error messages."""
        return "\n".join(f"{one.name}:\n{one.log()[-3000:]}" for one in [*self.running.values(), *self.ended[-4:]])

    def _run(self):
        while not self._stop.wait(PAUSE_SECONDS):
            try:
                self._sync()
            except Exception as error:  # reported by `Scene.until`
                self.failures.append(repr(error))
        for one in self.running.values():
            one.process.send_signal(signal.SIGTERM)
        for one in self.running.values():
            try:
                one.process.wait(10)
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()

    def _sync(self):
        for pod in self._api.get(self._pods)["items"]:
            metadata = pod["metadata"]
            one = self.running.get(metadata["uid"])
            if one is None and metadata.get("deletionTimestamp") is None and metadata["uid"] not in self.done:
                if metadata["labels"].get("app.kubernetes.io/name") == "ensign":
                    self._start(pod)
            elif one is not None and metadata.get("deletionTimestamp") is not None and not one.stopping:
                one.stopping = True
                one.process.send_signal(signal.SIGTERM)
        for one in list(self.running.values()):
            if one.process.poll() is not None and one.runs_once:
                self._finish(one)
                continue
            if one.process.poll() is not None:
                if not one.stopping:
                    self.failures.append(f"{one.name} exited unexpectedly: {one.log()[-2000:]}")
                self._remove(one)
                continue
            one.ready = one.is_ready()
            if one.condition != one.ready:
                self._publish_readiness(one)

    def _start(self, pod):
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        if not pod["spec"].get("nodeName"):
            binding = {
                "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
                "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
            }
            self._api.post(f"{self._pods}/{name}/binding", binding)
        folder = self._folder / uid
        folder.mkdir(parents=True, mode=0o700)
        (container,) = pod["spec"]["containers"]
        mounts = self._mount(pod, container, folder)

        def located(text):
            for path, place in mounts.items():
                text = text.replace(path, str(place))
            return text

        env = {one["name"]: located(self._value(one, pod)) for one in container.get("env", [])}
        env["KUBECONFIG"] = str(self._kubeconfig(mounts[API_TOKEN_MOUNT], folder))
        arguments = [on_loopback(located(one)) for one in container["args"]]
        ready = [] if pod["spec"].get("restartPolicy") == "Never" else ["--ready-file", folder / "ready.json"]
        command = [self._program, *arguments, *ready]
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder,
                env=children.environment(env), start_new_session=True, preexec_fn=processes.parent_death_signal(),
            )
        self.running[uid] = Running(pod, folder, process)

    def _mount(self, pod, container, folder):
        places = {}
        for mount in container.get("volumeMounts", []):
            (volume,) = [one for one in pod["spec"]["volumes"] if one["name"] == mount["name"]]
            place = folder / volume["name"]
            place.mkdir(mode=0o700)
            sources = volume["projected"]["sources"] if "projected" in volume else [volume]
            for source in sources:
                if "serviceAccountToken" in source:
                    wanted = source["serviceAccountToken"]
                    private(place / wanted["path"], self._token(pod, wanted.get("audience")))
                elif "configMap" in source:
                    data = self._api.get(f"/api/v1/namespaces/{self._namespace}/configmaps/{source['configMap']['name']}")
                    for item in source["configMap"].get("items") or []:
                        private(place / item["path"], data["data"][item["key"]])
            places[mount["mountPath"]] = place
        return places

    def _token(self, pod, audience):
        account, metadata = pod["spec"]["serviceAccountName"], pod["metadata"]
        spec = {
            "expirationSeconds": TOKEN_SECONDS,
            "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]},
        }
        if audience:
            spec["audiences"] = [audience]
        path = f"/api/v1/namespaces/{self._namespace}/serviceaccounts/{account}/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        return self._api.post(path, request)["status"]["token"]

    @staticmethod
    def _value(variable, pod):
        if "value" in variable or "valueFrom" not in variable:
            return variable.get("value", "")
        field = variable["valueFrom"]["fieldRef"]["fieldPath"]
        return {"metadata.name": pod["metadata"]["name"]}[field]

    def _kubeconfig(self, place, folder):
        file = folder / "kubeconfig"
        private(file, json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "pod",
            "clusters": [{"name": "pod", "cluster": {
                "server": self._api.server, "certificate-authority": str(place / "ca.crt")}}],
            "users": [{"name": "pod", "user": {"tokenFile": str(place / "token")}}],
            "contexts": [{"name": "pod", "context": {"cluster": "pod", "user": "pod"}}],
        }))
        return file

    def _publish_readiness(self, one):
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        status = "True" if one.ready else "False"
        conditions = [
            {"type": kind, "status": status, "lastTransitionTime": now} for kind in ("Ready", "ContainersReady")
        ]
        self._write_status(one, {"phase": "Running", "conditions": conditions})
        one.condition = one.ready

    def _finish(self, one):
        del self.running[one.uid]
        self.done.add(one.uid)
        self.ended.append(one)
        self._write_status(one, {"phase": "Succeeded" if one.process.returncode == 0 else "Failed"})

    def _write_status(self, one, status):
        body = {"metadata": {"uid": one.uid}, "status": status}
        try:
            self._api.patch(f"{self._pods}/{one.name}/status", body, "strategic-merge")
        except Refused as refused:
            if refused.status not in (404, 409):
                raise

    def _remove(self, one):
        del self.running[one.uid]
        self.ended.append(one)
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "preconditions": {"uid": one.uid}}
        try:
            self._api.delete(f"{self._pods}/{one.name}", options)
        except Refused as refused:
            if refused.status not in (404, 409):
                raise


def on_loopback(argument):
    """Makes a pod listen on a free loopback port, because it has no IP address of its own."""
    for flag in ("--listen=", "--health-listen="):
        if argument.startswith(flag):
            return f"{flag}127.0.0.1:0"
    return argument


def private(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as opened:
        opened.write(text)
