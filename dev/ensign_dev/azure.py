"""What Azure says, asked as anybody would: from ARM, with a bearer token."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Dict, List, Optional

from .failure import Failure

API_VERSION = "2024-11-30"
ROLES_API_VERSION = "2022-04-01"
TIMEOUT_SECONDS = 15.0


class Arm:
    """A client of ARM that reads, with the rights of an administrator."""

    def __init__(self, endpoint: str, token_url: str, ca_file: Path) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._token_url = token_url
        # Everything is on loopback: a proxy from the caller's environment must not get between.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(ca_file))),
        )

    def identity(self, resource_id: str) -> Dict[str, Any]:
        """A user-assigned managed identity."""
        return self._get(f"{self._endpoint}{resource_id}?api-version={API_VERSION}")

    def identities(self, collection: str) -> List[Dict[str, Any]]:
        """The user-assigned managed identities of a resource group."""
        return self._all(f"{self._endpoint}{collection}?api-version={API_VERSION}")

    def credentials(self, resource_id: str) -> List[Dict[str, Any]]:
        """The federated identity credentials of an identity."""
        return self._all(f"{self._endpoint}{resource_id}/federatedIdentityCredentials?api-version={API_VERSION}")

    def role_assignments(self, scope: str) -> List[Dict[str, Any]]:
        """The role assignments in a scope, above it and below it."""
        return self._all(
            f"{self._endpoint}{scope}/providers/Microsoft.Authorization/roleAssignments?api-version={ROLES_API_VERSION}"
        )

    def _all(self, first: str) -> List[Dict[str, Any]]:
        """Everything that a list has, every page of it."""
        found: List[Dict[str, Any]] = []
        page: Optional[str] = first
        while page:
            answer = self._get(page)
            found += answer.get("value", [])
            page = answer.get("nextLink")
        return found

    def _get(self, url: str) -> Dict[str, Any]:
        token = self._fetch(urllib.request.Request(self._token_url))["access_token"]
        return self._fetch(urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"}))

    def _fetch(self, request: urllib.request.Request) -> Dict[str, Any]:
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace").strip()
            raise Failure(f"GET {request.full_url} was answered with {error.code}: {said}") from error
        except (OSError, ValueError) as error:
            raise Failure(f"GET {request.full_url} failed: {error}") from error


def credentials_of(subject: str, issuer: str, listed: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Those credentials that let a subject of an issuer in."""
    return [
        one
        for one in listed
        if (one["properties"]["subject"], one["properties"]["issuer"]) == (subject, issuer)
    ]
