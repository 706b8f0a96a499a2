"""Every `az` command that Ensign documents or prints is run as it is written, or has a reason why not."""

import json
import pathlib
import re

import pytest

import documented

# What is not run, and why. A pattern that matches nothing fails.
NOT_RUN = {
    r"aks ": "the emulator has no clusters",
    r"storage ": "the emulator has no storage accounts",
    r"rest .*graph\.microsoft\.com": "it names the public Microsoft Graph",
    r"login$": "a person signs in with a browser; test_login.py signs a workload in",
}
# Commands that the docs only name, and the tests that run them.
RUN_BY = {
    "cloud register": "conftest.py",
    "identity federated-credential list": "test_identities.py",
    "role definition create": "test_roles.py",
}
PLACEHOLDER = r"<[^>]*>|\{\{[^}]*\}\}|\{[^}]*\}"
OPTION = re.compile(rf"""(--[a-z-]+) ((?:"[^"]*"|'[^']*'|{PLACEHOLDER}|[^\s<{{])+)""")
STORAGE_ACCOUNT = re.compile(r'"\$\(az storage account show [^)]*\)"')

COMMANDS = documented.everywhere()


def reason_not_to_run(command):
    return next((reason for pattern, reason in NOT_RUN.items() if re.match(pattern, command.text[3:])), None)


def to_run():
    chosen = [one for one in COMMANDS if reason_not_to_run(one) is None and not one.is_mention]
    return {command.text: command for command in reversed(chosen)}.values()


@pytest.fixture
def fill(emulator, group_id):
    """Replaces what a command leaves open, by option."""
    values = {
        "--subscription": emulator.subscription_id,
        "--resource-group": "workloads",
        "--identity-name": "orders",
        "--location": "eastus",
        "--namespace": "Microsoft.ManagedIdentity",
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

        text = STORAGE_ACCOUNT.sub(f'"{group_id}"', command.text)
        # Within the address of `az rest`.
        text = text.replace("/{subscription}/", f"/{emulator.subscription_id}/").replace("/{group}/", "/workloads/")
        return OPTION.sub(value, text)

    return fill


@pytest.mark.parametrize("command", to_run(), ids=lambda command: f"{command.where}: {command.path}")
def test_a_documented_command_runs(az, emulator, fill, command):
    variables = {"ISSUER": "https://cluster.example", "ID": emulator.identity("orders")["id"], "NAME": "by-hand"}
    az.shell(fill(command), **variables)


def test_a_command_that_is_only_named_is_run_somewhere():
    run = {command.path for command in to_run()}
    for path, file in RUN_BY.items():
        source = (pathlib.Path(__file__).parent / file).read_text()
        assert all(f'"{word}"' in source for word in path.split()), f"{file} does not run {path}"
    named = [one for one in COMMANDS if one.path not in {*run, *RUN_BY} and reason_not_to_run(one) is None]
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
        "crates/core/src/azure_failures/refusals.rs",
        "crates/core/src/credentials/plan.rs",
    }
    assert expected <= places
