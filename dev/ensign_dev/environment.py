"""A complete local environment: a Kubernetes control plane, the Azure emulator, and Ensign.

    <root>/env.json         addresses and paths, once it is up
    <root>/logs/            logs of all processes; kept when the environment is stopped
    <root>/processes.json   running processes; any later command can stop them
    <root>/state/           everything else; deleted when the environment is stopped
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import shlex
import shutil
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional

from . import children, paths, seed
from .azure import Arm
from .control_plane import Binaries
from .failure import Failure
from .image import layout
from .interrupts import uninterrupted
from .kubectl import Kubectl
from .processes import Registry, fingerprint
from .progress import Progress
from .waiting import until

CONTROL_PLANE_SECONDS = 200.0
READY_SECONDS = 60.0
# Only another `make up` renews these tokens. A week is longer than a development environment usually runs.
CREDENTIALS_SECONDS = 7 * 24 * 3600
HTTP_SECONDS = 5.0
WEBHOOK_CONFIGURATION = "ensign"
REGISTRATIONS = {"pods.ensign.dev", "labelled-pods.ensign.dev", "injected-pods.ensign.dev"}
MODES = ("webhook", "policy")
# Below the kernel's range of ephemeral ports.
PORTS = range(20000, 32768)


class Programs(NamedTuple):
    """The binaries of an environment."""

    ensign: Path
    emulator: Path
    cluster: Binaries

    @classmethod
    def of(cls, built: Mapping[str, Path], cluster: Binaries) -> "Programs":
        """Selects them from cargo's executables, by name."""
        return cls(built["ensign"], built["ensign-azure-emulator"], cluster)


class Environment:
    """An environment in the folder `root`."""

    def __init__(self, root: Path, progress: Progress) -> None:
        self.root = root
        self.file = root / "env.json"
        self._shell_file = root / "env.sh"
        self.registry = Registry(root)
        self._state = root / "state"
        self._progress = progress
        self.info: Dict[str, Any] = {}
        # Whether pods of azure-workload-identity are injected too. It cannot be changed while the environment runs.
        self.compatibility = False

    @contextlib.contextmanager
    def locked(self, wait: bool) -> Iterator[None]:
        """Prevents other commands from starting or stopping this environment in the meantime."""
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / "lock", "a", encoding="utf-8") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    raise Failure(f"another command is using {self.root}; wait until it has finished") from None
                self._progress.say(f"Another command is using {self.root}; waiting for it ...")
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def load(self) -> bool:
        """Whether the environment is up: env.json exists, and the stateful processes are running."""
        try:
            self.info = json.loads(self.file.read_text())
        except (OSError, ValueError):
            return False
        return all(self.registry.find(name) is not None for name in ("control-plane", "azure-emulator"))

    def start(self, programs: Programs, propagation_seconds: int, die_with_parent: bool, mode: str = MODES[0]) -> None:
        """Starts everything and waits until it is ready. After a failure, nothing is left running."""
        self.stop()
        self._state.mkdir(parents=True, mode=0o700)
        try:
            self._start(programs, propagation_seconds, die_with_parent, mode)
        except BaseException:
            self.stop()
            raise

    def refresh(self, programs: Programs) -> List[str]:
        """Updates a running environment: CRDs, tokens, and programs that exited or were rebuilt.

        Returns the names of the processes that were restarted. Azure and the cluster keep their state.
        """
        kubectl = self.kubectl(programs.cluster)
        self._apply(kubectl)
        self._issue_tokens(kubectl)
        current = fingerprint(programs.ensign)
        stale = [
            name for name in self._ensign()
            if (record := self.registry.find(name)) is None or record.program != current
        ]
        for name in stale:
            if not self.registry.stop(name):
                raise Failure(f"could not stop {name}; run `make down`, then `make up`")
        self._start_ensign(programs.ensign, stale, die_with_parent=False)
        self._await_registration(kubectl)
        return stale

    def restart_controller(self, programs: Programs, mode: str, die_with_parent: bool) -> None:
        """Restarts the controller with another injection mode; a running webhook keeps running."""
        if not self.registry.stop("controller"):
            raise Failure("could not stop the controller")
        self.info["mode"] = mode
        self.start_again(programs, "controller", die_with_parent)

    def start_again(self, programs: Programs, name: str, die_with_parent: bool) -> None:
        """Starts a stopped process of Ensign, and waits until it is ready."""
        self._start_ensign(programs.ensign, [name], die_with_parent)

    def stop(self) -> List[str]:
        """Stops all processes and deletes everything except the logs; returns the names of the processes."""
        with uninterrupted():
            running = [one.name for one in self.registry.records() if self.registry.find(one.name) is not None]
            self.file.unlink(missing_ok=True)
            self._shell_file.unlink(missing_ok=True)
            stuck = self.registry.stop_all()
            if stuck:
                raise Failure(f"could not stop {', '.join(stuck)}; see {self.registry.logs}")
            shutil.rmtree(self._state, ignore_errors=True)
            return running

    def write(self) -> None:
        """Writes all addresses and paths: as JSON for programs, and as variables for a shell."""
        _write_private(self._shell_file, shell_variables(self.info))
        _write_private(self.file, json.dumps(self.info, indent=2) + "\n")

    def kubectl(self, cluster: Binaries) -> Kubectl:
        """Returns kubectl with cluster-admin permissions."""
        return Kubectl(cluster.kubectl, Path(self.info["kubeconfig"]), self._state / "kubectl-cache")

    def arm(self) -> Arm:
        """Returns a client of ARM with administrator permissions."""
        return Arm(self.info["arm_endpoint"], self.info["arm_token_url"], Path(self.info["ca_file"]))

    # The steps of `start`

    def _start(self, programs: Programs, propagation_seconds: int, die_with_parent: bool, mode: str) -> None:
        self._progress.update("Starting the control plane ...")
        cluster = self._start_control_plane(programs, die_with_parent)
        self._progress.update("Starting the Azure emulator ...")
        azure = self._start_emulator(programs, cluster, propagation_seconds, die_with_parent)
        self.info = {
            **azure,
            "kubeconfig": cluster["kubeconfig"],
            "api_server": cluster["server"],
            "issuer": cluster["issuer"],
            "audit_log": cluster["audit_log"],
            "kubectl": str(programs.cluster.kubectl),
            "logs": str(self.registry.logs),
            "mode": mode,
            "propagation_seconds": propagation_seconds,
            "webhook_url": f"https://127.0.0.1:{_free_port()}/mutate-pods",
            "compatibility": self.compatibility,
        }
        kubectl = self.kubectl(programs.cluster)
        self._progress.update("Applying the CRDs and Ensign's RBAC ...")
        self._apply(kubectl)
        self._issue_tokens(kubectl)
        self._progress.update(f"Starting Ensign's {' and '.join(self._ensign())} ...")
        self._start_ensign(programs.ensign, self._ensign(), die_with_parent)
        self._progress.update(f"Waiting for the {mode} to take effect in the API server ...")
        self._await_registration(kubectl)
        self._progress.done()
        self.write()

    def _start_control_plane(self, programs: Programs, die_with_parent: bool) -> Dict[str, Any]:
        command: "List[children.Argument]" = [
            programs.cluster.control_plane, "run", "--dir", self._state / "control-plane",
        ]
        self.registry.start("control-plane", command, children.environment(), die_with_parent)
        return self.ready_line("control-plane", CONTROL_PLANE_SECONDS)

    def _start_emulator(
        self, programs: Programs, cluster: Dict[str, Any], propagation_seconds: int, die_with_parent: bool
    ) -> Dict[str, Any]:
        document = self._state / "azure-seed.json"
        _write_private(document, json.dumps(seed.state(cluster["issuer"]), indent=2) + "\n")
        data = self._state / "azure"
        data.mkdir()
        command: "List[children.Argument]" = [
            programs.emulator, "--listen", "127.0.0.1:0", "--data-dir", data, "--seed", document,
            "--issuer-ca-file", cluster["ca_file"], "--propagation-delay", f"{propagation_seconds}s",
        ]
        self.registry.start("azure-emulator", command, children.environment(), die_with_parent)
        return self.ready_line("azure-emulator", READY_SECONDS)

    def _apply(self, kubectl: Kubectl) -> None:
        """Applies the CRDs and the objects of an install: service accounts, RBAC, empty registrations."""
        manifests = paths.ROOT / "dev" / "manifests"
        kubectl("apply", "-f", str(paths.ROOT / "crds"), "-f", str(manifests))
        if self.info.get("compatibility"):
            kubectl("apply", "-f", str(manifests / "compatibility"))
        kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", str(paths.ROOT / "crds"))

    def _ensign(self) -> List[str]:
        """Returns the names of Ensign's processes."""
        return ["controller"] if self.info.get("mode") == "policy" else ["webhook", "controller"]

    def _issue_tokens(self, kubectl: Kubectl) -> None:
        """Issues the tokens that a kubelet would give to Ensign's pods: for the API server, and one for Entra."""
        cluster = kubectl.json("config", "view", "--raw", "--minify")["clusters"][0]["cluster"]
        for account in (seed.CONTROLLER, seed.WEBHOOK):
            token_file = self._state / f"{account}-token"
            _write_private(token_file, kubectl.token(seed.NAMESPACE, account, CREDENTIALS_SECONDS))
            _write_private(self._kubeconfig(account), json.dumps(kubeconfig(account, cluster, token_file)))
        azure = kubectl.token(seed.NAMESPACE, seed.CONTROLLER, CREDENTIALS_SECONDS, seed.TOKEN_AUDIENCE)
        _write_private(self._azure_token(), azure)

    def _start_ensign(self, program: Path, names: List[str], die_with_parent: bool) -> None:
        for name in names:
            ready = self._ready_file(name)
            ready.unlink(missing_ok=True)
            arguments, env = self._webhook() if name == "webhook" else self._controller()
            command: "List[children.Argument]" = [program, name, *arguments, "--ready-file", ready]
            self.registry.start(name, command, children.environment({**layout.VARIABLES, **env}), die_with_parent)
        for name in names:
            self._await_ready(name)

    def _webhook(self) -> "tuple[List[str], Dict[str, children.Argument]]":
        address = self.info["webhook_url"].split("/")[2]
        arguments = [
            "--listen", address, "--tls-san", "127.0.0.1", "--namespace", seed.NAMESPACE,
            "--tls-secret", "ensign-webhook-tls", "--azure-cloud", "custom",
            "--azure-authority-host", self.info["authority_host"], "--azure-token-audience", seed.TOKEN_AUDIENCE,
            "--health-listen", "127.0.0.1:0", "--azure-tenant-id", self.info["tenant_id"],
            # There is no load balancer to drain.
            "--drain-duration", "0s", *self._mode(),
        ]
        return arguments, {"KUBECONFIG": self._kubeconfig(seed.WEBHOOK)}

    def _controller(self) -> "tuple[List[str], Dict[str, children.Argument]]":
        arguments = [
            "--namespace", seed.NAMESPACE, "--azure-cloud", "custom",
            "--azure-arm-endpoint", self.info["arm_endpoint"], "--azure-authority-host", self.info["authority_host"],
            "--azure-token-audience", seed.TOKEN_AUDIENCE, "--azure-ca-file", self.info["ca_file"],
            "--azure-tenant-id", self.info["tenant_id"],
            # The controller's identity has all permissions in the emulator, including this one.
            "--role-assignments",
            # The issuer is only reachable on this machine, where the emulator runs.
            "--allow-private-issuer",
            "--webhook-configuration", WEBHOOK_CONFIGURATION, "--webhook-url", self.info["webhook_url"],
            "--webhook-secret", "ensign-webhook-tls", "--health-listen", "127.0.0.1:0",
            "--injection", self.info["mode"], *self._mode(),
            # Pods stay gated for as long as a credential takes to propagate in the emulator.
            "--propagation-delay", f"{self.info.get('propagation_seconds', 0)}s",
        ]
        env: "Dict[str, children.Argument]" = {
            "KUBECONFIG": self._kubeconfig(seed.CONTROLLER),
            "AZURE_CLIENT_ID": seed.CONTROLLER_CLIENT_ID,
            "AZURE_TENANT_ID": self.info["tenant_id"],
            "AZURE_FEDERATED_TOKEN_FILE": self._azure_token(),
            "AZURE_AUTHORITY_HOST": self.info["authority_host"],
        }
        return arguments, env

    def _mode(self) -> List[str]:
        return ["--azure-workload-identity-compat"] if self.info.get("compatibility") else []

    def _await_ready(self, name: str) -> None:
        def answers() -> Optional[str]:
            try:
                address = str(json.loads(self._ready_file(name).read_text())["health_address"])
            except (OSError, ValueError, KeyError):
                return None
            return address if _is_ok(f"http://{address}/readyz") else None

        address = until(
            f"{name} to be ready", answers, READY_SECONDS,
            lambda: self.registry.ended(name), lambda: self.registry.tail(name),
        )
        self.info[f"{name}_health"] = f"http://{address}"

    def _await_registration(self, kubectl: Kubectl) -> None:
        """Waits until the API server denies a labelled pod that no binding matches, through the webhook or the policies."""
        probe = json.dumps({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "probe", "namespace": "default", "labels": {"ensign.dev/inject": "true"}},
            "spec": {"containers": [{"name": "probe", "image": "probe"}]},
        })
        message = ""

        def denies() -> Optional[bool]:
            nonlocal message
            result = kubectl.try_("create", "--dry-run=server", "-f", "-", stdin=probe)
            message = result.error.strip()
            is_denied = result.status != 0 and any(name in message for name in REGISTRATIONS)
            # The API server's message about an unreachable webhook contains its name too.
            return True if is_denied and "failed calling webhook" not in message else None

        until(
            "the API server to deny labelled pods that no binding matches", denies, READY_SECONDS,
            lambda: next((how for how in map(self.registry.ended, self._ensign()) if how), None),
            lambda: f"last response: {message or 'the pod was admitted'}; {self.registry.tail('controller')}",
        )

    def ready_line(self, name: str, seconds: float) -> Dict[str, Any]:
        """Returns the line of JSON that a process prints when it is ready."""

        def line() -> Optional[Dict[str, Any]]:
            text = self.registry.out(name).read_text()
            return dict(json.loads(text.splitlines()[0])) if "\n" in text else None

        return until(
            f"{name} to be ready", line, seconds,
            lambda: self.registry.ended(name), lambda: self.registry.tail(name),
        )

    def _kubeconfig(self, account: str) -> Path:
        return self._state / f"{account}-kubeconfig"

    def _azure_token(self) -> Path:
        return self._state / f"{seed.CONTROLLER}-azure-token"

    def _ready_file(self, name: str) -> Path:
        return self._state / f"{name}-ready.json"


def kubeconfig(account: str, cluster: Dict[str, Any], token_file: Path) -> Dict[str, Any]:
    """Returns a kubeconfig for a service account. The token is in a separate file, which clients reload."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "ensign", "cluster": cluster}],
        "users": [{"name": account, "user": {"tokenFile": str(token_file)}}],
        "contexts": [{"name": "ensign", "context": {"cluster": "ensign", "user": account}}],
        "current-context": "ensign",
    }


def shell_variables(info: Dict[str, Any]) -> str:
    """Returns a shell script that exports the variables."""
    identities = (
        f"/subscriptions/{info['subscription_id']}/resourceGroups/{info['resource_group']}"
        "/providers/Microsoft.ManagedIdentity/userAssignedIdentities"
    )
    variables = {
        "KUBECONFIG": info["kubeconfig"],
        "ENSIGN_ARM_ENDPOINT": info["arm_endpoint"],
        "ENSIGN_ARM_TOKEN_URL": info["arm_token_url"],
        "ENSIGN_AUTHORITY_HOST": info["authority_host"],
        "ENSIGN_CA_FILE": info["ca_file"],
        "ENSIGN_IDENTITIES": identities,
    }
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    folder = shlex.quote(os.path.dirname(info["kubectl"]))
    return "\n".join([*lines, f'export PATH={folder}:"$PATH"', ""])


def propagation_seconds() -> int:
    """PROPAGATION_SECONDS: how long a new credential takes to propagate in the emulator; 0 by default."""
    text = os.environ.get("PROPAGATION_SECONDS") or "0"
    if not text.isdigit():
        raise Failure(f"PROPAGATION_SECONDS must be a number of seconds, not {text!r}")
    return int(text)


def mode() -> str:
    """MODE: what injects pods; the webhook by default."""
    text = os.environ.get("MODE") or MODES[0]
    if text not in MODES:
        raise Failure(f"MODE must be {' or '.join(MODES)}, not {text!r}")
    return text


def compatibility() -> bool:
    """COMPAT: whether pods of azure-workload-identity are injected too; 0 by default."""
    text = os.environ.get("COMPAT") or "0"
    if text not in ("0", "1"):
        raise Failure(f"COMPAT must be 0 or 1, not {text!r}")
    return text == "1"


def _write_private(file: Path, text: str) -> None:
    fresh = file.with_name(file.name + ".tmp")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as opened:
        opened.write(text)
    os.replace(fresh, file)


def _is_ok(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=HTTP_SECONDS) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _free_port() -> int:
    for port in random.sample(PORTS, 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise Failure(f"no free port between {PORTS.start} and {PORTS.stop - 1} on 127.0.0.1")
