"""Runs a program as a kubelet would run it in a container of an admitted pod, because there is no kubelet here.

It requests the tokens of the pod's projected volumes (TokenRequest), and starts the program with the container's environment
and with the tokens at their exact paths, in a separate mount namespace. If mount namespaces are not permitted on this
machine, the tokens are written to a temporary folder, the paths in the environment are rewritten, and `Run.rewritten` is
True.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

from . import jwt
from .failure import Failure
from .kubectl import Kubectl, PodReference

TIMEOUT_SECONDS = 90.0
SANDBOX = Path(__file__).with_name("pod_sandbox.py")
# Kubernetes' default for projected tokens.
DEFAULT_EXPIRATION_SECONDS = 3600

UNSHARE_AS_ROOT = ["unshare", "--mount", "--propagation", "private", "--"]
UNSHARE_AS_USER = ["unshare", "--user", "--map-root-user", "--mount", "--propagation", "private", "--"]


class ProjectedToken(NamedTuple):
    """A service account token that is mounted into a container."""

    volume: str
    mount_path: str
    path: str
    audience: Optional[str]
    expiration_seconds: int
    read_only: bool

    @property
    def file(self) -> str:
        """The absolute path in the container."""
        return os.path.join(self.mount_path, self.path)


class PodProcess(NamedTuple):
    """What a kubelet would provide to one container of a pod."""

    pod: str
    uid: str
    namespace: str
    service_account: str
    container: str
    env: Dict[str, str]
    tokens: List[ProjectedToken]


class Run(NamedTuple):
    """The exit status and output of a program."""

    status: int
    out: str
    error: str
    rewritten: bool
    given: Dict[str, Dict[str, Any]]
    """The claims of its tokens, by path. The tokens themselves are not kept."""


def read(pod: Dict[str, Any], container: str) -> PodProcess:
    """Returns what one container of an admitted pod needs. Raises `Failure` if the pod uses an unsupported feature."""
    metadata, spec = pod["metadata"], pod["spec"]
    name = metadata["name"]
    found = next((one for one in spec["containers"] if one["name"] == container), None)
    if found is None:
        raise Failure(f"pod {name} has no container {container}")
    if found.get("envFrom"):
        raise Failure(f"pod {name}, container {container}: envFrom is not supported here")
    fields = {
        "metadata.name": name,
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
    }
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    tokens: List[ProjectedToken] = []
    for mount in found.get("volumeMounts", []):
        tokens += _tokens(name, volumes.get(mount["name"]), mount)
    return PodProcess(
        pod=name,
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        service_account=fields["spec.serviceAccountName"],
        container=container,
        env=_env(f"pod {name}, container {container}", found.get("env", []), fields),
        tokens=tokens,
    )


def _env(where: str, listed: List[Dict[str, Any]], fields: Dict[str, str]) -> Dict[str, str]:
    env: Dict[str, str] = {}
    for entry in listed:
        source = entry.get("valueFrom")
        if source is None:
            env[entry["name"]] = _expand(entry.get("value", ""), env)
            continue
        path = source.get("fieldRef", {}).get("fieldPath")
        if path not in fields:
            raise Failure(f"{where}: the valueFrom of {entry['name']} is not supported here")
        env[entry["name"]] = fields[path]
    return env


def _expand(value: str, known: Dict[str, str]) -> str:
    """Expands `$(NAME)` as Kubernetes does: earlier variables only; `$$` is a dollar sign; anything else is kept."""
    return re.sub(
        r"\$(?:(\$)|\(([A-Za-z_][A-Za-z0-9_.-]*)\))",
        lambda match: "$" if match.group(1) else known.get(match.group(2), match.group(0)),
        value,
    )


def _tokens(pod: str, volume: Optional[Dict[str, Any]], mount: Dict[str, Any]) -> List[ProjectedToken]:
    if volume is None:
        raise Failure(f"pod {pod} mounts the volume {mount['name']}, which does not exist")
    sources = volume.get("projected", {}).get("sources")
    if not sources or any(set(source) != {"serviceAccountToken"} for source in sources):
        raise Failure(f"pod {pod}: the volume {volume['name']} contains something other than service account tokens")
    if mount.get("subPath") or mount.get("subPathExpr"):
        raise Failure(f"pod {pod} mounts the volume {volume['name']} with a subPath, which is not supported here")
    return [
        ProjectedToken(
            volume=volume["name"],
            mount_path=mount["mountPath"],
            path=token["path"],
            audience=token.get("audience"),
            expiration_seconds=int(token.get("expirationSeconds", DEFAULT_EXPIRATION_SECONDS)),
            read_only=bool(mount.get("readOnly", False)),
        )
        for token in (source["serviceAccountToken"] for source in sources)
    ]


def rewrite(env: Dict[str, str], moved: Dict[str, str]) -> Dict[str, str]:
    """Returns the environment with mount paths replaced by the corresponding temporary folders."""

    def value(text: str) -> str:
        # Longest path first, because mounts can be nested.
        for mount_path in sorted(moved, key=len, reverse=True):
            if text == mount_path or text.startswith(mount_path.rstrip("/") + "/"):
                return moved[mount_path] + text[len(mount_path.rstrip("/")) :]
        return text

    return {name: value(text) for name, text in env.items()}


class PodRunner:
    """Runs programs like containers of pods."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl
        self._unshare: Optional[List[str]] = None
        self._probed = False

    def run(self, process: PodProcess, program: List[str], extra_env: Dict[str, str]) -> Run:
        """Runs a program with the environment and tokens of `process` plus `extra_env`, and no other variables."""
        minted = {token: self._mint(process, token) for token in process.tokens}
        mounts = _mounts(minted)
        env = {"PATH": os.defpath, **process.env, **extra_env}
        given = {token.file: jwt.claims(text) for token, text in minted.items()}
        unshare = self._probe(mounts, program)
        if unshare is not None:
            wanted = {"mounts": mounts, "argv": program, "env": env}
            ended = _run([*unshare, sys.executable, "-I", str(SANDBOX)], {"PATH": os.defpath}, json.dumps(wanted))
            return Run(ended.returncode, ended.stdout, ended.stderr, False, given)
        with tempfile.TemporaryDirectory(prefix="ensign-pod-") as folder:
            moved = _write(Path(folder), mounts)
            ended = _run(program, rewrite(env, moved), None)
            return Run(ended.returncode, ended.stdout, ended.stderr, True, given)

    def _mint(self, process: PodProcess, token: ProjectedToken) -> str:
        return self._kubectl.token(
            process.namespace, process.service_account, token.expiration_seconds, token.audience,
            PodReference(process.pod, process.uid),
        )

    def _probe(self, mounts: List[Dict[str, Any]], program: List[str]) -> Optional[List[str]]:
        """Returns the `unshare` command that works on this machine, if any; determined once, without any token."""
        if not self._probed:
            self._probed = True
            empty = [{**mount, "files": dict.fromkeys(mount["files"], "")} for mount in mounts]
            # The mounts must not hide the program itself.
            wanted = {"mounts": empty, "argv": ["/bin/sh", "-c", 'test -x "$0"', program[0]], "env": {}}
            for unshare in (UNSHARE_AS_ROOT, UNSHARE_AS_USER) if os.geteuid() == 0 else (UNSHARE_AS_USER,):
                command = [*unshare, sys.executable, "-I", str(SANDBOX)]
                try:
                    ended = _run(command, {"PATH": os.defpath}, json.dumps(wanted))
                except (OSError, Failure):
                    continue
                if ended.returncode == 0:
                    self._unshare = unshare
                    break
        return self._unshare


def _mounts(minted: Dict[ProjectedToken, str]) -> List[Dict[str, Any]]:
    mounts: Dict[str, Dict[str, Any]] = {}
    for token, text in minted.items():
        mount = mounts.setdefault(
            token.mount_path, {"path": token.mount_path, "read_only": token.read_only, "files": {}}
        )
        mount["files"][token.path] = text
    return list(mounts.values())


def _write(folder: Path, mounts: List[Dict[str, Any]]) -> Dict[str, str]:
    """Writes the files of each mount to a separate folder; returns the folders by mount path."""
    moved: Dict[str, str] = {}
    for number, mount in enumerate(mounts):
        moved[mount["path"]] = str(folder / str(number))
        for path, text in mount["files"].items():
            file = folder / str(number) / path
            file.parent.mkdir(parents=True, exist_ok=True)
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
                opened.write(text)
    return moved


def _run(command: List[str], env: Dict[str, str], stdin: Optional[str]) -> "subprocess.CompletedProcess[str]":
    given: Dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    try:
        return subprocess.run(
            command, env=env, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS, **given
        )
    except subprocess.TimeoutExpired:
        raise Failure(f"{os.path.basename(command[-1])} took longer than {TIMEOUT_SECONDS:.0f} seconds") from None
