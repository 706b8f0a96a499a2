"""Where cases are asked: the emulator or Azure."""

from __future__ import annotations

import time
import urllib.parse
from typing import Any, Dict, Mapping, Optional

from ..failure import Failure
from .case import Case
from .signing import Key
from .wire import Answer, Endpoint

TOKEN_AUDIENCE = "api://AzureADTokenExchange"
SUBJECT = "system:serviceaccount:ns:sa"
LIFETIME_SECONDS = 3600
ARM_AUDIENCE = "https://management.azure.com"


class Issuer:
    """An issuer of workloads' tokens: its URLs, and the key that it signs with."""

    def __init__(self, url: str, bad_keys: str, unreachable: str) -> None:
        self.url = url
        self.bad_keys = bad_keys
        self.unreachable = unreachable
        self._key: Optional[Key] = None

    @property
    def key(self) -> Key:
        """The key, generated when it is first needed."""
        if self._key is None:
            self._key = Key.generate("published")
        return self._key

    def token(self, changes: Mapping[str, Any]) -> str:
        """A token of a service account, in which some claims differ; those that are None are left out."""
        now = int(time.time())
        claims: Dict[str, Any] = {
            "iss": self.url, "sub": SUBJECT, "aud": [TOKEN_AUDIENCE],
            "iat": 0, "nbf": 0, "exp": LIFETIME_SECONDS, **changes,
        }
        header = {name: claims.pop(name) for name in ("kid", "alg") if name in claims}
        claims = {name: value for name, value in claims.items() if value is not None}
        for name in ("iat", "nbf", "exp"):
            if name in claims:
                claims[name] += now
        return self.key.token(claims, header)


class Target:
    """An ARM and its Entra."""

    subscription: str
    tenant: str
    location: str
    issuer: Issuer

    def more_bindings(self) -> Dict[str, str]:
        """Values of placeholders that not every target has."""
        return {}

    def group(self, case: Case) -> str:
        """The resource group of a case."""
        raise NotImplementedError

    def arm(self) -> Endpoint:
        """A new connection to ARM."""
        raise NotImplementedError

    def authority(self) -> Endpoint:
        """A new connection to Entra."""
        raise NotImplementedError

    def administrator(self) -> str:
        """The token of a caller who may do everything in the resource group."""
        raise NotImplementedError

    def caller(self, rights: Any, audience: str) -> str:
        """The token of a caller with some rights, for a resource."""
        raise NotImplementedError

    def change(self, change: Mapping[str, Any]) -> None:
        """Creates a lock or a policy that denies writes."""
        raise NotImplementedError


def exchange(authority: Endpoint, tenant: str, form: Mapping[str, str]) -> Answer:
    """Sends a form to Entra's token endpoint."""
    headers = {"content-type": "application/x-www-form-urlencoded"}
    body = urllib.parse.urlencode(form).encode()
    return authority.send("POST", f"/{tenant}/oauth2/v2.0/token", headers, body)


def token_form(client_id: str, assertion: str, audience: str = ARM_AUDIENCE) -> Dict[str, str]:
    """The form with which a workload gets a token."""
    return {
        "client_id": client_id,
        "scope": f"{audience.rstrip('/')}/.default",
        "grant_type": "client_credentials",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": assertion,
    }


def access_token(answer: Answer, what: str) -> str:
    """The token in Entra's answer; fails if there is none."""
    body = answer.json()
    if answer.status != 200 or not isinstance(body, dict) or not isinstance(body.get("access_token"), str):
        raise Failure(f"{what}: {answer.status} {answer.text()}")
    return str(body["access_token"])
