"""Microsoft's clients, unpatched, against the emulator."""

import pytest
from azure.core.pipeline.policies import RetryPolicy
from azure.identity import WorkloadIdentityCredential
from azure.mgmt.msi import ManagedServiceIdentityClient

from emulator import Emulator
from issuer import SUBJECT, Issuer


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
def emulator(process, issuer, monkeypatch):
    """The emulator with two identities: `operator` has all permissions in ARM, `orders` trusts one subject."""

    def identity(name, subject, **more):
        credential = {"name": "trust", "issuer": issuer.url(), "subject": subject}
        return {"name": name, "federatedIdentityCredentials": [credential], **more}

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", process.ca_file)
    monkeypatch.setattr(issuer, "published", ["one"])
    process.control("DELETE", "faults")
    process.control("DELETE", "log")
    process.seed(
        writeLatencyMs=0,
        identities=[
            identity("operator", "system:serviceaccount:ensign-system:ensign", armRights="all"),
            identity("orders", SUBJECT),
        ],
    )
    issuer.requests.clear()
    return process


@pytest.fixture
def credential(emulator, issuer, tmp_path):
    """Creates the credential of a workload that presents a token."""

    def make(token=None, *, identity="orders", client_id=None, tenant_id=None, suffix="", **claims):
        file = tmp_path / f"token-{len(list(tmp_path.iterdir()))}"
        file.write_text((token or issuer.token(**claims)) + suffix)
        return WorkloadIdentityCredential(
            tenant_id=tenant_id or emulator.tenant_id,
            client_id=client_id or emulator.identity(identity)["clientId"],
            token_file_path=str(file),
            authority=emulator.authority_host,
            retry_total=0,
        )

    return make


@pytest.fixture
def client_of(emulator):
    """Creates an ARM client for a credential. Retries are off, because tests check every response."""

    def make(credential, **options):
        return ManagedServiceIdentityClient(
            credential,
            options.pop("subscription_id", emulator.subscription_id),
            base_url=emulator.arm_endpoint,
            credential_scopes=options.pop("scopes", ["https://management.azure.com/.default"]),
            retry_policy=RetryPolicy.no_retries(),
            **options,
        )

    return make


@pytest.fixture
def arm(client_of, credential):
    """The operator's ARM client, whose token comes from the emulator as well."""
    with client_of(credential(identity="operator", sub="system:serviceaccount:ensign-system:ensign")) as client:
        yield client


@pytest.fixture
def group(emulator):
    return emulator.resource_group
