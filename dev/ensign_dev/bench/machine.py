"""Describes the machine that the figures were measured on."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Dict, Union

from .. import children, paths
from ..control_plane import kubernetes_version

Description = Dict[str, Union[str, int, float]]


def describe() -> Description:
    """Describes the machine and the tools at the start of a run."""
    return {
        "cpu": cpu_model(_read("/proc/cpuinfo")),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": memory_mib(_read("/proc/meminfo")),
        "kernel": f"{platform.system()} {platform.release()}",
        "rustc": children.output(["rustc", "--version"]).strip(),
        "kubernetes": kubernetes_version((paths.CONTROL_PLANE_SOURCE / "go.mod").read_text()),
        "load_at_start": round(os.getloadavg()[0], 2),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def cpu_model(cpuinfo: str) -> str:
    """The name of the processor, from the text of /proc/cpuinfo."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def memory_mib(meminfo: str) -> int:
    """The total memory, from the text of /proc/meminfo."""
    for line in meminfo.splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    return 0


def as_text(machine: Description) -> str:
    """One line for people."""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {int(machine['memory_mib']) / 1024:.0f} GiB, "
        f"{machine['kernel']}, {machine['rustc']}, Kubernetes {machine['kubernetes']}, load {machine['load_at_start']} at the start, "
        f"{machine['date']}"
    )


def _read(file: str) -> str:
    try:
        return Path(file).read_text()
    except OSError:
        return ""
