"""The script that `ensign azure-role` prints, as it is printed."""

import json
import subprocess

import pytest

from az import ensign

READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
# So that the script does not wait for long before it tries again.
QUICK = {"ENSIGN_AZURE_ROLE_PAUSE": "1"}


@pytest.fixture
def azure_role(emulator):
    """What `ensign azure-role` prints for the identity `ensign`."""

    def azure_role(*arguments):
        principal = emulator.identity("ensign")["principalId"]
        command = [ensign(), "azure-role", "--principal-id", principal, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    return azure_role


@pytest.fixture
def roles(emulator):
    """The custom role and where it is assigned, as the emulator has them."""

    def roles():
        state = emulator.state()
        [role] = state["roleDefinitions"]
        assigned = [one for one in state["roleAssignments"] if one["role"] == role["name"]]
        return role, sorted(assigned, key=lambda one: one["scope"].lower())

    return roles


def test_the_script_can_be_run_again_and_after_a_change(az, emulator, azure_role, roles, group_id):
    scope = ("--scope", group_id)
    script = azure_role(*scope)
    az.shell(script, **QUICK)
    role, [assignment] = roles()
    definition = json.loads(azure_role(*scope, "--output", "json"))
    assert role["roleName"] == definition["Name"]
    assert sorted(role["permissions"][0]["actions"]) == sorted(definition["Actions"])
    assert (assignment["scope"], assignment["principalId"]) == (group_id, emulator.identity("ensign")["principalId"])

    emulator.control("DELETE", "log")
    az.shell(script, **QUICK)
    assert roles() == (role, [assignment]), "a second run changes nothing"
    assert emulator.log(kind="arm-write") == []

    platform = group_id.replace("workloads", "platform")
    more = (*scope, "--scope", platform, "--feature", "bind,provision", "--name", definition["Name"])
    az.shell(azure_role(*more), **QUICK)
    changed, assignments = roles()
    definition = json.loads(azure_role(*more, "--output", "json"))
    assert changed["name"] == role["name"]
    assert sorted(changed["permissions"][0]["actions"]) == sorted(definition["Actions"])
    assert sorted(changed["assignableScopes"]) == sorted(definition["AssignableScopes"])
    assert [one["scope"] for one in assignments] == [platform, group_id]
    assert assignments[1]["name"] == assignment["name"], "what was assigned stays so"


def test_a_condition_limits_which_roles_may_be_assigned(az, azure_role, roles, group_id):
    arguments = ("--scope", group_id, "--feature", "bind,role-assignments", "--assignable-roles")
    named = ("--name", "Assigns")
    az.shell(azure_role(*arguments, READER, *named), **QUICK)
    _, [assignment] = roles()
    assert READER in assignment["condition"]
    other = "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1"
    az.shell(azure_role(*arguments, other, *named), **QUICK)
    _, [changed] = roles()
    assert other in changed["condition"] and changed["name"] == assignment["name"]


def test_the_script_copes_with_reads_that_lag(az, emulator, azure_role, roles, group_id):
    emulator.change_state(readLagSeconds=3)
    script = azure_role("--scope", group_id)
    az.shell(script, **QUICK)
    az.shell(script, **QUICK)
    _, [assignment] = roles()
    assert assignment["scope"] == group_id
