"""User-assigned identities through azure-mgmt-msi."""

import io
import json

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

from errors import fails_with


def test_an_identity_is_created_read_updated_patched_and_deleted(arm, group, emulator):
    identities = arm.user_assigned_identities
    statuses = []
    seen = {"raw_response_hook": lambda answer: statuses.append(answer.http_response.status_code)}
    created = identities.create_or_update(group, "billing", {"location": "East US", "tags": {"a": "1"}}, **seen)
    assert created.location == "eastus" and created.tags == {"a": "1"}
    assert created.tenant_id == emulator.tenant_id and created.isolation_scope == "None"
    assert created.id == (
        f"/subscriptions/{emulator.subscription_id}/resourcegroups/{group}"
        "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/billing"
    )
    assert created.type == "Microsoft.ManagedIdentity/userAssignedIdentities"
    assert len({created.client_id, created.principal_id}) == 2

    updated = identities.create_or_update(group, "billing", {"location": "eastus", "tags": {"b": "2"}}, **seen)
    assert updated.tags == {"b": "2"} and updated.client_id == created.client_id
    patched = identities.update(group, "billing", {"tags": {"c": "3"}}, **seen)
    assert patched.tags == {"c": "3"}
    assert identities.get(group, "billing", **seen).as_dict() == patched.as_dict()
    identities.delete(group, "billing", **seen)
    identities.delete(group, "billing", **seen)
    with pytest.raises(ResourceNotFoundError):
        identities.get(group, "billing", **seen)
    assert statuses == [201, 200, 200, 200, 200, 204, 404]


def test_a_recreated_identity_is_another_principal(arm, group):
    make = lambda: arm.user_assigned_identities.create_or_update(group, "billing", {"location": "eastus"})
    first = make()
    arm.user_assigned_identities.delete(group, "billing")
    second = make()
    assert first.principal_id != second.principal_id and first.client_id != second.client_id


def test_identities_are_listed_by_group_and_by_subscription(arm, group, emulator):
    subscription = emulator.state()["subscriptions"][0]
    subscription["resourceGroups"].append({"name": "other"})
    emulator.change_state(subscriptions=[subscription])
    arm.user_assigned_identities.create_or_update("other", "elsewhere", {"location": "eastus"})
    names = lambda listed: sorted(identity.name for identity in listed)
    assert names(arm.user_assigned_identities.list_by_resource_group(group)) == ["operator", "orders"]
    everywhere = ["elsewhere", "operator", "orders"]
    assert names(arm.user_assigned_identities.list_by_subscription()) == everywhere
    emulator.change_state(identityPageSize=1)
    assert names(arm.user_assigned_identities.list_by_subscription()) == everywhere
    pages = [entry for entry in emulator.log(kind="arm-read") if "skip" in entry["query"].lower()]
    assert len(pages) == 2


def test_ids_are_compared_without_case(arm, group):
    assert arm.user_assigned_identities.get(group.upper(), "ORDERS").name == "orders"


def test_the_isolation_scope_is_kept(arm, group):
    body = {"location": "eastus", "properties": {"isolationScope": "Regional"}}
    made = arm.user_assigned_identities.create_or_update(group, "billing", body)
    assert made.isolation_scope == "Regional"


@pytest.mark.parametrize("version", ["2018-11-30", "2021-09-30-preview", "2022-01-31-preview"])
def test_older_api_versions_work(client_of, credential, group, version):
    operator = credential(identity="operator", sub="system:serviceaccount:ensign-system:ensign")
    with client_of(operator, api_version=version) as arm:
        assert arm.user_assigned_identities.get(group, "orders").client_id


REFUSED_BODIES = {
    "without a location": ({"tags": {}}, 400, "LocationRequired"),
    "in no region": ({"location": "atlantis"}, 400, "LocationNotAvailableForResourceType"),
    "with a wrong isolation scope": (
        {"location": "eastus", "properties": {"isolationScope": "Solar"}},
        400,
        "BadRequest",
    ),
    "with tags that are none": ({"location": "eastus", "tags": ["a"]}, 400, "InvalidRequestContent"),
}


@pytest.mark.parametrize("body, status, code", REFUSED_BODIES.values(), ids=REFUSED_BODIES.keys())
def test_an_invalid_identity_is_rejected(arm, group, body, status, code):
    # As a stream, the body is sent unchanged: the client's model would correct it.
    with fails_with(status, code):
        arm.user_assigned_identities.create_or_update(group, "billing", io.BytesIO(json.dumps(body).encode()))


def test_the_location_of_an_identity_is_immutable(arm, group):
    with fails_with(409, "InvalidResourceLocation", "already exists in location 'westeurope'"):
        arm.user_assigned_identities.create_or_update(group, "orders", {"location": "eastus"})


@pytest.mark.parametrize("name", ["ab", "_orders", "or.ders", "a" * 129])
def test_an_invalid_name_is_rejected(arm, group, name):
    with pytest.raises((HttpResponseError, ValueError)) as caught:
        arm.user_assigned_identities.create_or_update(group, name, {"location": "eastus"})
    assert isinstance(caught.value, ValueError) or caught.value.status_code == 400


def test_a_missing_identity_is_not_found(arm, group):
    message = (
        "The Resource 'Microsoft.ManagedIdentity/userAssignedIdentities/absent' under resource group "
        f"'{group}' was not found. For more details please go to https://aka.ms/ARMResourceNotFoundFix"
    )
    for ask in (arm.user_assigned_identities.get, lambda g, n: arm.user_assigned_identities.update(g, n, {"tags": {}})):
        with fails_with(404, "ResourceNotFound", message):
            ask(group, "absent")


def test_a_missing_resource_group_is_not_found(arm):
    for ask in (
        lambda: arm.user_assigned_identities.get("absent", "orders"),
        lambda: arm.user_assigned_identities.delete("absent", "orders"),
        lambda: arm.user_assigned_identities.create_or_update("absent", "orders", {"location": "eastus"}),
        lambda: list(arm.user_assigned_identities.list_by_resource_group("absent")),
    ):
        with fails_with(404, "ResourceGroupNotFound", "Resource group 'absent' could not be found."):
            ask()
