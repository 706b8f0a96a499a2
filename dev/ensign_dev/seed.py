"""The initial state of the Azure emulator: the controller's own identity, and the example's."""

from __future__ import annotations

from typing import Any, Dict

NAMESPACE = "ensign-system"
CONTROLLER = "ensign-controller"
WEBHOOK = "ensign-webhook"
TOKEN_AUDIENCE = "api://AzureADTokenExchange"

# Fixed, so that the controller can be configured without querying Azure, and easy to recognize.
CONTROLLER_CLIENT_ID = "c11e0000-0000-4000-8000-000000000001"
CONTROLLER_PRINCIPAL_ID = "0b1e0000-0000-4000-8000-000000000001"
ORDERS_CLIENT_ID = "c11e0000-0000-4000-8000-000000000002"
ORDERS_PRINCIPAL_ID = "0b1e0000-0000-4000-8000-000000000002"


def subject(namespace: str, service_account: str) -> str:
    """Returns the subject of a service account's tokens."""
    return f"system:serviceaccount:{namespace}:{service_account}"


def state(issuer: str) -> Dict[str, Any]:
    """Returns the emulator's state document.

    The controller has no secret either: its identity trusts its service account, as in a real install.
    """
    trust = {
        "name": CONTROLLER,
        "issuer": issuer,
        "subject": subject(NAMESPACE, CONTROLLER),
        "audiences": [TOKEN_AUDIENCE],
        # Long ago, so that it has already propagated.
        "writtenAt": "2020-01-01T00:00:00Z",
    }
    controller = {
        "name": CONTROLLER,
        "clientId": CONTROLLER_CLIENT_ID,
        "principalId": CONTROLLER_PRINCIPAL_ID,
        "armRights": "all",
        "federatedIdentityCredentials": [trust],
    }
    orders = {"name": "orders", "clientId": ORDERS_CLIENT_ID, "principalId": ORDERS_PRINCIPAL_ID}
    return {"identities": [controller, orders]}
