"""Authorization: tokens, permissions, subscriptions, API versions, locks and policies."""

import pytest
import requests
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError

from errors import fails_with
from test_credentials import trust


class Fixed:
    """A credential that always returns the same token."""

    def __init__(self, token):
        self._token = token

    def get_token(self, *_scopes, **_options):
        return AccessToken(self._token, 4_000_000_000)


@pytest.fixture
def get(emulator, group):
    """GETs an identity with exactly these headers."""

    def get(headers=None, query="api-version=2024-11-30"):
        path = (
            f"/subscriptions/{emulator.subscription_id}/resourceGroups/{group}"
            f"/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders?{query}"
        )
        return emulator.request("GET", path, headers=headers)

    return get


@pytest.fixture
def administrator(emulator):
    return {"Authorization": f"Bearer {emulator.control('GET', 'arm-token')['access_token']}"}


def test_a_request_without_a_token_is_rejected(get):
    for headers in (None, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer"}):
        answer = get(headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "AuthenticationFailed")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer authorization_uri=")


def test_a_token_of_another_issuer_is_rejected(get, issuer, administrator):
    changed = administrator["Authorization"][:-8] + "AAAAAAAA"
    for header in (f"Bearer {issuer.token()}", "Bearer rubbish", changed):
        answer = get({"Authorization": header})
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "InvalidAuthenticationToken")


def test_a_token_for_another_resource_is_rejected(client_of, credential, group):
    operator = credential(identity="operator", sub="system:serviceaccount:ensign-system:ensign")
    with client_of(operator, scopes=["https://vault.azure.net/.default"]) as arm:
        with pytest.raises(ClientAuthenticationError) as caught:
            arm.user_assigned_identities.get(group, "orders")
    assert caught.value.response.json()["error"]["code"] == "InvalidAuthenticationTokenAudience"


def test_a_principal_without_permissions_is_denied(client_of, credential, group, emulator):
    workload = emulator.identity("orders")
    scope = (
        f"/subscriptions/{emulator.subscription_id}/resourceGroups/{group}"
        "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders"
    )
    message = (
        f"The client '{workload['clientId']}' with object id '{workload['principalId']}' does not have authorization "
        "to perform action 'Microsoft.ManagedIdentity/userAssignedIdentities/read' "
        f"over scope '{scope}' or the scope is invalid."
    )
    with client_of(credential()) as arm:
        with fails_with(403, "AuthorizationFailed", message):
            arm.user_assigned_identities.get(group, "orders")


def test_a_reader_can_read_but_not_write(client_of, credential, group, emulator):
    identities = [{**identity, "armRights": "read"} for identity in emulator.state()["identities"]]
    emulator.change_state(identities=identities)
    with client_of(credential()) as arm:
        assert arm.user_assigned_identities.get(group, "orders")
        for write, action in (
            (lambda: arm.federated_identity_credentials.delete(group, "orders", "trust"), "delete"),
            (lambda: arm.federated_identity_credentials.create_or_update(group, "orders", "new", trust()), "write"),
        ):
            message = f"Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials/{action}'"
            with fails_with(403, "AuthorizationFailed", message):
                write()


def test_a_deleted_principal_has_no_permissions_left(arm, group, emulator):
    assert arm.user_assigned_identities.get(group, "orders")
    emulator.change_state(identities=[i for i in emulator.state()["identities"] if i["name"] != "operator"])
    with fails_with(403, "AuthorizationFailed"):
        arm.user_assigned_identities.get(group, "orders")


def test_a_subscription_of_another_tenant_is_rejected(emulator, credential, client_of, group):
    other = "50b00000-0000-4000-8000-0000000000ff"
    subscriptions = emulator.state()["subscriptions"]
    tenant = "7e000000-0000-4000-8000-0000000000ff"
    emulator.change_state(subscriptions=[*subscriptions, {"id": other, "tenantId": tenant}])
    operator = credential(identity="operator", sub="system:serviceaccount:ensign-system:ensign")
    with client_of(operator, subscription_id=other) as arm:
        with pytest.raises(ClientAuthenticationError) as caught:
            arm.user_assigned_identities.get(group, "orders")
    assert caught.value.response.json()["error"]["code"] == "InvalidAuthenticationTokenTenant"


def test_an_unknown_subscription_is_not_found(client_of, credential, group):
    operator = credential(identity="operator", sub="system:serviceaccount:ensign-system:ensign")
    with client_of(operator, subscription_id="50b00000-0000-4000-8000-0000000000ee") as arm:
        with fails_with(404, "SubscriptionNotFound"):
            arm.user_assigned_identities.get(group, "orders")
    with client_of(operator, subscription_id="mine") as arm:
        with fails_with(400, "InvalidSubscriptionId"):
            arm.user_assigned_identities.get(group, "orders")


@pytest.mark.parametrize(
    "query, code",
    [
        ("", "MissingApiVersionParameter"),
        ("api-version=", "MissingApiVersionParameter"),
        ("api-version=2030-01-01", "NoRegisteredProviderFound"),
        ("api-version=2025-01-31", "NoRegisteredProviderFound"),
    ],
)
def test_an_api_version_is_missing_or_unknown(get, administrator, query, code):
    answer = get(administrator, query)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


@pytest.mark.parametrize("version", ["2023-01-31", "2023-07-31-preview", "2025-05-31-PREVIEW", "2026-05-31"])
def test_known_api_versions_are_accepted(get, administrator, version):
    answer = get(administrator, f"api-version={version}")
    assert answer.status_code == 200
    assert ("isolationScope" in answer.json()["properties"]) == (version >= "2024-11-30")


def test_credentials_do_not_exist_in_the_oldest_api_versions(emulator, administrator, group):
    path = (
        f"/subscriptions/{emulator.subscription_id}/resourceGroups/{group}/providers/Microsoft.ManagedIdentity"
        "/userAssignedIdentities/orders/federatedIdentityCredentials?api-version=2018-11-30"
    )
    answer = emulator.request("GET", path, headers=administrator)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "InvalidResourceType")


def test_responses_have_the_headers_of_arm(get, administrator):
    answer = get({**administrator, "x-ms-client-request-id": "mine", "x-ms-correlation-request-id": "ours"})
    assert answer.headers["x-ms-client-request-id"] == "mine"
    assert answer.headers["x-ms-correlation-request-id"] == "ours"
    assert len(answer.headers["x-ms-request-id"]) == 36
    assert int(answer.headers["x-ms-ratelimit-remaining-subscription-global-reads"]) > 0


def test_a_lock_is_inherited_by_credentials(arm, group, emulator):
    identity = emulator.identity("orders")["id"]
    emulator.change_state(locks=[{"scope": identity}])
    for delete, resource in (
        (lambda: arm.user_assigned_identities.delete(group, "orders"), identity),
        (
            lambda: arm.federated_identity_credentials.delete(group, "orders", "trust"),
            f"{identity}/federatedIdentityCredentials/trust",
        ),
    ):
        message = (
            f"The scope '{resource}' cannot perform delete operation because following scope(s) are locked: "
            f"'{identity}'. Please remove the lock and try again."
        )
        with fails_with(409, "ScopeLocked", message):
            delete()
    assert arm.federated_identity_credentials.create_or_update(group, "orders", "new", trust())


def test_a_read_only_lock_denies_writes_too(arm, group, emulator):
    emulator.change_state(locks=[{"scope": f"/subscriptions/{emulator.subscription_id}", "level": "ReadOnly"}])
    for write in (
        lambda: arm.federated_identity_credentials.create_or_update(group, "orders", "new", trust()),
        lambda: arm.user_assigned_identities.update(group, "orders", {"tags": {}}),
        lambda: arm.user_assigned_identities.create_or_update(group, "orders", {"location": "westeurope"}),
    ):
        with fails_with(409, "ScopeLocked", "cannot perform write operation"):
            write()
    assert arm.user_assigned_identities.get(group, "orders")


def test_a_policy_denies_what_it_covers(arm, group, emulator):
    kind = "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials"
    scope = f"/subscriptions/{emulator.subscription_id}"
    emulator.change_state(denyPolicies=[{"name": "no-federation", "scope": scope, "resourceType": kind}])
    with fails_with(403, "RequestDisallowedByPolicy", "Resource 'new' was disallowed by policy."):
        arm.federated_identity_credentials.create_or_update(group, "orders", "new", trust())
    assert arm.user_assigned_identities.update(group, "orders", {"tags": {"a": "b"}})
    arm.federated_identity_credentials.delete(group, "orders", "trust")


def test_the_certificate_is_not_of_a_public_ca(emulator):
    with requests.Session() as session:
        session.trust_env = False
        with pytest.raises(requests.exceptions.SSLError):
            session.get(emulator.state_url, timeout=10)
