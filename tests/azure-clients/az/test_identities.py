"""Identities and their credentials."""

import pytest

from az import AzFailed

ISSUER = "https://issuer.example"
SUBJECT = "system:serviceaccount:shop:orders"
AUDIENCE = "api://AzureADTokenExchange"


def test_an_identity_is_created_changed_and_deleted(az, emulator):
    billing = ("--resource-group", "workloads", "--name", "billing")
    # Without --location, it is that of the resource group.
    created = az.json("identity", "create", *billing, "--tags", "a=1")
    assert (created["location"], created["tags"]) == (emulator.location, {"a": "1"})
    # It reads the identity, and writes all of its tags.
    assert az.json("identity", "update", *billing, "--tags", "b=2")["tags"] == {"a": "1", "b": "2"}
    shown = az.json("identity", "show", *billing)
    assert shown["principalId"] == created["principalId"] == emulator.identity("billing")["principalId"]
    query = ("--query", "[].name")
    assert az.json("identity", "list", "--resource-group", "workloads", *query) == ["billing", "orders"]
    assert "operator" in az.json("identity", "list", *query)
    assert az.json("identity", "list-resources", *billing) == []
    az.run("identity", "delete", *billing)
    az.run("identity", "delete", *billing)
    with pytest.raises(AzFailed, match="ResourceNotFound"):
        az.run("identity", "show", *billing)


def test_credentials_are_created_changed_and_deleted(az, emulator):
    orders = ("--resource-group", "workloads", "--identity-name", "orders")
    trust = ("--issuer", ISSUER, "--subject", SUBJECT, "--audiences", AUDIENCE)
    command = ("identity", "federated-credential")
    created = az.json(*command, "create", *orders, "--name", "shop", *trust)
    assert (created["issuer"], created["subject"], created["audiences"]) == (ISSUER, SUBJECT, [AUDIENCE])
    changed = (*trust[:1], f"{ISSUER}/two", *trust[2:])
    assert az.json(*command, "update", *orders, "--name", "shop", *changed)["issuer"] == f"{ISSUER}/two"
    assert az.json(*command, "show", *orders, "--name", "shop")["subject"] == SUBJECT
    assert az.json(*command, "list", *orders, "--query", "[].name") == ["by-hand", "shop"]
    with pytest.raises(AzFailed, match="Issuer and subject combination already exists for this Managed Identity."):
        az.run(*command, "create", *orders, "--name", "twin", *changed)
    az.run(*command, "delete", *orders, "--name", "shop", "--yes")
    with pytest.raises(AzFailed, match="ResourceNotFound"):
        az.run(*command, "show", *orders, "--name", "shop")


def test_a_flexible_credential_has_no_subject(az):
    orders = ("--resource-group", "workloads", "--identity-name", "orders")
    expression = "claims['sub'] matches 'system:serviceaccount:shop:*'"
    created = az.json(
        *("identity", "federated-credential", "create", *orders, "--name", "flexible"),
        *("--issuer", ISSUER, "--audiences", AUDIENCE),
        *("--claims-matching-expression-version", "1", "--claims-matching-expression-value", expression),
    )
    assert created["claimsMatchingExpression"] == {"languageVersion": 1, "value": expression}
    assert not created.get("subject")


def test_a_lock_is_listed_and_forbids_a_deletion(az, emulator):
    scope = emulator.identity("orders")["id"]
    emulator.change_state(locks=[{"scope": scope}])
    assert az.json("lock", "list", "--query", "[].level") == ["CanNotDelete"]
    with pytest.raises(AzFailed, match="ScopeLocked"):
        az.run("identity", "delete", "--ids", scope)


def test_tags_are_changed_one_by_one(az, emulator):
    tags = ("tag", "update", "--resource-id", emulator.identity("orders")["id"])
    assert az.json(*tags, "--operation", "merge", "--tags", "a=1")["properties"]["tags"] == {"a": "1", "team": "shop"}
    az.run(*tags, "--operation", "delete", "--tags", "team=")
    assert emulator.identity("orders")["tags"] == {"a": "1"}


def test_a_throttled_request_is_sent_again(az, emulator):
    emulator.faults(
        {
            "match": {"method": "GET", "pathContains": "userAssignedIdentities/orders"},
            "action": {"status": 429, "code": "SubscriptionRequestsThrottled", "retryAfter": "1"},
        }
    )
    az.run("identity", "show", "--resource-group", "workloads", "--name", "orders")
    reads = [entry["status"] for entry in emulator.log(kind="arm-read") if entry["path"].endswith("/orders")]
    assert reads == [429, 200]
