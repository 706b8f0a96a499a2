"""The Azure CLI against the emulator."""

import pytest

from az import Az
from emulator import Emulator
from issuer import Issuer

OPERATOR = "system:serviceaccount:ensign-system:operator"


@pytest.fixture(scope="session")
def issuer(tmp_path_factory):
    issuer = Issuer(tmp_path_factory.mktemp("issuer"))
    yield issuer
    issuer.stop()


@pytest.fixture(scope="session")
def process(issuer):
    process = Emulator("--issuer-ca-file", issuer.ca_file)
    yield process
    assert process.stop() == 0


@pytest.fixture
def emulator(process, issuer):
    """The emulator with the groups and identities that the docs use: `operator` may do everything, `nobody` nothing."""

    def identity(name, group, **more):
        path = f"/subscriptions/{process.subscription_id}/resourceGroups/{group}"
        return {"id": f"{path}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}", **more}

    def credential(name, subject, of=None):
        return {"name": name, "issuer": of or issuer.url(), "subject": subject}

    process.control("DELETE", "faults")
    process.control("DELETE", "log")
    groups = [{"name": name} for name in (process.resource_group, "platform", "workloads")]
    trust = credential("trust", OPERATOR)
    process.seed(
        writeLatencyMs=0,
        subscriptions=[{"id": process.subscription_id, "resourceGroups": groups}],
        identities=[
            identity("operator", "platform", armRights="all", federatedIdentityCredentials=[trust]),
            identity("nobody", "platform", armRights="none", federatedIdentityCredentials=[trust]),
            identity("ensign", "platform"),
            identity(
                "orders",
                "workloads",
                tags={"team": "shop"},
                federatedIdentityCredentials=[credential("by-hand", "system:serviceaccount:shop:batch", "https://i.example")],
            ),
        ],
    )
    return process


@pytest.fixture(scope="session")
def make_az(process, tmp_path_factory):
    """Makes an `az` that knows the emulator's cloud, as its users do it."""

    def make():
        az = Az(tmp_path_factory.mktemp("az"), process.ca_file)
        az.run("cloud", "register", "--name", "Emulator", "--endpoint-resource-manager", process.arm_endpoint)
        az.run("cloud", "set", "--name", "Emulator")
        return az

    return make


@pytest.fixture
def sign_in(emulator, issuer):
    """Signs in as an identity of the emulator."""

    def sign_in(az, name="operator", token=None, **claims):
        return az.json(
            *("login", "--service-principal", "--username", emulator.identity(name)["clientId"]),
            *("--tenant", emulator.tenant_id, "--federated-token", token or issuer.token(sub=OPERATOR, **claims)),
        )

    return sign_in


@pytest.fixture(scope="session")
def signed_in():
    return {}


@pytest.fixture
def az(emulator, make_az, sign_in, signed_in):
    """An `az` that is signed in as `operator`. One for all tests: the identity's IDs follow from its name."""
    if "az" not in signed_in:
        signed_in["az"] = make_az()
        sign_in(signed_in["az"])
    return signed_in["az"]


@pytest.fixture
def group_id(emulator):
    return f"/subscriptions/{emulator.subscription_id}/resourceGroups/workloads"
