"""Runs inside a new mount namespace: creates a pod's mounts, then executes its program.

Reads {"mounts": [{"path", "read_only", "files": {path: text}}], "argv", "env"} from standard input, so that no token
appears on a command line or on disk: the mounts are in memory and disappear with the program.
"""

import json
import os
import subprocess
import sys
from pathlib import Path


def tmpfs(folder, mode):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode={mode},size=1m", "tmpfs", str(folder)], check=True)


def prepare(path):
    """Creates a mount point. Missing folders are created in memory, never on the machine's own file systems."""
    if path.is_dir():
        return
    existing = next(parent for parent in path.parents if parent.is_dir())
    if existing == Path(existing.anchor):
        sys.exit(f"can't create {path} without hiding the whole root file system")
    tmpfs(existing, "0755")
    path.mkdir(parents=True)


def main():
    wanted = json.load(sys.stdin)
    for mount in wanted["mounts"]:
        path = Path(mount["path"])
        prepare(path)
        tmpfs(path, "0755")
        for name, text in mount["files"].items():
            file = path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            file.chmod(0o644)
        if mount["read_only"]:
            subprocess.run(["mount", "-o", "remount,ro", str(path)], check=True)
    # The program must not be able to read this script's standard input.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.execve(wanted["argv"][0], wanted["argv"], wanted["env"])


if __name__ == "__main__":
    main()
