"""Federated identity credentials through azure-mgmt-msi."""

import io
import json
import threading

import pytest
from azure.core.exceptions import HttpResponseError

from issuer import AUDIENCE, SUBJECT
from errors import fails_with


def trust(issuer="https://issuer.example", subject="system:serviceaccount:a:b", audiences=(AUDIENCE,)):
    return {"properties": {"issuer": issuer, "subject": subject, "audiences": list(audiences)}}


@pytest.fixture
def put(arm, group):
    def put(name, *, identity="orders", body=None, **properties):
        body = body or trust(**properties)
        return arm.federated_identity_credentials.create_or_update(group, identity, name, body)

    return put


def test_a_credential_is_created_read_updated_listed_and_deleted(arm, group, emulator):
    credentials = arm.federated_identity_credentials
    statuses = []
    seen = {"raw_response_hook": lambda answer: statuses.append(answer.http_response.status_code)}
    created = credentials.create_or_update(group, "orders", "ensign-1", trust(), **seen)
    assert created.id == (
        f"/subscriptions/{emulator.subscription_id}/resourcegroups/{group}"
        "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders/federatedIdentityCredentials/ensign-1"
    )
    assert created.type == "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials"
    assert (created.issuer, created.subject) == ("https://issuer.example", "system:serviceaccount:a:b")
    assert created.audiences == [AUDIENCE]

    updated = credentials.create_or_update(group, "orders", "ensign-1", trust(subject="other"), **seen)
    assert updated.subject == "other"
    assert credentials.get(group, "orders", "ENSIGN-1", **seen).as_dict() == updated.as_dict()
    assert [listed.name for listed in credentials.list(group, "orders")] == ["ensign-1", "trust"]
    credentials.delete(group, "orders", "ensign-1", **seen)
    credentials.delete(group, "orders", "ensign-1", **seen)
    assert statuses == [201, 200, 200, 200, 204]
    with fails_with(404, "ResourceNotFound"):
        credentials.get(group, "orders", "ensign-1")


def test_twenty_credentials_fit_on_one_page_unless_top_is_smaller(arm, group, put, emulator):
    for number in range(19):
        put(f"fic-{number:02}", subject=f"subject-{number}")
    list_ = arm.federated_identity_credentials.list
    emulator.control("DELETE", "log")
    everything = [credential.name for credential in list_(group, "orders")]
    assert len(everything) == 20
    assert len(emulator.log(kind="arm-read")) == 1
    pages = [[credential.name for credential in page] for page in list_(group, "orders", top=6).by_page()]
    assert [len(page) for page in pages] == [6, 6, 6, 2]
    assert sum(pages, []) == everything


def test_a_page_survives_the_deletion_of_what_came_before_it(arm, group, put):
    for number in range(3):
        put(f"fic-{number}", subject=f"subject-{number}")
    pages = arm.federated_identity_credentials.list(group, "orders", top=2).by_page()
    assert [credential.name for credential in next(pages)] == ["fic-0", "fic-1"]
    arm.federated_identity_credentials.delete(group, "orders", "fic-1")
    assert [credential.name for credential in next(pages)] == ["fic-2", "trust"]


@pytest.mark.parametrize("query", [{"$top": "0"}, {"$top": "-1"}, {"$top": "many"}, {"$skiptoken": "X'zz'"}])
def test_an_invalid_page_is_rejected(emulator, group, query):
    token = emulator.control("GET", "arm-token")["access_token"]
    path = (
        f"/subscriptions/{emulator.subscription_id}/resourceGroups/{group}"
        "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders/federatedIdentityCredentials"
    )
    headers = {"Authorization": f"Bearer {token}"}
    answer = emulator.request("GET", path, params={"api-version": "2024-11-30", **query}, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "BadRequest")


REFUSED_BODIES = {
    "no audience": (trust(audiences=[]), "Federated identity credentials must have exactly one audience."),
    "two audiences": (trust(audiences=["a", "b"]), "Federated identity credentials must have exactly one audience."),
    "no properties": ({}, "Federated Identity Credential from HTTP body has empty properties"),
    "no issuer": ({"properties": {"subject": "s", "audiences": ["a"]}}, "must specify 'issuer', 'subject' and 'audience'"),
    "no subject": ({"properties": {"issuer": "i", "audiences": ["a"]}}, "must specify 'issuer', 'subject' and 'audience'"),
    "an empty subject": (trust(subject=""), "must specify 'issuer', 'subject' and 'audience'"),
    "a flexible one": (
        {"properties": {"issuer": "i", "audiences": ["a"], "claimsMatchingExpression": {"value": "x"}}},
        "must specify 'issuer', 'subject' and 'audience'",
    ),
    "a long issuer": (trust(issuer="https://" + "i" * 593), "600 characters"),
    "a long subject": (trust(subject="s" * 601), "600 characters"),
    "a long audience": (trust(audiences=["a" * 601]), "600 characters"),
}


@pytest.mark.parametrize("body, message", REFUSED_BODIES.values(), ids=REFUSED_BODIES.keys())
def test_an_invalid_credential_is_rejected(put, body, message):
    # As a stream, the body is sent unchanged: the client's model would correct it.
    with fails_with(400, "BadRequest", message):
        put("ensign-1", body=io.BytesIO(json.dumps(body).encode()))


def test_a_body_that_is_not_json_is_rejected(put):
    with fails_with(400, "InvalidRequestContent"):
        put("ensign-1", body=io.BytesIO(b"{"))


def test_600_characters_are_not_too_long(put):
    assert put("ensign-1", issuer="https://" + "i" * 592, subject="s" * 600, audiences=["a" * 600])


@pytest.mark.parametrize("name", ["ab", "-abc", "a.b", "a b", "a" * 121])
def test_an_invalid_name_is_rejected(put, name):
    with pytest.raises((HttpResponseError, ValueError)) as caught:
        put(name)
    if isinstance(caught.value, HttpResponseError):
        assert caught.value.response.json()["error"]["message"] == (
            f"Federated Identity Credential name '{name}' is invalid."
        )


def test_a_name_of_120_characters_is_accepted(put):
    assert put("a" * 120).name == "a" * 120


def test_issuer_and_subject_are_unique_under_one_identity(put, issuer):
    with fails_with(409, "Conflict", "Issuer and subject combination already exists for this Managed Identity."):
        put("again", issuer=issuer.url(), subject=SUBJECT)
    assert put("again", issuer=issuer.url(), subject=SUBJECT.upper())
    assert put("again", identity="operator", issuer=issuer.url(), subject=SUBJECT)


def test_a_credential_may_be_put_again_as_it_is(put, issuer):
    assert put("trust", issuer=issuer.url(), subject=SUBJECT)


def test_the_21st_credential_is_rejected_but_an_update_at_the_limit_is_not(put):
    for number in range(19):
        put(f"fic-{number}", subject=f"subject-{number}")
    with fails_with(400, "BadRequest", "at most 20"):
        put("one-too-many")
    assert put("fic-1", subject="another")


def test_credentials_of_a_missing_identity_are_rejected(arm, group, put):
    message = "The parent user-assigned identity doesn't exist."
    credentials = arm.federated_identity_credentials
    for ask in (
        lambda: put("ensign-1", identity="absent"),
        lambda: credentials.get(group, "absent", "ensign-1"),
        lambda: credentials.delete(group, "absent", "ensign-1"),
        lambda: list(credentials.list(group, "absent")),
    ):
        with fails_with(404, "NotFound", message):
            ask()


def test_deleting_an_identity_deletes_its_credentials(arm, group):
    arm.user_assigned_identities.delete(group, "orders")
    arm.user_assigned_identities.create_or_update(group, "orders", {"location": "eastus"})
    assert list(arm.federated_identity_credentials.list(group, "orders")) == []


def test_some_regions_do_not_support_credentials(arm, group, put):
    arm.user_assigned_identities.create_or_update(group, "far-away", {"location": "malaysiasouth"})
    message = "The request format was unexpected: Support for federated identity credentials not enabled."
    with fails_with(405, "MethodNotAllowed", message):
        put("ensign-1", identity="far-away")


@pytest.mark.parametrize("second", ["put", "delete"])
@pytest.mark.parametrize("first", ["put", "delete"])
def test_two_writes_under_one_identity_do_not_overlap(arm, group, put, emulator, first, second):
    write = {
        "put": lambda: put("slow" if first == "put" else "quick"),
        "delete": lambda: arm.federated_identity_credentials.delete(group, "orders", "trust"),
    }
    emulator.change_state(writeLatencyMs=600_000)
    under_way = threading.Thread(target=write[first])
    under_way.start()
    emulator.wait_for_state(lambda state: state.get("credentialWritesUnderWay"))
    with fails_with(
        409,
        "ConcurrentFederatedIdentityCredentialsWritesForSingleManagedIdentity",
        "Too many Federated Identity Credentials are written concurrently for the managed identity "
        f"'/subscriptions/{emulator.subscription_id}/resourcegroups/{group}/providers/microsoft.managedidentity"
        "/userassignedidentities/orders'. Concurrent Federated Identity Credentials writes under the same managed "
        "identity are not supported.",
    ):
        write[second]()
    names = [credential.name for credential in arm.federated_identity_credentials.list(group, "orders")]
    assert names == ["trust"], "reads go on, and nothing has been written yet"
    emulator.change_state(writeLatencyMs=0)
    under_way.join()
    names = [credential.name for credential in arm.federated_identity_credentials.list(group, "orders")]
    assert names == (["slow", "trust"] if first == "put" else [])


def test_writes_under_two_identities_overlap(put, emulator):
    emulator.change_state(writeLatencyMs=600_000)
    writes = [
        threading.Thread(target=put, args=("slow",), kwargs={"identity": identity})
        for identity in ("orders", "operator")
    ]
    for write in writes:
        write.start()
    emulator.wait_for_state(lambda state: len(state.get("credentialWritesUnderWay", [])) == 2)
    emulator.change_state(writeLatencyMs=0)
    for write in writes:
        write.join()
    assert [entry["status"] for entry in emulator.log(kind="arm-write")] == [201, 201]
