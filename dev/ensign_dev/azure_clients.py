"""Microsoft's Azure client libraries, installed once into the cache from the lock files in tests/azure-clients."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import List

from . import cache, children, paths
from .progress import Progress

INSTALL_TIMEOUT_SECONDS = 20 * 60
DEPENDENCY_PLUGIN_VERSION = "3.8.1"
# What azure-cli needs; everything else runs with an older Python too.
AZURE_CLI_PYTHON = (3, 10)


class NotInstalled(Exception):
    """The client libraries could not be installed."""


def python(progress: Progress) -> Path:
    """Returns the interpreter of a virtual environment with tests/azure-clients/python/requirements.txt.

    Run tools as modules (`python -m pytest`): the environment is moved into place after it is built, so the scripts in
    its bin folder contain the wrong path.
    """
    return _environment("python", "Python clients", paths.PYTHON_CLIENTS / "requirements.txt", [], progress)


def azure_cli(progress: Progress) -> Path:
    """Returns the interpreter of a virtual environment with the Azure CLI: run it as `python -m azure.cli`."""
    if sys.version_info < AZURE_CLI_PYTHON:
        wanted = ".".join(map(str, AZURE_CLI_PYTHON))
        raise NotInstalled(f"the Azure CLI needs Python {wanted} or newer (found: {sys.version.split()[0]})")
    # The file lists all packages. Of their many modules few are used, and Python compiles those when it first does.
    return _environment(
        "azure-cli", "Azure CLI", paths.AZURE_CLI / "requirements.txt", ["--no-deps", "--no-compile"], progress
    )


def _environment(kind: str, what: str, requirements: Path, options: List[str], progress: Progress) -> Path:
    if not requirements.is_file():
        raise NotInstalled(f"{_shown(requirements)} is missing")
    name = cache.key(requirements.read_bytes(), sys.version, os.path.realpath(sys.executable))

    def build(folder: Path) -> None:
        progress.say(f"{what}: installing {_shown(requirements)} ...")
        environment = folder / "venv"
        _install([sys.executable, "-m", "venv", environment])
        pip = [environment / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
        _install([*pip, "--quiet", *options, "-r", requirements])

    return cache.entry(kind, name, build, progress) / "venv" / "bin" / "python"


def jars(progress: Progress) -> Path:
    """Returns a folder with the jar files that tests/azure-clients/java/pom.xml lists, and those that they need."""
    source = paths.JAVA_CLIENTS / "pom.xml"
    if not source.is_file():
        raise NotInstalled(f"{_shown(source)} is missing")

    def build(folder: Path) -> None:
        progress.say(f"Java clients: downloading what {_shown(source)} lists ...")
        maven = ["mvn", "--batch-mode", "--quiet", "--no-transfer-progress", "--file", source]
        goal = f"org.apache.maven.plugins:maven-dependency-plugin:{DEPENDENCY_PLUGIN_VERSION}:copy-dependencies"
        command: "List[children.Argument]" = [*maven, goal, f"-DoutputDirectory={folder / 'jars'}"]
        # Maven prints its errors to the standard output.
        if children.run(command, paths.ROOT, INSTALL_TIMEOUT_SECONDS, **progress.options()) != 0:
            raise NotInstalled("Maven could not download the Java clients; see its output above")

    return cache.entry("java", cache.key(source.read_bytes(), DEPENDENCY_PLUGIN_VERSION), build, progress) / "jars"


def node_modules(progress: Progress) -> Path:
    """Returns node_modules as in tests/azure-clients/javascript/package-lock.json, and links it into that folder.

    The link is needed because Node resolves the imports of an ES module only from the module's folder upwards (NODE_PATH
    applies to CommonJS alone).
    """
    source = paths.JAVASCRIPT_CLIENTS
    manifests = [source / "package.json", source / "package-lock.json"]
    for manifest in manifests:
        if not manifest.is_file():
            raise NotInstalled(f"{_shown(manifest)} is missing")
    node = children.output(["node", "--version"]).strip()
    name = cache.key(*(manifest.read_bytes() for manifest in manifests), node.split(".")[0])

    def build(folder: Path) -> None:
        progress.say("JavaScript clients: installing tests/azure-clients/javascript/package-lock.json ...")
        for manifest in manifests:
            (folder / manifest.name).write_bytes(manifest.read_bytes())
        _install(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], folder)

    installed = cache.entry("javascript", name, build, progress) / "node_modules"
    _link(source / "node_modules", installed)
    return installed


def _link(link: Path, target: Path) -> None:
    if link.is_symlink():
        if Path(os.readlink(link)) == target:
            return
    elif link.exists():
        raise NotInstalled(f"{_shown(link)} already exists; remove it, because the tests create a link there")
    # Replaced atomically: another run may be using the old link.
    fresh = link.with_name(f".node_modules-{os.getpid()}")
    fresh.symlink_to(target, target_is_directory=True)
    os.replace(fresh, link)


def _install(command: "List[children.Argument]", cwd: Path = paths.ROOT) -> None:
    try:
        children.output(command, timeout=INSTALL_TIMEOUT_SECONDS, cwd=cwd)
    except children.CommandFailed as error:
        raise NotInstalled(str(error)) from error


def _shown(path: Path) -> str:
    return os.path.relpath(path, paths.ROOT)
