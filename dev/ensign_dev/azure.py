"""A read-only client of ARM, independent of Ensign's own."""

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
    """Reads from ARM with administrator permissions."""

    def __init__(self, endpoint: str, token_url: str, ca_file: Path) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._token_url = token_url
        # All addresses are on loopback, so ignore proxy settings in the caller's environment.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(ca_file))),
        )

    def identity(self, resource_id: str) -> Dict[str, Any]:
        """Returns a user-assigned managed identity."""
        return self._get(f"{self._endpoint}{resource_id}?api-version={API_VERSION}")

    def identities(self, collection: str) -> List[Dict[str, Any]]:
        """Returns the user-assigned managed identities of a resource group."""
        return self._all(f"{self._endpoint}{collection}?api-version={API_VERSION}")

    def credentials(self, resource_id: str) -> List[Dict[str, Any]]:
        """Returns the federated identity credentials of an identity."""
        return self._all(f"{self._endpoint}{resource_id}/federatedIdentityCredentials?api-version={API_VERSION}")

    def role_assignments(self, scope: str) -> List[Dict[str, Any]]:
        """Returns the role assignments at, above and below a scope."""
        return self._all(
            f"{self._endpoint}{scope}/providers/Microsoft.Authorization/roleAssignments?api-version={ROLES_API_VERSION}"
        )

    def _all(self, first: str) -> List[Dict[str, Any]]:
        """Returns the entries of all pages of a list."""
        found: List[Dict[str, Any]] = []
        page: Optional[str] = first
        while page:
            response = self._get(page)
            found += response.get("value", [])
            page = response.get("nextLink")
        return found

    def _get(self, url: str) -> Dict[str, Any]:
        token = self._fetch(urllib.request.Request(self._token_url))["access_token"]
        return self._fetch(urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"}))

    def _fetch(self, request: urllib.request.Request) -> Dict[str, Any]:
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as response:
                return dict(json.load(response))
        except urllib.error.HTTPError as error:
            body = error.read().decode(errors="replace").strip()
            raise Failure(f"GET {request.full_url} returned {error.code}: {body}") from error
        except (OSError, ValueError) as error:
            raise Failure(f"GET {request.full_url} failed: {error}") from error


def credentials_of(subject: str, issuer: str, listed: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Returns the credentials that trust this subject of this issuer."""
    return [
        one
        for one in listed
        if (one["properties"]["subject"], one["properties"]["issuer"]) == (subject, issuer)
    ]
