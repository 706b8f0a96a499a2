#!/usr/bin/env python3
"""Start a development environment and leave it running: a Kubernetes control plane, an emulator of Azure, Ensign.

Called again, it keeps the environment and brings it up to date: CRDs, tokens, and controller and webhook if
they ended or were built anew. PROPAGATION_SECONDS=N makes a new credential take N seconds to propagate in
the emulator; MODE=policy has the API server inject by itself, without a webhook. COMPAT=1 starts it in compatibility mode:
pods and service accounts of azure-workload-identity work as they are. `make down` stops it.
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
        raise Failure("COMPAT=1 needs the webhook: leave MODE=policy out")
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
            print(f"The environment runs already: tokens and CRDs renewed, {what}.")
            if dev.info["propagation_seconds"] != propagation:
                print(f"It keeps its propagation time of {dev.info['propagation_seconds']} seconds until `make down`.")
            if dev.info["mode"] != mode:
                print(f"It keeps its mode {dev.info['mode']} until `make down`.")
            if bool(dev.info.get("compatibility")) != compatibility:
                print("It keeps its mode (COMPAT) until `make down`.")
        else:
            if dev.registry.records():
                print("Parts of the environment that was here have ended; starting a new one.")
            dev.start(programs, propagation, leashed=False, mode=mode)
            print(f"The environment is up, after {duration(time.monotonic() - started)}.")
    print(how_to_use(dev))
    return 0


def how_to_use(dev: environment.Environment) -> str:
    """What to type in a shell."""
    info = dev.info
    return f"""
  Everything below is in {dev.file}, too.
  In a shell, from the top of the checkout:

    . target/dev/env.sh                     # sets KUBECONFIG and the variables below, and finds kubectl
    kubectl get managedidentities,managedidentitybindings -A
    kubectl apply -f examples/              # the example that `make demo` shows

  Azure (the emulator) answers at {info['arm_endpoint']}; ask it as an administrator:

    TOKEN=$(curl -sf --cacert "$ENSIGN_CA_FILE" "$ENSIGN_ARM_TOKEN_URL" |
      python3 -c 'import json, sys; print(json.load(sys.stdin)["access_token"])')
    curl -s --cacert "$ENSIGN_CA_FILE" -H "Authorization: Bearer $TOKEN" \\
      "$ENSIGN_ARM_ENDPOINT$ENSIGN_IDENTITIES/orders/federatedIdentityCredentials?api-version=2024-11-30"

  Programs with an Azure SDK trust it with SSL_CERT_FILE (Rust, Go) or REQUESTS_CA_BUNDLE (Python) or
  NODE_EXTRA_CA_CERTS (JavaScript) set to {info['ca_file']}

  Logs: {info['logs']}
  Ensign's own tokens last seven days; `make up` renews them. `make down` stops everything.
"""


if __name__ == "__main__":
    main.run(up)
