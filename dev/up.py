#!/usr/bin/env python3
"""Start a development environment and leave it running: a Kubernetes control plane, the Azure emulator and Ensign.

If it is already running, it is updated: CRDs and tokens are renewed, and controller and webhook are restarted if they
exited or were rebuilt. PROPAGATION_SECONDS=N makes new credentials take N seconds to propagate in the emulator. With
MODE=policy, the API server injects pods through admission policies, without a webhook. COMPAT=1 enables compatibility mode:
pods and service accounts of azure-workload-identity work unchanged. `make down` stops the environment.
"""

import sys

if sys.version_info < (3, 9):
    sys.exit("Python 3.9 or newer is needed (this is %s)" % sys.version.split()[0])

import argparse
import time

from ensign_dev import build, control_plane, environment, main, paths, preflight
from ensign_dev.failure import Failure
from ensign_dev.progress import Progress, duration

ROOT = paths.ROOT / "target" / "dev"


def up() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    propagation, mode = environment.propagation_seconds(), environment.mode()
    compatibility = environment.compatibility()
    if compatibility and mode == "policy":
        raise Failure("COMPAT=1 needs the webhook; do not combine it with MODE=policy")
    preflight.require("demo", control_plane.is_built())
    progress = Progress()
    cluster = build.cluster(progress)
    built = build.programs()
    programs = environment.Programs.of(built, cluster)

    started = time.monotonic()
    dev = environment.Environment(ROOT, progress)
    dev.compatibility = compatibility
    with dev.locked(wait=True):
        if dev.load():
            restarted = dev.refresh(programs)
            dev.write()
            what = f"{' and '.join(restarted)} restarted" if restarted else "nothing to restart"
            print(f"The environment is already running: tokens and CRDs renewed, {what}.")
            if dev.info["propagation_seconds"] != propagation:
                print(f"PROPAGATION_SECONDS stays {dev.info['propagation_seconds']} until `make down`.")
            if dev.info["mode"] != mode:
                print(f"MODE stays {dev.info['mode']} until `make down`.")
            if bool(dev.info.get("compatibility")) != compatibility:
                print(f"COMPAT stays {int(not compatibility)} until `make down`.")
        else:
            if dev.registry.records():
                print("Parts of the previous environment have exited; starting a new one.")
            dev.start(programs, propagation, die_with_parent=False, mode=mode)
            print(f"The environment is up after {duration(time.monotonic() - started)}.")
    print(how_to_use(dev))
    return 0


def how_to_use(dev: environment.Environment) -> str:
    """Instructions for a shell."""
    info = dev.info
    return f"""
  All addresses and paths are also in {dev.file}.
  In a shell, from the root of the repository:

    . target/dev/env.sh                     # sets KUBECONFIG and the variables below, and adds kubectl to PATH
    kubectl get managedidentities,managedidentitybindings -A
    kubectl apply -f examples/              # the example from `make demo`

  The Azure emulator listens on {info['arm_endpoint']}. To query it as an administrator:

    TOKEN=$(curl -sf --cacert "$ENSIGN_CA_FILE" "$ENSIGN_ARM_TOKEN_URL" |
      python3 -c 'import json, sys; print(json.load(sys.stdin)["access_token"])')
    curl -s --cacert "$ENSIGN_CA_FILE" -H "Authorization: Bearer $TOKEN" \\
      "$ENSIGN_ARM_ENDPOINT$ENSIGN_IDENTITIES/orders/federatedIdentityCredentials?api-version=2024-11-30"

  For Azure SDKs to trust its certificate, set SSL_CERT_FILE (Rust, Go), REQUESTS_CA_BUNDLE (Python) or
  NODE_EXTRA_CA_CERTS (JavaScript) to {info['ca_file']}

  Logs: {info['logs']}
  Ensign's own tokens expire after seven days; `make up` renews them. `make down` stops everything.
"""


if __name__ == "__main__":
    main.run(up)
