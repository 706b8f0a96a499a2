"""Where things are."""

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


def target_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """The build folder of this checkout, as cargo sees it."""
    return (ROOT / environment.get("CARGO_TARGET_DIR", "target")).resolve()


def cache_dir() -> Path:
    """The folder outside the checkout that keeps what is slow to build.

    Fresh clones find it, and `make clean` leaves it alone.
    """
    chosen = os.environ.get("ENSIGN_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().resolve() / "ensign"
