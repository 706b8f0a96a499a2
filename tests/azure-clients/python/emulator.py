"""The emulator as a process, and its own endpoints."""

import json
import os
import pathlib
import subprocess
import time

import requests

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
DEADLINE_SECONDS = 30


class Emulator:
    """A running `ensign-azure-emulator`; it stops when its stdin is closed."""

    def __init__(self, *arguments):
        built = REPOSITORY / "target" / "debug" / "ensign-azure-emulator"
        binary = os.environ.get("ENSIGN_AZURE_EMULATOR_BIN") or built
        self._process = subprocess.Popen(
            [str(binary), "--stop-on-stdin-eof", "--log", "info", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        line = self._process.stdout.readline()
        assert line, f"{binary} did not start: exit code {self._process.wait(DEADLINE_SECONDS)}"
        self.info = json.loads(line)
        self.session = requests.Session()
        self.session.verify = self.info["ca_file"]
        self.session.trust_env = False

    def __getattr__(self, name):
        try:
            return self.info[name]
        except KeyError as missing:
            raise AttributeError(name) from missing

    def stop(self):
        self._process.stdin.close()
        return self._process.wait(DEADLINE_SECONDS)

    def request(self, method, path, **options):
        return self.session.request(method, self.arm_endpoint + path, timeout=DEADLINE_SECONDS, **options)

    def control(self, method, path, **options):
        answer = self.request(method, f"/_emulator/{path}", **options)
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    def state(self):
        return self.control("GET", "state")

    def seed(self, **document):
        return self.control("PUT", "state", json=document)

    def change_state(self, **changes):
        return self.seed(**{**self.state(), **changes})

    def identity(self, name):
        return next(identity for identity in self.state()["identities"] if identity["name"] == name)

    def log(self, **filters):
        return self.control("GET", "log", params=filters)

    def faults(self, *rules):
        return self.control("PUT", "faults", json=list(rules))

    def wait_for_state(self, fact):
        """Waits until a condition of the state holds."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not fact(self.state()):
            assert time.monotonic() < deadline, "the state never got there"
            time.sleep(0.005)
