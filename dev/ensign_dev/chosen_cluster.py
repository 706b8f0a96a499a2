"""Decides which cluster the tests may use: their own, or one that the caller names explicitly.

The ambient KUBECONFIG is never read, only `ENSIGN_TEST_KUBECONFIG`. A server that is not on loopback is rejected unless
`ENSIGN_TEST_ALLOW_REMOTE=yes`, because the tests create and delete cluster-wide objects. The Rust tests enforce the same
rule (crates/testkit/src/chosen_cluster.rs).
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
    """Whether the URL of a server can only refer to this machine."""
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


def problem(server: str, allow_remote: Optional[str]) -> Optional[str]:
    """Returns why the tests must not run against a server; None if they may."""
    if is_loopback(server) or allow_remote == "yes":
        return None
    return (
        f"{KUBECONFIG} points to {server or 'no server'}, which is not on this machine. The tests create and delete "
        f"cluster-wide objects. To run them there anyway, set {ALLOW_REMOTE}=yes."
    )


def check(binaries: Binaries, environ: Optional[Mapping[str, str]] = None) -> Optional[str]:
    """Returns why the cluster that the caller chose must not be used; None if it may be used, or if none was chosen."""
    environ = os.environ if environ is None else environ
    kubeconfig = environ.get(KUBECONFIG)
    if not kubeconfig:
        return None
    query = "jsonpath={.clusters[0].cluster.server}"
    command = [binaries.kubectl, "--kubeconfig", kubeconfig, "config", "view", "--minify", "-o", query]
    try:
        server = children.output(command)
    except children.CommandFailed as error:
        return f"can't read {KUBECONFIG}={kubeconfig}: {error}"
    return problem(server.strip(), environ.get(ALLOW_REMOTE))
