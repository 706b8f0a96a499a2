"""The cloud, signing in, and what a sign-in sees."""

import pytest

from az import AzFailed


def test_the_cloud_is_registered_from_its_metadata(az, emulator):
    cloud = az.json("cloud", "show", "--name", "Emulator")
    endpoints = cloud["endpoints"]
    assert endpoints["resourceManager"] == emulator.arm_endpoint
    assert endpoints["activeDirectory"] == emulator.arm_endpoint
    assert endpoints["microsoftGraphResourceId"] == f"{emulator.arm_endpoint}/graph"
    assert cloud["suffixes"]["keyvaultDns"] == ".vault.azure.net"


def test_a_workload_signs_in_with_its_token(emulator, make_az, sign_in):
    az = make_az()
    [account] = sign_in(az)
    assert account["id"] == emulator.subscription_id and account["tenantId"] == emulator.tenant_id
    assert az.run("account", "show", "--query", "tenantId", "--output", "tsv") == emulator.tenant_id
    az.run("logout")


def test_an_identity_without_rights_finds_no_subscription(make_az, sign_in):
    with pytest.raises(AzFailed, match="No subscriptions found"):
        sign_in(make_az(), "nobody")


def test_a_token_that_nobody_trusts_is_refused(make_az, sign_in, issuer):
    token = issuer.token(sub="system:serviceaccount:shop:somebody-else")
    with pytest.raises(AzFailed, match="AADSTS700213: No matching federated identity record found"):
        sign_in(make_az(), token=token)


def test_an_access_token_is_printed(az, emulator):
    token = az.json("account", "get-access-token")
    assert (token["tenant"], token["tokenType"]) == (emulator.tenant_id, "Bearer")
