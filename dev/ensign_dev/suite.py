"""The steps of `make test`.

Each step belongs to a lane and names the steps that it depends on, so that it can also be run alone. Anything that is
missing is a failure; nothing is skipped.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Callable, Dict, List, Mapping, Optional, TypeVar

from . import azure_clients, build, children, chosen_cluster, control_plane, helm, mutants, paths, rust_tests, tools
from .failure import Failure
from .output import Output
from .progress import Progress
from .rust_tests import TestProgram
from .steps import BUSY, Step, StepFailed

MINUTE = 60
CARGO_TIMEOUT_SECONDS = 40 * MINUTE
TESTS_TIMEOUT_SECONDS = 30 * MINUTE
SHORT_TIMEOUT_SECONDS = 15 * MINUTE
LOCKED = ["--locked"]
WORKSPACE = [*LOCKED, "--workspace"]
# Warnings of the workspace's own code; cargo caps those of dependencies.
DENY_WARNINGS = ["--", "-D", "warnings"]

# Test binaries with their own steps. All others belong to `rust-unit`, so that none is forgotten.
INTEGRATION, CLUSTER_WIDE, SCALE = "integration", "cluster_wide", "scale"
APART = (INTEGRATION, CLUSTER_WIDE, SCALE)
FAULTS_PACKAGE = "ensign-faults"

# Resources that only one step at a time may use: cargo's build folder, the Go compiler, and the demo's folder.
CARGO, GO, DEMO = "cargo", "go", "demo"
# These keep all cores busy, which would disturb tests with deadlines.
COMPILERS = ("compile", "compile-mutants", "clippy", "docs", "doc-tests")
CLUSTER = ("control-plane", "compile")
# Environment variables that tell tests where the programs are.
VARIABLES = {"ensign": "ENSIGN_BIN", "ensign-azure-emulator": "ENSIGN_AZURE_EMULATOR_BIN"}

Built = TypeVar("Built")


class Suite:
    """All steps, and the results that they pass on to others."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        # The tests create and delete cluster-wide objects: on a cluster that the caller chose, they run one at a time.
        self._cluster = ("cluster",) if environ.get(chosen_cluster.KUBECONFIG) else ()
        self._binaries: Optional[control_plane.Binaries] = None
        self._helm: Optional[Path] = None
        self._programs: Dict[str, Path] = {}
        self._tests: List[TestProgram] = []
        self._mutant_tests: Optional[TestProgram] = None

    def steps(self) -> List[Step]:
        """Returns all steps: quick checks and dependencies first, then the longest, so that others run in parallel to them."""
        return [*self._cheap(), *self._compiled(), *self._tested()]

    def _cheap(self) -> List[Step]:
        return [
            Step("format", "lint", "the sources are formatted with rustfmt and gofmt", self._format),
            Step("typos", "lint", "there are no spelling mistakes", self._typos),
            Step("actionlint", "lint", "the workflows are valid", self._actionlint, uses=(GO,)),
            Step("deny", "lint", "licenses, sources and versions of dependencies are allowed", self._deny, weight=BUSY),
            Step("dev", "unit", "unit tests of the scripts behind the make targets", self._dev),
            Step(
                "control-plane", "integration", "builds etcd, kube-apiserver, kube-controller-manager and kubectl",
                self._build, uses=(CARGO, GO), weight=BUSY,
            ),
            Step("helm", "chart", "builds helm for the chart tests", self._build_helm, uses=(GO,), weight=BUSY),
            Step("go", "unit", "vet and unit tests of the control plane fixture", self._go, uses=(GO,)),
        ]

    def _compiled(self) -> List[Step]:
        def cargo(name: str, lane: str, about: str, run: Callable[[Output], None], *after: str) -> Step:
            return Step(name, lane, about, run, after, uses=(CARGO,), weight=BUSY)

        generated = "the CRDs, docs/reference and the policy bindings in dev/ are up to date"
        return [
            cargo("compile", "lint", "all programs and tests compile", self._compile),
            cargo("clippy", "lint", "there are no warnings in any target", self._clippy),
            Step("generated", "lint", generated, self._generated, ("compile",)),
            cargo("docs", "lint", "the API documentation builds without warnings", self._docs),
            Step("image", "chart", "a container image is assembled, unpacked and run", self._image, ("compile",)),
            cargo("doc-tests", "unit", "the examples in the API documentation", self._doc_tests, "compile"),
            cargo("compile-mutants", "faults", "a copy of the source with the mutants", self._compile_mutants, "compile"),
            self._clients("python-clients", "Python", self._python_clients),
            self._clients("javascript-clients", "JavaScript", self._javascript_clients),
            Step("azure-cases", "integration", "the emulator answers as Azure does", self._azure_cases, ("compile",)),
        ]

    def _tested(self) -> List[Step]:
        def tests(
            name: str, lane: str, about: str, run: Callable[[Output], None], *after: str, alone: bool = False
        ) -> Step:
            return Step(name, lane, about, run, after, COMPILERS, self._cluster, alone=alone)

        return [
            tests("integration", "integration", "tests against a real API server", self._named(INTEGRATION), *CLUSTER),
            tests("chart", "chart", "validation, installation, upgrade and removal", self._chart, *CLUSTER, "helm"),
            tests("cluster-wide", "integration", "tests that affect a whole cluster", self._named(CLUSTER_WIDE), *CLUSTER),
            tests("faults", "faults", "a subset of the plans of `make faults`", self._faults, *CLUSTER),
            tests("mutants", "faults", "a subset of the mutants is caught", self._mutants, *CLUSTER, "compile-mutants"),
            tests("rust-unit", "unit", "unit tests of all packages", self._rust_unit, "compile"),
            tests("fixture", "integration", "tests of the control plane fixture", self._fixture, "control-plane"),
            self._demo("demo", "`make demo`", "webhook"),
            self._demo("demo-policy", "`make demo MODE=policy`, without a webhook", "policy"),
            # It counts events in a given time, so other load would distort it.
            tests("scale", "integration", "a thousand bindings", self._named(SCALE), *CLUSTER, alone=True),
        ]

    # Steps

    def _format(self, out: Output) -> None:
        _run(out, ["cargo", "fmt", "--all", "--check"], SHORT_TIMEOUT_SECONDS)
        _run(out, ["cargo", "fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"], SHORT_TIMEOUT_SECONDS)
        source = paths.CONTROL_PLANE_SOURCE
        unformatted = children.output(["gofmt", "-l", source], env=control_plane.go_environment()).split()
        if unformatted:
            shown = ", ".join(os.path.relpath(file, paths.ROOT) for file in unformatted)
            raise StepFailed(f"not formatted: {shown}; run `make fmt`")

    def _typos(self, out: Output) -> None:
        _run(out, [_installed(tools.typos, out)], SHORT_TIMEOUT_SECONDS)

    def _actionlint(self, out: Output) -> None:
        # Without optional tools that may be installed on this machine, so that the result is the same everywhere.
        _run(out, [_installed(tools.actionlint, out), "-shellcheck=", "-pyflakes="], SHORT_TIMEOUT_SECONDS)

    def _deny(self, out: Output) -> None:
        deny: "List[children.Argument]" = [_installed(tools.cargo_deny, out), "--workspace", "check"]
        _run(out, [*deny, "bans", "licenses", "sources"], SHORT_TIMEOUT_SECONDS)

    def _dev(self, out: Output) -> None:
        _unittest(out, "unit")

    def _build(self, out: Output) -> None:
        # Crates are downloaded while the Go modules are downloaded and compiled.
        fetched: List[int] = []
        command: "List[children.Argument]" = ["cargo", "fetch", *LOCKED]
        fetch = threading.Thread(
            target=lambda: fetched.append(
                children.run(command, paths.ROOT, CARGO_TIMEOUT_SECONDS, **out.options())
            ),
            daemon=True,
        )
        fetch.start()
        try:
            self._binaries = _installed(control_plane.ensure, out)
        finally:
            fetch.join()
        if fetched != [0]:
            raise StepFailed("`cargo fetch --locked` failed")
        problem = chosen_cluster.check(self._binaries)
        if problem:
            raise StepFailed(problem)

    def _build_helm(self, out: Output) -> None:
        self._helm = _installed(helm.ensure, out)

    def _go(self, out: Output) -> None:
        source, env = paths.CONTROL_PLANE_SOURCE, control_plane.go_environment()
        # Only the packages that do not depend on Kubernetes: vetting the program itself would analyze all of Kubernetes.
        _run(out, ["go", "vet", *control_plane.FLAGS, "./internal/..."], SHORT_TIMEOUT_SECONDS, source, env)
        _run(out, ["go", "test", *control_plane.FLAGS, "./internal/..."], SHORT_TIMEOUT_SECONDS, source, env)

    def _compile(self, out: Output) -> None:
        try:
            self._programs = build.programs(out.errors)
            self._tests = rust_tests.compile_all(out.errors)
        except Failure as error:
            raise StepFailed(str(error)) from error

    def _clippy(self, out: Output) -> None:
        _cargo(out, "clippy", *WORKSPACE, "--all-targets", *DENY_WARNINGS)

    def _docs(self, out: Output) -> None:
        # With private items, because this documentation is for contributors.
        flags = {"RUSTDOCFLAGS": "-D warnings -A rustdoc::private-intra-doc-links"}
        _cargo(out, "doc", *WORKSPACE, "--no-deps", "--document-private-items", extra=flags)

    def _doc_tests(self, out: Output) -> None:
        _cargo(out, "test", *WORKSPACE, "--doc")

    def _generated(self, out: Output) -> None:
        ensign = self._programs["ensign"]
        for folder in ("crds", "charts/ensign/files/crds"):
            _run(out, [ensign, "crds", "--check", folder], SHORT_TIMEOUT_SECONDS)
        _run(out, [ensign, "crds", "--reference", "--check", "docs/reference"], SHORT_TIMEOUT_SECONDS)
        bindings = paths.ROOT / "dev" / "manifests" / "25-policy-bindings.yaml"
        _run(out, [ensign, "policies", "--bindings", "--check", bindings], SHORT_TIMEOUT_SECONDS)

    def _image(self, out: Output) -> None:
        _unittest(out, "image", self._given())

    def _rust_unit(self, out: Output) -> None:
        _all(out, [one for one in self._tests if not is_apart(one)], self._given())

    def _named(self, name: str) -> Callable[[Output], None]:
        def run(out: Output) -> None:
            found = [one for one in self._tests if is_apart(one) and one.name == name and one.package != FAULTS_PACKAGE]
            if not found:
                raise StepFailed(f"no package of the workspace has a test named {name}")
            _all(out, found, self._given())

        return run

    def _faults(self, out: Output) -> None:
        found = [one for one in self._tests if is_apart(one) and one.package == FAULTS_PACKAGE]
        if not found:
            raise StepFailed(f"the package {FAULTS_PACKAGE} has no test")
        _all(out, found, self._given())

    def _compile_mutants(self, out: Output) -> None:
        try:
            self._mutant_tests = mutants.compile_faults(out.errors)
        except Failure as error:
            raise StepFailed(str(error)) from error

    def _mutants(self, out: Output) -> None:
        if self._mutant_tests is None:
            raise StepFailed("the fault tests with mutants were not compiled")
        env = children.environment({**self._given(), **self._mutant_tests.environment()})
        folder = self._mutant_tests.folder
        _run(out, [self._mutant_tests.path, "--only-mutants"], TESTS_TIMEOUT_SECONDS, folder, env)

    def _fixture(self, out: Output) -> None:
        _unittest(out, "fixture", self._given())

    def _chart(self, out: Output) -> None:
        _unittest(out, "chart", self._given())

    def _demo(self, name: str, about: str, mode: str) -> Step:
        def run(out: Output) -> None:
            env = children.environment({"MODE": mode})
            _run(out, [sys.executable, "-B", paths.ROOT / "dev" / "demo.py"], SHORT_TIMEOUT_SECONDS, env=env)

        # It runs cargo itself, but after `compile` nothing is left to build.
        return Step(name, "demo", about, run, CLUSTER, COMPILERS, (DEMO,))

    def _clients(self, name: str, language: str, run: Callable[[Output], None]) -> Step:
        return Step(name, "integration", f"Azure's {language} clients against the emulator", run, ("compile",))

    def _python_clients(self, out: Output) -> None:
        folder = paths.PYTHON_CLIENTS
        python = _installed(azure_clients.python, out)
        env = children.environment({**self._given(), "PYTHONDONTWRITEBYTECODE": "1"})
        # pytest fails if it finds no tests (exit status 5).
        _run(out, [python, "-m", "pytest"], SHORT_TIMEOUT_SECONDS, folder, env)

    def _javascript_clients(self, out: Output) -> None:
        folder = paths.JAVASCRIPT_CLIENTS
        _installed(azure_clients.node_modules, out)
        tests = sorted(file.name for file in folder.iterdir() if file.name.endswith((".test.mjs", ".test.js")))
        if not tests:
            raise StepFailed("tests/azure-clients/javascript has no *.test.js")
        env = children.environment(self._given())
        _run(out, ["node", "--test", "--test-reporter=spec", *tests], SHORT_TIMEOUT_SECONDS, folder, env)

    def _azure_cases(self, out: Output) -> None:
        env = children.environment(self._given())
        _run(out, [sys.executable, "-B", paths.ROOT / "dev" / "azure_cases.py"], SHORT_TIMEOUT_SECONDS, env=env)
        _unittest(out, "azure_cases", self._given())

    # Shared code

    def _given(self) -> Dict[str, str]:
        """Environment variables that tell tests where the results of earlier steps are."""
        given = dict(self._binaries.environment()) if self._binaries is not None else {}
        if self._helm is not None:
            given["ENSIGN_HELM"] = str(self._helm)
        for program, variable in VARIABLES.items():
            if program in self._programs:
                given[variable] = str(self._programs[program])
        return given


def is_apart(program: TestProgram) -> bool:
    """Whether a test binary has its own step."""
    return program.kind == "test" and (program.name in APART or program.package == FAULTS_PACKAGE)


def _all(out: Output, programs: List[TestProgram], given: Mapping[str, str]) -> None:
    """Runs test binaries one after another, even after a failure."""
    failed = []
    for program in programs:
        out.say(f"\n{program.package}: {program.kind} {program.name}")
        env = children.environment({**given, **program.environment()})
        try:
            _run(out, [program.path], TESTS_TIMEOUT_SECONDS, program.folder, env)
        except StepFailed:
            failed.append(f"{program.package} ({program.name})")
    if failed:
        raise StepFailed(f"tests failed in {', '.join(failed)}")


def _installed(install: Callable[[Progress], Built], out: Output) -> Built:
    """Installs or builds something unless it is cached."""
    try:
        return install(out.progress)
    except (Failure, azure_clients.NotInstalled, control_plane.BuildFailed) as error:
        out.say(str(error))
        raise StepFailed(str(error).splitlines()[0]) from error


def _unittest(out: Output, folder: str, extra: Optional[Mapping[str, children.Argument]] = None) -> None:
    tests = paths.ROOT / "dev" / "tests" / folder
    command = [sys.executable, "-W", "error", "-B", "-m", "unittest", "discover", "-s", tests, "-t", tests]
    env = children.environment({"PYTHONUNBUFFERED": "1", **(extra or {})})
    if not list(tests.glob("test_*.py")):
        raise StepFailed(f"{tests} has no tests")
    _run(out, command, SHORT_TIMEOUT_SECONDS, env=env)


def _cargo(out: Output, command: str, *arguments: str, extra: Optional[Dict[str, str]] = None) -> None:
    _run(out, ["cargo", command, *arguments], CARGO_TIMEOUT_SECONDS, env=children.environment(extra))


def _run(
    out: Output,
    command: "List[children.Argument]",
    timeout: float,
    cwd: Path = paths.ROOT,
    env: Optional[Dict[str, str]] = None,
) -> None:
    line = " ".join(os.fspath(word) for word in command)
    out.say(f"$ {line}")
    status = children.run(command, cwd, timeout, env, **out.options())
    if status != 0:
        raise StepFailed(f"`{line}` exited with status {status}")
