"""Subscriptions, resource groups and providers."""

import pytest

from az import AzFailed


def test_a_resource_group_is_created_and_deleted_with_what_is_in_it(az, emulator):
    created = az.json("group", "create", "--name", "new", "--location", "westeurope")
    assert created["properties"]["provisioningState"] == "Succeeded"
    az.run("identity", "create", "--resource-group", "new", "--name", "short-lived")
    assert az.run("group", "exists", "--name", "new") == "true"
    assert az.run("group", "show", "--name", "new", "--query", "id", "--output", "tsv") == created["id"]
    assert "new" in az.json("group", "list", "--query", "[].name")
    az.run("group", "delete", "--name", "new", "--yes")
    assert az.run("group", "exists", "--name", "new") == "false"
    assert "short-lived" not in [identity["name"] for identity in emulator.state()["identities"]]
    with pytest.raises(AzFailed, match="ResourceGroupNotFound"):
        az.run("group", "show", "--name", "new")


@pytest.fixture
def unregistered(emulator):
    [subscription] = emulator.state()["subscriptions"]
    emulator.change_state(subscriptions=[{**subscription, "unregisteredProviders": ["Microsoft.ManagedIdentity"]}])


def test_a_provider_is_registered(az, unregistered):
    state = ("provider", "show", "--namespace", "Microsoft.ManagedIdentity", "--query", "registrationState")
    assert az.json(*state) == "NotRegistered"
    az.run("provider", "register", "--namespace", "Microsoft.ManagedIdentity")
    assert az.json(*state) == "Registered"


def test_a_provider_that_is_missing_is_registered_by_az_itself(az, emulator, unregistered):
    az.run("identity", "create", "--resource-group", "workloads", "--name", "billing")
    writes = [(entry["method"], entry["status"], entry["error_code"]) for entry in emulator.log(kind="arm-write")]
    assert writes == [("PUT", 409, "MissingSubscriptionRegistration"), ("POST", 200, None), ("PUT", 201, None)]
