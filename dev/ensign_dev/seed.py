"""What is in Azure before anything happens: the identity of the controller itself, and the example's."""

from __future__ import annotations

from typing import Any, Dict

NAMESPACE = "ensign-system"
CONTROLLER = "ensign-controller"
WEBHOOK = "ensign-webhook"
TOKEN_AUDIENCE = "api://AzureADTokenExchange"

# Fixed, so that the controller can be configured before anybody asks Azure, and easily recognised.
CONTROLLER_CLIENT_ID = "c11e0000-0000-4000-8000-000000000001"
CONTROLLER_PRINCIPAL_ID = "0b1e0000-0000-4000-8000-000000000001"
ORDERS_CLIENT_ID = "c11e0000-0000-4000-8000-000000000002"
ORDERS_PRINCIPAL_ID = "0b1e0000-0000-4000-8000-000000000002"


def subject(namespace: str, service_account: str) -> str:
    """How Entra sees a service account."""
    return f"system:serviceaccount:{namespace}:{service_account}"


def state(issuer: str) -> Dict[str, Any]:
    """The state document of the emulator.

    The controller has no secret either: its identity trusts its own service account, as in a real install.
    """
    trust = {
        "name": CONTROLLER,
        "issuer": issuer,
        "subject": subject(NAMESPACE, CONTROLLER),
        "audiences": [TOKEN_AUDIENCE],
        # Long ago: whoever installs has waited for the propagation.
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
