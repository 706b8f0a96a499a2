"""The steps of `make test`.

Each step gets what it needs by itself, from the cache when it is there, so that
one alone can be run too. A part that is missing is a failure, never a skip.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Callable, Dict, List, Optional

from . import azure_clients, build, children, chosen_cluster, control_plane, helm, paths
from .failure import Failure
from .progress import Progress
from .steps import Step, StepFailed

MINUTE = 60
CARGO_TIMEOUT_SECONDS = 40 * MINUTE
SHORT_TIMEOUT_SECONDS = 15 * MINUTE
FEATURES = ["--features", "emulator"]
LOCKED = ["--locked"]
# Warnings of this package's own code; cargo caps those of dependencies.
DENY_WARNINGS = ["--", "-D", "warnings"]


class Suite:
    """All steps, and what they share."""

    def __init__(self, progress: Optional[Progress] = None) -> None:
        self._progress = progress or Progress()
        self._binaries: Optional[control_plane.Binaries] = None

    def steps(self) -> List[Step]:
        """In the order in which a failure is cheapest to learn of."""
        return [
            Step("format", "rustfmt and gofmt change nothing", self._format),
            Step("dev", "unit tests of the scripts behind the make targets", self._dev),
            Step("control-plane", "etcd, kube-apiserver, kube-controller-manager and kubectl are built", self._build),
            Step("go", "vet and unit tests of the control plane fixture", self._go),
            Step("helm", "helm is built, for the tests of the chart", self._build_helm),
            Step("clippy", "no warning in any target", self._clippy),
            Step("release-features", "no warning without the emulator, as released", self._release_features),
            Step("docs", "the API documentation builds without a warning", self._docs),
            Step("generated", "crds/, the chart's, docs/reference and the policy bindings of dev/ are what the types generate", self._generated),
            Step("image", "a container image is assembled, read back and run", self._image),
            Step("rust", "unit, integration and documentation tests", self._rust),
            Step("fixture", "the control plane keeps its promises", self._fixture),
            Step("chart", "what the chart takes, makes, upgrades and removes", self._chart),
            Step("demo", "the main job, end to end, as `make demo` runs it", self._demo),
            Step("demo-policy", "the same without a webhook, as `make demo MODE=policy` runs it", self._demo_policy),
            Step("python-clients", "Azure's Python clients against the emulator", self._python_clients),
            Step("javascript-clients", "Azure's JavaScript clients against the emulator", self._javascript_clients),
        ]

    # Steps

    def _format(self) -> None:
        self._run(["cargo", "fmt", "--all", "--check"], SHORT_TIMEOUT_SECONDS)
        self._run(["cargo", "fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"], SHORT_TIMEOUT_SECONDS)
        source = paths.CONTROL_PLANE_SOURCE
        unformatted = children.output(["gofmt", "-l", source], env=control_plane.go_environment()).split()
        if unformatted:
            shown = ", ".join(os.path.relpath(file, paths.ROOT) for file in unformatted)
            raise StepFailed(f"gofmt would change {shown}: run `make fmt`")

    def _dev(self) -> None:
        self._unittest("unit")

    def _build(self) -> None:
        # Downloads wait for the network and compilers for the processor: the
        # crates come in beside the Go modules, and nothing else runs beside Go's compiler.
        fetched: List[int] = []
        fetch = threading.Thread(
            target=lambda: fetched.append(
                children.run(["cargo", "fetch", *LOCKED], paths.ROOT, CARGO_TIMEOUT_SECONDS)
            ),
            daemon=True,
        )
        fetch.start()
        try:
            self._control_plane()
        finally:
            fetch.join()
        if fetched != [0]:
            raise StepFailed("`cargo fetch --locked` failed")
        refusal = chosen_cluster.check(self._control_plane())
        if refusal:
            raise StepFailed(refusal)

    def _go(self) -> None:
        source, env = paths.CONTROL_PLANE_SOURCE, control_plane.go_environment()
        # The packages that depend on nothing of Kubernetes: to vet the program
        # itself would be to read all of it.
        self._run(["go", "vet", *control_plane.FLAGS, "./internal/..."], SHORT_TIMEOUT_SECONDS, source, env)
        self._run(["go", "test", *control_plane.FLAGS, "./internal/..."], SHORT_TIMEOUT_SECONDS, source, env)

    def _clippy(self) -> None:
        self._cargo("clippy", "--all-targets", *FEATURES, *DENY_WARNINGS)

    def _release_features(self) -> None:
        self._cargo("clippy", "--lib", "--bins", "--examples", *DENY_WARNINGS)

    def _docs(self) -> None:
        # Private items too: this documentation is for those who work on the code.
        flags = {"RUSTDOCFLAGS": "-D warnings -A rustdoc::private-intra-doc-links"}
        self._cargo("doc", "--no-deps", "--document-private-items", *FEATURES, extra=flags)

    def _generated(self) -> None:
        for folder in ("crds", "charts/ensign/files/crds"):
            self._run([self._ensign(), "crds", "--check", folder], SHORT_TIMEOUT_SECONDS)
        self._run([self._ensign(), "crds", "--reference", "--check", "docs/reference"], SHORT_TIMEOUT_SECONDS)
        bindings = paths.ROOT / "dev" / "manifests" / "25-policy-bindings.yaml"
        self._run([self._ensign(), "policies", "--bindings", "--check", bindings], SHORT_TIMEOUT_SECONDS)

    def _image(self) -> None:
        self._unittest("image", {"ENSIGN_BIN": self._ensign()})

    def _rust(self) -> None:
        self._cargo("test", "--no-fail-fast", *FEATURES, extra=self._control_plane().environment())

    def _fixture(self) -> None:
        self._control_plane()
        self._unittest("fixture")

    def _build_helm(self) -> None:
        self._helm()

    def _chart(self) -> None:
        programs = {"ENSIGN_BIN": str(self._ensign()), "ENSIGN_HELM": str(self._helm())}
        self._unittest("chart", {**self._control_plane().environment(), **programs})

    def _demo(self) -> None:
        self._run([sys.executable, "-B", paths.ROOT / "dev" / "demo.py"], SHORT_TIMEOUT_SECONDS)

    def _demo_policy(self) -> None:
        env = children.environment({"MODE": "policy"})
        self._run([sys.executable, "-B", paths.ROOT / "dev" / "demo.py"], SHORT_TIMEOUT_SECONDS, env=env)

    def _python_clients(self) -> None:
        folder = paths.PYTHON_CLIENTS
        python = self._installed(azure_clients.python)
        env = children.environment({"ENSIGN_BIN": self._ensign(), "PYTHONDONTWRITEBYTECODE": "1"})
        # pytest itself fails a run that finds no test (status 5).
        self._run([python, "-m", "pytest"], SHORT_TIMEOUT_SECONDS, folder, env)

    def _javascript_clients(self) -> None:
        folder = paths.JAVASCRIPT_CLIENTS
        self._installed(azure_clients.node_modules)
        tests = sorted(file.name for file in folder.iterdir() if file.name.endswith((".test.mjs", ".test.js")))
        if not tests:
            raise StepFailed("tests/azure-clients/javascript has no *.test.js")
        env = children.environment({"ENSIGN_BIN": self._ensign()})
        self._run(["node", "--test", "--test-reporter=spec", *tests], SHORT_TIMEOUT_SECONDS, folder, env)

    # What they share

    def _control_plane(self) -> control_plane.Binaries:
        if self._binaries is None:
            try:
                self._binaries = control_plane.ensure(self._progress)
            except control_plane.BuildFailed as error:
                self._progress.say(str(error))
                raise StepFailed("the control plane could not be built") from error
        return self._binaries

    def _helm(self) -> Path:
        try:
            return helm.ensure(self._progress)
        except helm.BuildFailed as error:
            self._progress.say(str(error))
            raise StepFailed("helm could not be built") from error

    def _ensign(self) -> Path:
        """The binary with the emulator in it, as `cargo test` and the demo build it too."""
        try:
            return build.programs()["ensign"]
        except Failure as error:
            raise StepFailed(str(error)) from error

    def _installed(self, install: Callable[[Progress], Path]) -> Path:
        try:
            return install(self._progress)
        except azure_clients.NotInstalled as error:
            raise StepFailed(str(error)) from error

    def _unittest(self, folder: str, extra: Optional[Dict[str, children.Argument]] = None) -> None:
        tests = paths.ROOT / "dev" / "tests" / folder
        command = [sys.executable, "-W", "error", "-B", "-m", "unittest", "discover", "-s", tests, "-t", tests]
        env = children.environment({"PYTHONUNBUFFERED": "1", **(extra or {})})
        if not list(tests.glob("test_*.py")):
            raise StepFailed(f"{tests} has no test")
        self._run(command, SHORT_TIMEOUT_SECONDS, env=env)

    def _cargo(self, command: str, *arguments: str, extra: Optional[Dict[str, str]] = None) -> None:
        self._run(["cargo", command, *LOCKED, *arguments], CARGO_TIMEOUT_SECONDS, env=children.environment(extra))

    def _run(
        self,
        command: "List[children.Argument]",
        timeout: float,
        cwd: Path = paths.ROOT,
        env: Optional[Dict[str, str]] = None,
    ) -> None:
        words = " ".join(os.fspath(word) for word in command)
        print(f"$ {words}", flush=True)
        status = children.run(command, cwd, timeout, env)
        if status != 0:
            raise StepFailed(f"`{words}` ended with status {status}")
