"""One API server, asked as somebody: with a client certificate, or with the token of a service account."""

import base64
import http.client
import json
import ssl
import threading
from pathlib import Path
from urllib.parse import urlsplit


class Refused(Exception):
    """The API server did not do it."""

    def __init__(self, status, message):
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class Api:
    """A client with one connection for each thread."""

    def __init__(self, server, context, token=None):
        self.server = server
        self._server = urlsplit(server)
        self._context = context
        self._token = token
        self._local = threading.local()
        self._connections = []

    @classmethod
    def administrator(cls, kubectl, folder):
        """As the kubeconfig says."""
        view = kubectl.json("config", "view", "--raw", "--minify")
        cluster, user = view["clusters"][0]["cluster"], view["users"][0]["user"]
        ca = base64.b64decode(cluster["certificate-authority-data"]).decode()
        files = []
        for name in ("client-certificate-data", "client-key-data"):
            file = Path(folder) / name
            file.touch(mode=0o600)
            file.write_bytes(base64.b64decode(user[name]))
            files.append(file)
        context = ssl.create_default_context(cadata=ca)
        context.load_cert_chain(*files)
        api = cls(cluster["server"], context)
        api.ca = ca
        return api

    def as_bearer(self, token):
        """The same server, asked by whoever has this token."""
        return Api(self.server, ssl.create_default_context(cadata=self.ca), token)

    def close(self):
        for connection in self._connections:
            connection.close()

    def get(self, path):
        return self._ask("GET", path)

    def find(self, path):
        """The object, or None if there is none."""
        try:
            return self.get(path)
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    def post(self, path, body):
        return self._ask("POST", path, body)

    def put(self, path, body):
        return self._ask("PUT", path, body)

    def patch(self, path, body, kind="merge"):
        return self._ask("PATCH", path, body, f"application/{kind}-patch+json")

    def delete(self, path, body=None):
        return self._ask("DELETE", path, body)

    def _ask(self, method, path, body=None, content="application/json"):
        headers = {"Content-Type": content}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        text = None if body is None else json.dumps(body)
        for last in (False, True):
            connection = getattr(self._local, "connection", None)
            if connection is None:
                connection = http.client.HTTPSConnection(
                    self._server.hostname, self._server.port, context=self._context, timeout=60
                )
                self._local.connection = connection
                self._connections.append(connection)
            try:
                connection.request(method, path, text, headers)
                answer = connection.getresponse()
                said = answer.read()
                break
            except (http.client.HTTPException, ConnectionError):
                # A connection that rested may have been closed meanwhile.
                self._local.connection = None
                connection.close()
                if last:
                    raise
        decoded = json.loads(said) if said[:1] in (b"{", b"[") else {"message": said.decode(errors="replace")}
        if answer.status >= 300:
            raise Refused(answer.status, decoded.get("message", ""))
        return decoded
