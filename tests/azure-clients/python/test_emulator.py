"""The emulator's own endpoints: state, log and faults; and that nothing makes it crash or disclose a token."""

import json

import pytest
from azure.core.exceptions import (
    ClientAuthenticationError,
    DecodeError,
    DeserializationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)

from errors import fails_with
from test_credentials import trust


def test_the_state_can_be_read_replaced_and_reset(emulator):
    state = emulator.state()
    assert [identity["name"] for identity in state["identities"]] == ["operator", "orders"]
    assert emulator.seed(**state) == state
    assert emulator.control("POST", "state/reset")["identities"] == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"identitys": []}', b'{"identities": [{"name": "x"}]}', b'{"subscriptions": 1}', b"\xff"]
)
def test_an_invalid_state_is_rejected_and_changes_nothing(emulator, body):
    before = emulator.state()
    assert emulator.request("PUT", "/_emulator/state", data=body).status_code == 400
    assert emulator.state() == before


def test_the_log_contains_the_requests(emulator, arm, group):
    emulator.control("DELETE", "log")
    named = {"x-ms-client-request-id": "mine"}
    arm.federated_identity_credentials.create_or_update(group, "orders", "new", trust(), headers=named)
    with fails_with(404, "NotFound"):
        arm.federated_identity_credentials.delete(group, "absent", "new")
    token, put, delete = [entry for entry in emulator.log() if entry["kind"] != "emulator"]
    assert (token["kind"], token["method"], token["status"]) == ("token", "POST", 200)
    assert (put["kind"], put["method"], put["status"], put["error_code"]) == ("arm-write", "PUT", 201, None)
    assert put["body"] == trust() and put["client_request_id"] == "mine"
    assert put["principal_id"] == emulator.identity("operator")["principalId"]
    assert put["path"].endswith("/federatedIdentityCredentials/new") and "api-version=" in put["query"]
    assert "azsdk-python-" in put["user_agent"]
    assert (delete["status"], delete["error_code"]) == (404, "NotFound")
    assert emulator.log(kind="arm-write", method="put") == [put]
    assert emulator.log(kind="arm-write", since=put["seq"]) == [delete]
    assert emulator.log(path="/ABSENT/") == [delete]


def test_no_token_is_ever_disclosed(emulator, credential, issuer, client_of, group):
    assertion = issuer.token()
    access = credential(assertion).get_token("https://management.azure.com/.default").token
    misplaced = f"/subscriptions/{emulator.subscription_id}/resourceGroups/{access}/providers/x?api-version={access}"
    answers = [
        emulator.request("GET", misplaced, headers={"Authorization": f"Bearer {access}", "User-Agent": access}),
        emulator.request("GET", f"/{assertion}/v2.0/.well-known/openid-configuration"),
        emulator.request("POST", f"/{assertion}/oauth2/v2.0/token", data={"client_id": assertion}),
        emulator.request("PUT", f"/subscriptions/{access}", json={"token": access}),
        emulator.request("PUT", "/_emulator/faults", json={"token": assertion}),
        emulator.request("GET", "/_emulator/log", params={"since": assertion}),
    ]
    assert all(400 <= answer.status_code < 500 for answer in answers)
    told = json.dumps(emulator.log()) + json.dumps(emulator.state()) + "".join(answer.text for answer in answers)
    for token in (assertion, access):
        for part in token.split("."):
            assert part not in told


IDENTITIES = "/subscriptions/{s}/resourceGroups/{g}/providers/Microsoft.ManagedIdentity/userAssignedIdentities"
GARBAGE = [
    ("GET", "/", b""),
    ("GET", "/subscriptions", b""),
    ("GET", "/subscriptions//", b""),
    ("GET", "/subscriptions/%00/%ff/../x", b""),
    ("PUT", IDENTITIES + "/a%2fb", b"{"),
    ("PUT", IDENTITIES + "/abc", b"\xff"),
    ("PUT", IDENTITIES + "/abc", b"[" * 9999),
    ("PUT", IDENTITIES + "/abc", b'["eastus", null, null]'),
    ("PUT", IDENTITIES, b"{}"),
    ("PATCH", IDENTITIES + "/orders/federatedIdentityCredentials/trust", b"{}"),
    ("GET", IDENTITIES + "/a/b/c/d", b""),
    ("GET", "/subscriptions/{s}/resourceGroups/{g}/providers/Microsoft.Compute/virtualMachines", b""),
    ("GET", "/subscriptions/{s}/resourceGroups/{g}/providers/Microsoft.ManagedIdentity/others", b""),
    ("GET", "/subscriptions/{s}/resourceGroups/{g}", b""),
    ("OPTIONS", "/subscriptions/{s}/providers/Microsoft.ManagedIdentity/userAssignedIdentities", b""),
    ("POST", "/tenant/oauth2/v2.0/token", b"\xff%%%&&&===" * 99),
    ("POST", "/oauth2/v2.0/token", b""),
    ("POST", "/tenant/discovery/v2.0/keys", b""),
    ("GET", "/tenant/discovery/v2.0", b""),
    ("GET", "/_emulator", b""),
    ("GET", "/_emulator/nothing", b""),
    ("DELETE", "/_emulator/state", b""),
    ("PUT", "/_emulator/faults", b"[" * 9999),
    ("PUT", "/_emulator/faults", b'[{"action": {"status": 99}}]'),
    ("GET", "/_emulator/log?since=yesterday", b""),
]


@pytest.mark.parametrize("method, path, body", GARBAGE, ids=range(len(GARBAGE)))
def test_invalid_requests_get_a_4xx(emulator, group, method, path, body):
    path = path.format(s=emulator.subscription_id, g=group)
    if path.startswith("/subscriptions"):
        path += "?api-version=2024-11-30"
    token = emulator.control("GET", "arm-token")["access_token"]
    answer = emulator.request(method, path, data=body, headers={"Authorization": f"Bearer {token}"})
    assert 400 <= answer.status_code < 500, answer.text


def test_a_body_that_is_too_large_is_rejected(emulator):
    answer = emulator.request("POST", f"/{emulator.tenant_id}/oauth2/v2.0/token", data=b"a" * (1024 * 1024 + 1))
    assert answer.status_code == 413


def credentials(arm, group):
    return [credential.name for credential in arm.federated_identity_credentials.list(group, "orders")]


@pytest.fixture
def put_fails(arm, group):
    def put_fails(failure):
        with pytest.raises(failure) as caught:
            arm.federated_identity_credentials.create_or_update(group, "orders", "new", trust())
        return caught.value

    return put_fails


@pytest.mark.parametrize(
    "action, failure, applied",
    [
        ("drop-before", (ServiceRequestError, ServiceResponseError), False),
        ("apply-then-drop", (ServiceRequestError, ServiceResponseError), True),
        ("apply-then-500", HttpResponseError, True),
        ("truncated-json", DecodeError, True),
        ("html", (DecodeError, DeserializationError), False),
    ],
)
def test_a_fault_is_applied_or_not_as_scripted(arm, group, emulator, put_fails, action, failure, applied):
    emulator.faults({"match": {"method": "PUT", "pathContains": "/orders/"}, "action": action})
    put_fails(failure)
    assert credentials(arm, group) == (["new", "trust"] if applied else ["trust"])
    [entry] = emulator.log(kind="arm-write")
    assert json.loads(entry["fault"]) == action
    assert entry.get("applied_status") == (201 if applied else None)
    assert (entry["status"] is None) == action.endswith(("drop", "before"))
    assert emulator.control("GET", "faults")[0]["fired"] == 1
    arm.federated_identity_credentials.create_or_update(group, "orders", "next", trust(subject="next"))


def test_a_scripted_response_is_returned(arm, group, emulator, put_fails):
    message = f"Number of 'write' requests for subscription '{emulator.subscription_id}' actor 'x' exceeded."
    action = {"status": 429, "code": "SubscriptionRequestsThrottled", "message": message, "retryAfter": "17"}
    emulator.faults({"match": {"kind": "arm-write"}, "nth": 2, "action": action})
    arm.federated_identity_credentials.create_or_update(group, "orders", "first", trust(subject="first"))
    error = put_fails(HttpResponseError)
    assert (error.status_code, error.error.code, error.error.message) == (429, action["code"], message)
    assert error.response.headers["Retry-After"] == "17"
    assert credentials(arm, group) == ["first", "trust"]


def test_the_second_page_of_a_list_can_fail(arm, group, emulator):
    emulator.change_state(credentialPageSize=1)
    arm.federated_identity_credentials.create_or_update(group, "orders", "new", trust())
    emulator.faults({"match": {"pathContains": "$skiptoken"}, "action": {"status": 500, "code": "InternalServerError"}})
    with fails_with(500, "InternalServerError"):
        credentials(arm, group)


def test_a_token_request_can_fail_with_entras_error(emulator, credential):
    action = {"status": 400, "code": "temporarily_unavailable", "message": "AADSTS90033: A transient error."}
    emulator.faults({"match": {"kind": "token"}, "action": action})
    with pytest.raises(ClientAuthenticationError, match="AADSTS90033"):
        credential().get_token("https://management.azure.com/.default")


def test_a_delayed_request_is_served(emulator, arm, group):
    emulator.faults({"match": {"kind": "arm-read"}, "action": {"delayMs": 1}})
    assert credentials(arm, group) == ["trust"]
    [entry] = emulator.log(kind="arm-read")
    assert json.loads(entry["fault"]) == {"delayMs": 1} and entry["status"] == 200


def test_a_write_completes_after_its_client_has_disconnected(emulator, arm, group):
    emulator.change_state(writeLatencyMs=600_000)
    with pytest.raises((ServiceRequestError, ServiceResponseError)):
        arm.federated_identity_credentials.create_or_update(group, "orders", "new", trust(), read_timeout=0.3)
    assert credentials(arm, group) == ["trust"]
    emulator.change_state(writeLatencyMs=0)
    emulator.wait_for_state(lambda state: not state.get("credentialWritesUnderWay"))
    assert credentials(arm, group) == ["new", "trust"]
