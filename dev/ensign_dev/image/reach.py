"""Verifies that the image can connect to a cluster: its webhook resolves a host name and starts TLS.

Printing a version needs almost nothing. This needs name resolution, random numbers, threads and certificates: everything
that might be missing for a static program in an empty root file system.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Dict

from ..failure import Failure
from . import verify

HOST = "cluster.image.test"
TIMEOUT_SECONDS = 60
# The first byte of a TLS handshake.
HANDSHAKE = b"\x16"


def require_reach(root: Path, config: Dict[str, Any]) -> None:
    """Runs the webhook in the unpacked image until it starts TLS with this process as its API server; needs root."""
    with socket.create_server(("127.0.0.1", 0)) as server, tempfile.TemporaryFile() as log:
        server.settimeout(TIMEOUT_SECONDS)
        # As Kubernetes would.
        (root / "etc" / "hosts").write_text(f"127.0.0.1 {HOST}\n", encoding="utf-8")
        (root / "kubeconfig").write_text(kubeconfig(server.getsockname()[1]), encoding="utf-8")
        arguments = ["webhook", "--listen=127.0.0.1:0", "--health-listen=127.0.0.1:0"]
        process = subprocess.Popen(
            verify.command(config, arguments), env={**verify.environment(config), "KUBECONFIG": "/kubeconfig"},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=verify.enter(root, config),
        )
        try:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(TIMEOUT_SECONDS)
                greeting = connection.recv(1)
        except socket.timeout:
            greeting = b""
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        if greeting != HANDSHAKE:
            log.seek(0, os.SEEK_SET)
            output = log.read().decode(errors="replace").strip()
            raise Failure(f"`ensign webhook` in the image did not connect to its API server by name; its output:\n{output}")


def kubeconfig(port: int) -> str:
    """Returns a kubeconfig for the API server at HOST."""
    return json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": f"https://{HOST}:{port}"}}],
        "users": [{"name": "it", "user": {"token": "none"}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
    })
