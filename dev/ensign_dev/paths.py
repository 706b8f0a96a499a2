"""Paths of the checkout, the build folder and the cache."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Mapping

ROOT = Path(__file__).resolve().parents[2]
CONTROL_PLANE_SOURCE = ROOT / "tests" / "control-plane"
HELM_SOURCE = ROOT / "tests" / "helm"
TOOLS = ROOT / "dev" / "tools"
CHART = ROOT / "charts" / "ensign"
PYTHON_CLIENTS = ROOT / "tests" / "azure-clients" / "python"
JAVASCRIPT_CLIENTS = ROOT / "tests" / "azure-clients" / "javascript"
GO_CLIENTS = ROOT / "tests" / "azure-clients" / "go"
JAVA_CLIENTS = ROOT / "tests" / "azure-clients" / "java"
AZURE_CLI = ROOT / "tests" / "azure-clients" / "az"
AZURE_CASES = ROOT / "tests" / "azure-cases"


def target_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """Returns cargo's target folder for this checkout."""
    return (ROOT / environment.get("CARGO_TARGET_DIR", "target")).resolve()


def cache_dir() -> Path:
    """Returns the cache for slow builds, outside the checkout: all clones share it, and `make clean` keeps it."""
    chosen = os.environ.get("ENSIGN_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().resolve() / "ensign"
