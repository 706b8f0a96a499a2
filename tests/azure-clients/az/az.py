"""The Azure CLI, unpatched: a process for each command, with settings of its own and no network but the emulator."""

import json
import os
import pathlib
import subprocess

COMMAND_TIMEOUT_SECONDS = 120
SCRIPT_TIMEOUT_SECONDS = 600


class AzFailed(Exception):
    """A command exited with a status other than 0."""

    def __init__(self, command, result):
        super().__init__(f"{command}: exit status {result.returncode}\n{result.stdout}\n{result.stderr}")
        self.stderr = result.stderr


class Az:
    """Runs `az` with the interpreter that has azure-cli, signed in or not."""

    def __init__(self, folder, ca_file):
        python = os.environ.get("ENSIGN_AZ_PYTHON")
        assert python, "set ENSIGN_AZ_PYTHON to the Python of an environment with requirements.txt"
        programs = folder / "bin"
        programs.mkdir(parents=True)
        # What pip installs as `az` does the same, but names the folder that the environment was built in.
        program = programs / "az"
        program.write_text(f'#!/bin/sh\nAZ_INSTALLER=PIP exec "{python}" -m azure.cli "$@"\n')
        program.chmod(0o755)
        self.environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(folder),
            "AZURE_CONFIG_DIR": str(folder / "azure"),
            # The authority is not public, so its instances must not be discovered.
            "AZURE_CORE_INSTANCE_DISCOVERY": "false",
            "AZURE_CORE_COLLECT_TELEMETRY": "no",
            "AZURE_CORE_NO_COLOR": "true",
            "AZURE_CORE_SURVEY_MESSAGE": "no",
            "REQUESTS_CA_BUNDLE": str(ca_file),
            "NO_PROXY": "127.0.0.1,localhost",
            "LANG": "C.UTF-8",
        }

    def run(self, *arguments):
        """What a command prints; fails if the command does."""
        return self._finished(["az", *map(str, arguments)], COMMAND_TIMEOUT_SECONDS).stdout.strip()

    def json(self, *arguments):
        """What a command prints, as JSON."""
        return json.loads(self.run(*arguments, "--output", "json"))

    def shell(self, script, *arguments, timeout=SCRIPT_TIMEOUT_SECONDS, **variables):
        """Runs a shell script in which `az` is this one; returns its standard output."""
        command = ["bash", "-c", script, "bash", *map(str, arguments)]
        return self._finished(command, timeout, variables).stdout

    def _finished(self, command, timeout, variables=None):
        environment = {**self.environment, **(variables or {})}
        result = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
        )
        if result.returncode != 0:
            raise AzFailed(" ".join(command)[:2000], result)
        return result


def ensign():
    """The program, to run what it prints."""
    built = pathlib.Path(__file__).resolve().parents[3] / "target" / "debug" / "ensign"
    return os.environ.get("ENSIGN_BIN") or str(built)
