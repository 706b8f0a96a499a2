"""Renders the chart with helm, and lists the sets of values that it is tested with."""

import json
import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensign_dev import helm, paths  # noqa: E402
from ensign_dev.progress import Progress  # noqa: E402

NAMESPACE = "ensign-system"
RELEASE = "ensign"
SETS = sorted((paths.CHART / "ci").glob("*-values.yaml"))
LEAST = paths.CHART / "ci" / "least-values.yaml"


def offline():
    """Returns helm without a cluster."""
    home = Path(tempfile.mkdtemp(prefix="ensign-helm-"))
    return helm.Helm(helm.ensure(Progress()), home)


def template(program, *arguments, values=LEAST):
    """Renders the chart; returns helm's result."""
    return program.try_("template", RELEASE, paths.CHART, "--namespace", NAMESPACE, "--values", values, *arguments)


def defaults(program):
    """Returns the chart's default values, as helm parses them."""
    answer = program(
        "install", RELEASE, paths.CHART, "--namespace", NAMESPACE, "--values", LEAST,
        "--dry-run=client", "--hide-secret", "--output", "json",
    )
    return json.loads(answer)["chart"]["values"]


def keys(values, prefix=""):
    """Returns all leaf values by path. Objects with arbitrary keys are leaves too."""
    found = {}
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict) and value and not is_free(path):
            found.update(keys(value, f"{path}."))
        else:
            found[path] = value
    return found


def is_free(path):
    """Whether the keys of this object are arbitrary."""
    return bool(re.search(r"(labels|annotations|Labels|Annotations|nodeSelector|affinity|resources)$", path))


def documents(text):
    """Splits a rendered chart into its documents, as text."""
    return [one for one in re.split(r"^---\n", text, flags=re.MULTILINE) if re.sub(r"(?m)^\s*(#.*)?$", "", one).strip()]
