"""Role definitions and assignments."""

import json

import pytest

from az import AzFailed

READ = "Microsoft.ManagedIdentity/userAssignedIdentities/read"


def definition(group_id, name="Custom", description="one"):
    return json.dumps({"Name": name, "Description": description, "Actions": [READ], "AssignableScopes": [group_id]})


def test_a_role_is_created_changed_and_deleted(az, group_id):
    created = az.json("role", "definition", "create", "--role-definition", definition(group_id))
    assert (created["roleName"], created["roleType"]) == ("Custom", "CustomRole")
    with pytest.raises(AzFailed, match="RoleDefinitionWithSameNameExists"):
        az.run("role", "definition", "create", "--role-definition", definition(group_id))
    updated = az.json("role", "definition", "update", "--role-definition", definition(group_id, description="two"))
    assert (updated["name"], updated["description"]) == (created["name"], "two")
    listed = az.json("role", "definition", "list", "--scope", group_id, "--custom-role-only", "true")
    assert [role["permissions"][0]["actions"] for role in listed] == [[READ]]
    az.run("role", "definition", "delete", "--name", "Custom", "--scope", group_id)
    assert az.json("role", "definition", "list", "--scope", group_id, "--name", "Custom") == []


def test_a_role_is_assigned_once_and_not_deleted_while_it_is(az, emulator, group_id):
    az.run("role", "definition", "create", "--role-definition", definition(group_id))
    principal = emulator.identity("ensign")["principalId"]
    assign = ("role", "assignment", "create", "--role", "Custom", "--scope", group_id)
    by_id = ("--assignee-object-id", principal, "--assignee-principal-type", "ServicePrincipal")
    first = az.json(*assign, *by_id)
    # An equal one is returned, and nothing is changed.
    assert az.json(*assign, *by_id)["name"] == first["name"]
    with pytest.raises(AzFailed, match="RoleDefinitionHasAssignments"):
        az.run("role", "definition", "delete", "--name", "Custom", "--scope", group_id)
    [listed] = az.json("role", "assignment", "list", "--scope", group_id)
    assert (listed["name"], listed["roleDefinitionName"]) == (first["name"], "Custom")
    az.run("role", "assignment", "delete", "--ids", listed["id"])
    assert az.json("role", "assignment", "list", "--all") == []


@pytest.mark.parametrize("which", ["clientId", "principalId"])
def test_an_assignee_is_looked_up_in_graph(az, emulator, group_id, which):
    ensign = emulator.identity("ensign")
    assign = ("role", "assignment", "create", "--role", "Managed Identity Contributor", "--scope", group_id)
    assert az.json(*assign, "--assignee", ensign[which])["principalId"] == ensign["principalId"]
    [entry, *_] = emulator.log(kind="graph")
    assert entry["status"] == 200
    by_name = ("role", "assignment", "list", "--assignee", ensign[which], "--scope", group_id)
    assert az.json(*by_name, "--query", "[].principalName") == [ensign["clientId"]]
    az.run("role", "assignment", "delete", "--assignee", ensign[which], "--scope", group_id)


def test_who_may_not_read_the_directory_has_to_give_an_object_id(emulator, make_az, sign_in, group_id):
    [nobody] = [one for one in emulator.state()["identities"] if one["name"] == "nobody"]
    owner = {"principalId": nobody["principalId"], "role": "Owner", "scope": group_id}
    emulator.change_state(roleAssignments=[owner])
    az = make_az()
    sign_in(az, "nobody")
    ensign = emulator.identity("ensign")
    assign = ("role", "assignment", "create", "--role", "Reader", "--scope", group_id, "--assignee")
    assert az.json(*assign, ensign["principalId"])["principalId"] == ensign["principalId"]
    # A client ID is then taken for an object ID.
    with pytest.raises(AzFailed, match="PrincipalNotFound"):
        az.run(*assign, ensign["clientId"])
    assert {entry["error_code"] for entry in emulator.log(kind="graph")} == {"Authorization_RequestDenied"}


def test_without_rights_azure_says_what_is_missing(emulator, make_az, sign_in, group_id):
    reader = {"principalId": emulator.identity("nobody")["principalId"], "role": "Reader", "scope": group_id}
    emulator.change_state(roleAssignments=[reader])
    az = make_az()
    sign_in(az, "nobody")
    with pytest.raises(AzFailed, match="AuthorizationFailed"):
        az.run("role", "definition", "create", "--role-definition", definition(group_id))
