"""Which cluster the tests may use: their own, or one that the caller names on purpose.

The ambient KUBECONFIG is never read. `ENSIGN_TEST_KUBECONFIG` is; a server that
is not on loopback is refused unless `ENSIGN_TEST_ALLOW_REMOTE=yes`, because
tests create and delete cluster-wide objects. The Rust tests hold the same rule
(tests/integration/support/control_plane.rs).
"""

from __future__ import annotations

import ipaddress
import os
from typing import Mapping, Optional
from urllib.parse import urlsplit

from . import children
from .control_plane import Binaries

KUBECONFIG = "ENSIGN_TEST_KUBECONFIG"
ALLOW_REMOTE = "ENSIGN_TEST_ALLOW_REMOTE"


def is_loopback(server: str) -> bool:
    """Whether a server's URL can only mean this machine."""
    try:
        host = urlsplit(server).hostname
    except ValueError:
        return False
    if not host:
        return False
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refusal(server: str, allow_remote: Optional[str]) -> Optional[str]:
    """Why the tests must not run against a server; None if they may."""
    if is_loopback(server) or allow_remote == "yes":
        return None
    return (
        f"{KUBECONFIG} points at {server or 'no server'}, which is not on this machine. The tests create and delete "
        f"cluster-wide objects. If that is what you want, set {ALLOW_REMOTE}=yes."
    )


def check(binaries: Binaries, environ: Optional[Mapping[str, str]] = None) -> Optional[str]:
    """Why the cluster that the caller chose must not be used; None if it may, or if none was chosen."""
    environ = os.environ if environ is None else environ
    kubeconfig = environ.get(KUBECONFIG)
    if not kubeconfig:
        return None
    query = "jsonpath={.clusters[0].cluster.server}"
    command = [binaries.kubectl, "--kubeconfig", kubeconfig, "config", "view", "--minify", "-o", query]
    try:
        server = children.output(command)
    except children.CommandFailed as error:
        return f"{KUBECONFIG}={kubeconfig} can't be read: {error}"
    return refusal(server.strip(), environ.get(ALLOW_REMOTE))
