#!/usr/bin/env python3
"""Show what Ensign does on a real Kubernetes API server: a pod gets an Azure identity without a secret.

Builds what is missing, runs unattended in a temporary environment and cleans up afterwards. The exit status is 0 only if
every step passed; target/demo/report.json contains the details in machine-readable form. With MODE=policy, the API server
injects pods through admission policies, without a webhook.
"""

import sys

if sys.version_info < (3, 9):
    sys.exit("Python 3.9 or newer is needed (this is %s)" % sys.version.split()[0])

import argparse
import time

from ensign_dev import azure_clients, build, control_plane, environment, main, paths, preflight
from ensign_dev.demo_steps import PLAN, Demo, Samples
from ensign_dev.failure import Failure
from ensign_dev.narration import Narrator
from ensign_dev.progress import Progress, duration
from ensign_dev.report import Report

ROOT = paths.ROOT / "target" / "demo"
REPORT = ROOT / "report.json"


def demo() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    propagation, mode = environment.propagation_seconds(), environment.mode()
    preflight.require("demo", control_plane.is_built())
    progress = Progress()
    own = environment.Environment(ROOT, progress)
    with own.locked(wait=False):
        REPORT.unlink(missing_ok=True)
        started = time.monotonic()
        report = Report(list(PLAN), mode)
        try:
            cluster = build.cluster(progress)
            built = build.programs()
            python = azure_clients.python(progress)
            report.build_seconds = time.monotonic() - started
            samples = Samples(
                rust=[str(built["secretless-app"])],
                python=[str(python), "-I", str(paths.ROOT / "examples" / "secretless-app-python" / "app.py")],
            )
            narrator = Narrator(len(PLAN))
            programs = environment.Programs.of(built, cluster)
            return show(Demo(own, programs, samples, propagation, mode, narrator), report, narrator)
        finally:
            report.build_seconds = report.build_seconds or time.monotonic() - started
            try:
                own.stop()
            finally:
                report.write(REPORT)


def show(demo_run: Demo, report: Report, narrator: Narrator) -> int:
    """Runs the steps until one fails; returns the exit status."""
    narrator.title(
        "Ensign: a pod gets an Azure identity, without any secret",
        "Everything runs on this machine. Kubernetes is real: etcd, kube-apiserver and kube-controller-manager. Azure is "
        "an emulator that implements the APIs of Azure Resource Manager and of Entra's token endpoint, including their "
        "errors. There are no nodes: where a kubelet would start a container, the demo starts the program itself.",
    )
    began = time.monotonic()
    for name, (heading, act) in demo_run.steps().items():
        narrator.step(heading)
        try:
            with report.step(name) as detail:
                act(detail)
        except Failure as error:
            narrator.failed(str(error))
            narrator.closing(f"The demo failed at step {name}. Logs: {ROOT / 'logs'}; report: {REPORT}")
            return 1
        narrator.passed(report.steps[-1]["seconds"])
    narrator.closing(
        f"All steps passed in {duration(time.monotonic() - began)}, after {duration(report.build_seconds)} of building. "
        f"Report: {REPORT}",
        "To try it yourself, run `make up`; the README explains the objects.",
    )
    return 0 if report.ok else 1


if __name__ == "__main__":
    main.run(demo)
