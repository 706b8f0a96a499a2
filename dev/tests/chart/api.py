"""A client of an API server, authenticated with a client certificate or with a service account token."""

import base64
import http.client
import json
import ssl
import threading
from pathlib import Path
from urllib.parse import urlsplit


class Refused(Exception):
    """The API server rejected a request."""

    def __init__(self, status, message):
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class Api:
    """A client with one connection per thread."""

    def __init__(self, server, context, token=None):
        self.server = server
        self._server = urlsplit(server)
        self._context = context
        self._token = token
        self._local = threading.local()
        self._connections = []

    @classmethod
    def administrator(cls, kubectl, folder):
        """Returns a client with the kubeconfig's credentials."""
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
        """Returns a client of the same server that authenticates with this token."""
        return Api(self.server, ssl.create_default_context(cadata=self.ca), token)

    def close(self):
        for connection in self._connections:
            connection.close()

    def get(self, path):
        return self._ask("GET", path)

    def find(self, path):
        """Returns the object, or None if it does not exist."""
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
        content_text = None if body is None else json.dumps(body)
        for last in (False, True):
            connection = getattr(self._local, "connection", None)
            if connection is None:
                connection = http.client.HTTPSConnection(
                    self._server.hostname, self._server.port, context=self._context, timeout=60
                )
                self._local.connection = connection
                self._connections.append(connection)
            try:
                connection.request(method, path, content_text, headers)
                response = connection.getresponse()
                text = response.read()
                break
            except (http.client.HTTPException, ConnectionError):
                # The server may have closed an idle connection.
                self._local.connection = None
                connection.close()
                if last:
                    raise
        decoded = json.loads(text) if text[:1] in (b"{", b"[") else {"message": text.decode(errors="replace")}
        if response.status >= 300:
            raise Refused(response.status, decoded.get("message", ""))
        return decoded
