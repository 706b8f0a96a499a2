"""Every `az` command that Ensign documents or prints is run as it is written, or has a reason why not."""

import json
import re

import pytest

import documented

# What is not run, and why. A pattern that matches nothing fails.
NOT_RUN = {
    r"aks ": "the emulator has no clusters",
    r"storage ": "the emulator has no storage accounts",
    r"login$": "a person signs in with a browser; test_login.py signs a workload in",
}
# Commands that are complete without arguments; any other without them is only named.
BARE = {"lock list"}
PLACEHOLDER = r"<[^>]*>|\{\{[^}]*\}\}|\{[^}]*\}"
OPTION = re.compile(rf"""(--[a-z-]+) ((?:"[^"]*"|'[^']*'|{PLACEHOLDER}|[^\s<{{])+)""")
STORAGE_ACCOUNT = re.compile(r'"\$\(az storage account show [^)]*\)"')

COMMANDS = documented.everywhere()


def reason_not_to_run(command):
    return next((reason for pattern, reason in NOT_RUN.items() if re.match(pattern, command.text[3:])), None)


def to_run():
    chosen = [one for one in COMMANDS if reason_not_to_run(one) is None and (not one.is_mention or one.path in BARE)]
    return {command.text: command for command in reversed(chosen)}.values()


@pytest.fixture
def fill(emulator, group_id):
    """Replaces what a command leaves open, by option."""
    values = {
        "--subscription": emulator.subscription_id,
        "--resource-group": "workloads",
        "--identity-name": "orders",
        "--location": "eastus",
        "--issuer": "https://new.example",
        "--subject": "system:serviceaccount:shop:new",
        "--audiences": "api://AzureADTokenExchange",
        "--ids": emulator.identity("orders")["id"],
        "--resource-id": emulator.identity("orders")["id"],
        "--tags": "team=",
        "--scope": group_id,
        "--assignee": emulator.identity("ensign")["clientId"],
        "--assignee-object-id": emulator.identity("ensign")["principalId"],
        "--role": "Reader",
        "--role-definition": f"'{json.dumps({'Name': 'New', 'Actions': [], 'AssignableScopes': [group_id]})}'",
        ("group create", "--name"): "new",
        ("identity federated-credential create", "--name"): "new",
        ("identity federated-credential delete", "--name"): "by-hand",
    }

    def fill(command):
        def value(option):
            if not re.search(PLACEHOLDER, option.group(2)):
                return option.group(0)
            name = option.group(1)
            given = values.get((command.path, name), values.get(name))
            assert given, f"say in `fill` what {name} is in {command}"
            return f"{name} {given}"

        return OPTION.sub(value, STORAGE_ACCOUNT.sub(f'"{group_id}"', command.text))

    return fill


@pytest.mark.parametrize("command", to_run(), ids=lambda command: f"{command.where}: {command.path}")
def test_a_documented_command_runs(az, fill, command):
    az.shell(fill(command), ISSUER="https://cluster.example")


def test_a_command_that_is_only_named_is_run_somewhere():
    run = {command.path for command in to_run()}
    named = [one for one in COMMANDS if one.path not in run and reason_not_to_run(one) is None]
    assert named == []


def test_each_reason_not_to_run_a_command_is_needed():
    for pattern in NOT_RUN:
        assert any(re.match(pattern, command.text[3:]) for command in COMMANDS), pattern


def test_commands_are_found_wherever_there_are_some():
    places = {command.where for command in COMMANDS}
    expected = {
        "docs/install.md",
        "docs/quick-start-aks.md",
        "charts/ensign/templates/NOTES.txt",
        "crates/core/src/azure_failures.rs",
        "crates/core/src/credentials/plan.rs",
    }
    assert expected <= places
