"""Roles: looked up, assigned, and required by protected resources."""

import uuid

import pytest
from azure.core.pipeline.policies import RetryPolicy
from azure.mgmt.authorization import AuthorizationManagementClient
from azure.mgmt.authorization.models import RoleAssignmentCreateParameters

from errors import fails_with

BLOB_READER = "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1"
READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
OPERATOR = "system:serviceaccount:ensign-system:ensign"


@pytest.fixture
def roles_of(emulator):
    """Creates a client of Microsoft.Authorization for a credential. Retries are off, because tests check every response."""

    def make(credential):
        return AuthorizationManagementClient(
            credential,
            emulator.subscription_id,
            base_url=emulator.arm_endpoint,
            credential_scopes=["https://management.azure.com/.default"],
            retry_policy=RetryPolicy.no_retries(),
        )

    return make


@pytest.fixture
def roles(roles_of, credential):
    with roles_of(credential(identity="operator", sub=OPERATOR)) as client:
        yield client


@pytest.fixture
def scope(emulator, group):
    return f"/subscriptions/{emulator.subscription_id}/resourceGroups/{group}"


@pytest.fixture
def account(scope):
    return f"{scope}/providers/Microsoft.Storage/storageAccounts/data"


@pytest.fixture
def to_orders(emulator):
    """The parameters that grant a role to the identity `orders`."""

    def make(role=BLOB_READER, **more):
        return RoleAssignmentCreateParameters(
            role_definition_id=(
                f"/subscriptions/{emulator.subscription_id}/providers/Microsoft.Authorization/roleDefinitions/{role}"
            ),
            principal_id=emulator.identity("orders")["principalId"],
            principal_type=more.pop("principal_type", "ServicePrincipal"),
            **more,
        )

    return make


@pytest.fixture
def read(emulator, credential):
    """GETs a protected resource with a token that the workload got for it."""

    def read(resource, audience="https://storage.azure.com"):
        token = credential().get_token(f"{audience}/.default").token
        return emulator.request("GET", f"/protected{resource}", headers={"Authorization": f"Bearer {token}"})

    return read


def test_a_role_is_found_by_its_name(roles, scope):
    [role] = roles.role_definitions.list(scope, filter="roleName eq 'Storage Blob Data Reader'")
    assert (role.name, role.role_type) == (BLOB_READER, "BuiltInRole")
    assert role.permissions[0].data_actions == ["Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read"]
    assert roles.role_definitions.get(scope, BLOB_READER).role_name == "Storage Blob Data Reader"
    assert roles.role_definitions.get_by_id(role.id).name == BLOB_READER
    assert list(roles.role_definitions.list(scope, filter="roleName eq 'Nobody''s role'")) == []
    with fails_with(404, "RoleDefinitionDoesNotExist"):
        roles.role_definitions.get(scope, str(uuid.uuid4()))


def test_an_assignment_is_created_listed_and_deleted(roles, account, scope, to_orders):
    name, parameters = str(uuid.uuid4()), to_orders(description="for a test")
    made = roles.role_assignments.create(account, name, parameters)
    assert (made.name, made.scope, made.principal_type) == (name, account, "ServicePrincipal")
    assert made.role_definition_id.endswith(BLOB_READER) and made.description == "for a test"
    assert roles.role_assignments.create(account, name, parameters).id == made.id, "once more is no mistake"
    for at, filter, found in [
        (scope, f"principalId eq '{made.principal_id}'", [name]),
        (scope, "atScope()", []),
        (account, "atScope()", [name]),
        (account, f"atScope() and assignedTo('{made.principal_id}')", [name]),
    ]:
        assert [one.name for one in roles.role_assignments.list_for_scope(at, filter=filter)] == found, filter
    assert roles.role_assignments.get_by_id(made.id).name == name
    assert roles.role_assignments.delete(account, name).name == name
    assert roles.role_assignments.delete(account, name) is None
    with fails_with(404, "RoleAssignmentNotFound"):
        roles.role_assignments.get(account, name)


def test_pages_are_followed_and_keep_their_filter(roles, emulator, scope, to_orders):
    emulator.change_state(roleAssignmentPageSize=1)
    for role in (BLOB_READER, READER):
        roles.role_assignments.create(scope, str(uuid.uuid4()), to_orders(role))
    principal = emulator.identity("orders")["principalId"]
    assert len(list(roles.role_assignments.list_for_scope(scope, filter=f"principalId eq '{principal}'"))) == 2


def test_invalid_assignments_are_rejected_with_azures_error(roles, emulator, account, scope, to_orders):
    one = str(uuid.uuid4())
    roles.role_assignments.create(account, one, to_orders())
    with fails_with(409, "RoleAssignmentExists", f"The ID of the existing role assignment is {uuid.UUID(one).hex}."):
        roles.role_assignments.create(account, str(uuid.uuid4()), to_orders())
    with fails_with(400, "RoleAssignmentUpdateNotPermitted", "scope are not allowed to be updated."):
        roles.role_assignments.create(scope, one, to_orders())
    with fails_with(400, "InvalidRoleAssignmentId", "The role assignment ID must be a GUID."):
        roles.role_assignments.create(account, "mine", to_orders())
    with fails_with(400, "RoleDefinitionDoesNotExist", "The specified role definition with ID"):
        roles.role_assignments.create(account, str(uuid.uuid4()), to_orders(str(uuid.uuid4())))
    with fails_with(400, "UnmatchedPrincipalType"):
        roles.role_assignments.create(account, str(uuid.uuid4()), to_orders(READER, principal_type="User"))
    with fails_with(404, "ResourceGroupNotFound"):
        roles.role_assignments.create(f"{scope}-absent", str(uuid.uuid4()), to_orders())


def test_a_new_principal_is_replicated_with_a_delay(roles, arm, emulator, account, group, to_orders):
    emulator.change_state(principalReplicationSeconds=3600)
    fresh = arm.user_assigned_identities.create_or_update(group, "fresh", {"location": emulator.location})
    parameters = to_orders()
    parameters.principal_id = fresh.principal_id
    with fails_with(400, "PrincipalNotFound", f"Principal {uuid.UUID(fresh.principal_id).hex} does not exist in the directory"):
        roles.role_assignments.create(account, str(uuid.uuid4()), parameters)
    emulator.change_state(principalReplicationSeconds=0)
    made = roles.role_assignments.create(account, str(uuid.uuid4()), parameters)
    arm.user_assigned_identities.delete(group, "fresh")
    assert roles.role_assignments.get_by_id(made.id).principal_id == fresh.principal_id, "it is left behind"


def test_without_the_permission_to_write_assignments_none_is_written(roles_of, credential, account, to_orders):
    with roles_of(credential()) as nobody:
        with fails_with(403, "AuthorizationFailed", "or an ABAC condition not fulfilled to perform action"):
            nobody.role_assignments.create(account, str(uuid.uuid4()), to_orders())


def test_data_are_read_with_the_role_and_not_without(roles, account, to_orders, read):
    container = f"{account}/blobServices/default/containers/orders"
    blob = f"{container}/blobs/today"
    answer = read(blob)
    assert (answer.status_code, answer.headers["x-ms-error-code"]) == (403, "AuthorizationPermissionMismatch")
    name = str(uuid.uuid4())
    roles.role_assignments.create(container, name, to_orders())
    assert read(blob).status_code == 200
    assert read(f"{account}/blobServices/default/containers/other/blobs/today").status_code == 403
    assert read(blob, "https://vault.azure.net").status_code == 401
    roles.role_assignments.delete(container, name)
    assert read(blob).status_code == 403


def test_secrets_are_read_with_the_role_and_not_without(roles, scope, to_orders, read):
    vault = f"{scope}/providers/Microsoft.KeyVault/vaults/orders"
    assert read(f"{vault}/secrets/one", "https://vault.azure.net").status_code == 403
    roles.role_assignments.create(vault, str(uuid.uuid4()), to_orders("4633458b-17de-408a-b874-0445c86b69e6"))
    assert read(f"{vault}/secrets/one", "https://vault.azure.net").status_code == 200
