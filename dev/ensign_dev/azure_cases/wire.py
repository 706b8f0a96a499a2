"""Requests over https, and their answers."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import urllib.parse
from typing import Any, Dict, Mapping, Optional

from ..failure import Failure
from .values import ABSENT

TIMEOUT_SECONDS = 30.0
# More than any answer of a case has.
MAX_BODY_BYTES = 16 * 1024 * 1024
# Left as they are in a path or query.
SAFE = "/?&=$():@,;!*+~'-._%"


class Answer:
    """Status, headers (names in lower case) and body."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.body = body

    def json(self) -> Any:
        """The body's JSON, or ABSENT if it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return ABSENT

    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", errors="replace")


class Endpoint:
    """An https server, and one connection to it that is kept open. For one thread at a time."""

    def __init__(self, base: str, context: ssl.SSLContext, timeout: float = TIMEOUT_SECONDS) -> None:
        parsed = urllib.parse.urlsplit(base)
        if parsed.scheme != "https" or not parsed.hostname:
            raise Failure(f"{base} is not an https URL")
        self.base = base.rstrip("/")
        self._prefix = parsed.path.rstrip("/")
        self._connection = http.client.HTTPSConnection(
            parsed.hostname, parsed.port or 443, timeout=timeout, context=context
        )
        self._is_reused = False

    def send(self, method: str, target: str, headers: Mapping[str, str], body: Optional[bytes] = None) -> Answer:
        """Sends a request for a path with an optional query."""
        path = urllib.parse.quote(self._prefix + target, safe=SAFE)
        try:
            try:
                return self._once(method, path, headers, body)
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                self.close()
                # The server may close an idle connection at any time; on a new one, this is a failure.
                if not self._is_reused:
                    raise
                self._is_reused = False
                return self._once(method, path, headers, body)
        except (OSError, http.client.HTTPException, socket.timeout) as error:
            self.close()
            raise Failure(f"{method} {self.base}{target}: {type(error).__name__}: {error}") from error

    def open(self) -> None:
        """Opens the connection now, so that the next request takes less time."""
        try:
            self._connection.connect()
        except OSError as error:
            raise Failure(f"cannot connect to {self.base}: {error}") from error

    def close(self) -> None:
        """Closes the connection; the next request opens another one."""
        self._connection.close()

    def _once(self, method: str, path: str, headers: Mapping[str, str], body: Optional[bytes]) -> Answer:
        if self._connection.sock is None:
            self._is_reused = False
        self._connection.request(method, path, body=body, headers=dict(headers))
        response = self._connection.getresponse()
        data = response.read(MAX_BODY_BYTES)
        joined: Dict[str, str] = {}
        for name, value in response.getheaders():
            name = name.lower()
            joined[name] = f"{joined[name]}, {value}" if name in joined else value
        self._is_reused = True
        return Answer(response.status, joined, data)


def with_query(path: str, **parameters: Optional[str]) -> str:
    """A path with more query parameters; those that are None are left out."""
    given = {name.replace("_", "-"): value for name, value in parameters.items() if value is not None}
    if not given:
        return path
    return f"{path}{'&' if '?' in path else '?'}{urllib.parse.urlencode(given)}"


def trusting(ca_file: str) -> ssl.SSLContext:
    """A TLS context that trusts one CA."""
    return ssl.create_default_context(cafile=ca_file)
