"""Entra's token endpoint through azure-identity, and its errors."""

import base64
import hashlib
import hmac
import json
import time

import jwt
import pytest
import requests

from issuer import AUDIENCE, SUBJECT
from errors import not_authenticated

ARM = "https://management.azure.com/.default"


def claims_of(emulator, token):
    """A token's claims, verified with the authority's published keys."""
    base = f"{emulator.authority_host}{emulator.tenant_id}/v2.0"
    document = requests.get(f"{base}/.well-known/openid-configuration", timeout=10).json()
    assert document["issuer"] == base
    keys = requests.get(document["jwks_uri"], timeout=10).json()
    key = jwt.PyJWKSet.from_dict(keys)[jwt.get_unverified_header(token)["kid"]]
    return jwt.decode(token, key, algorithms=["RS256"], issuer=base, options={"verify_aud": False})


def test_a_workload_gets_a_token(emulator, credential):
    given = credential().get_token(ARM)
    identity = emulator.identity("orders")
    claims = claims_of(emulator, given.token)
    assert claims["aud"] == "https://management.azure.com"
    assert claims["oid"] == claims["sub"] == identity["principalId"]
    assert claims["appid"] == claims["azp"] == identity["clientId"]
    assert claims["tid"] == emulator.tenant_id and claims["idtyp"] == "app"
    assert claims["xms_mirid"] == identity["id"]
    assert claims["exp"] - claims["iat"] == 86400 and abs(claims["exp"] - given.expires_on) < 60
    [entry] = emulator.log(kind="token")
    assert entry["status"] == 200 and entry["principal_id"] == identity["principalId"]
    assert entry["body"]["assertion_claims"]["sub"] == SUBJECT


@pytest.mark.parametrize("suffix", ["\n", "\r\n", "\n\n"])
def test_a_newline_at_the_end_of_the_token_file_does_not_matter(credential, suffix):
    assert credential(suffix=suffix).get_token(ARM).token


@pytest.mark.parametrize(
    "scope, audience",
    [
        ("https://vault.azure.net/.default", "https://vault.azure.net"),
        ("https://management.azure.com//.default", "https://management.azure.com/"),
        ("api://my-app/.default", "api://my-app"),
    ],
)
def test_the_audience_is_the_scope_without_its_suffix(emulator, credential, scope, audience):
    emulator.change_state(resources=["api://my-app"])
    assert claims_of(emulator, credential().get_token(scope).token)["aud"] == audience


def test_keys_are_cached_and_read_again_for_a_new_key(credential, issuer):
    credential().get_token(ARM)
    credential().get_token(ARM)
    assert issuer.requests == ["/good/.well-known/openid-configuration", "/good/keys"]
    issuer.published = ["one", "two"]
    credential(key="two").get_token(ARM)
    assert len(issuer.requests) == 4


def test_an_audience_may_be_one_text_or_a_list_of_one(credential):
    assert credential(aud=AUDIENCE).get_token(ARM)


def test_70025_a_client_without_credentials(emulator, credential):
    identities = emulator.state()["identities"]
    emulator.change_state(identities=[{**identity, "federatedIdentityCredentials": []} for identity in identities])
    client_id = emulator.identity("orders")["clientId"]
    with not_authenticated(70025, f"The client '{client_id}'(orders) has no configured federated identity credentials."):
        credential().get_token(ARM)


def test_700211_another_issuer(credential, issuer):
    for wrong in (issuer.url("other"), issuer.url() + "/", issuer.url().upper()):
        with not_authenticated(700211, f"presented assertion issuer '{wrong}'"):
            credential(iss=wrong).get_token(ARM)
    assert issuer.requests == [], "an issuer that nobody trusts is never asked"


def test_700213_another_subject(credential):
    wrong = "system:serviceaccount:shop:billing"
    message = (
        f"No matching federated identity record found for presented assertion subject '{wrong}'. Check your federated "
        "identity credential Subject, Audience and Issuer against the presented assertion. "
        "https://learn.microsoft.com/entra/workload-id/workload-identity-federation Trace ID: "
    )
    with not_authenticated(700213, message):
        credential(sub=wrong).get_token(ARM)


def test_7002138_a_subject_that_differs_only_in_case(credential):
    with not_authenticated(7002138, "case-insensitive"):
        credential(sub=SUBJECT.upper()).get_token(ARM)


@pytest.mark.parametrize("audience", ["api://azureadtokenexchange", "https://other", [AUDIENCE, "more"], []])
def test_700212_another_audience(credential, audience):
    with not_authenticated(700212, "presented assertion audience '"):
        credential(aud=audience).get_token(ARM)


def test_70025_or_700213_a_credential_that_has_not_propagated(emulator, credential, issuer):
    emulator.change_state(propagationSeconds=600)
    with not_authenticated(70025):
        credential().get_token(ARM)
    identities = emulator.state()["identities"]
    other = {"name": "other", "issuer": issuer.url(), "subject": "x", "writtenAt": "2026-01-01T00:00:00Z"}
    for identity in identities:
        identity["federatedIdentityCredentials"].append(other)
    emulator.change_state(identities=identities)
    with not_authenticated(700213, f"presented assertion subject '{SUBJECT}'"):
        credential().get_token(ARM)
    identities = emulator.state()["identities"]
    for credentials in (identity["federatedIdentityCredentials"] for identity in identities):
        for one in credentials:
            one["writtenAt"] = "2026-01-01T00:00:00Z"
    emulator.change_state(identities=identities)
    assert credential().get_token(ARM)


@pytest.mark.parametrize(
    "times",
    [{"exp": -600}, {"nbf": 600}, {"iat": 600, "nbf": None}, {"exp": -10**9, "iat": -(10**9) - 1}],
    ids=["expired", "not yet valid", "issued in the future", "long gone"],
)
def test_700024_an_assertion_outside_its_lifetime(credential, times):
    now = int(time.time())
    claims = {name: value if value is None else now + value for name, value in times.items()}
    with not_authenticated(700024, "Client assertion is not within its valid time range. Current time: "):
        credential(**claims).get_token(ARM)


@pytest.mark.parametrize("claim", [{"exp": -120}, {"nbf": 120}])
def test_clocks_may_differ_a_little(credential, claim):
    assert credential(**{name: int(time.time()) + value for name, value in claim.items()}).get_token(ARM)


def trusting(emulator, issuer_url):
    """Makes `orders` trust another issuer."""
    identities = emulator.state()["identities"]
    for identity in identities:
        identity["federatedIdentityCredentials"][0]["issuer"] = issuer_url
    emulator.change_state(identities=identities)
    return {"iss": issuer_url}


def test_700222_a_token_of_entra_itself(emulator, credential):
    entra = f"{emulator.authority_host}{emulator.tenant_id}/v2.0"
    for issuer in ("https://login.microsoftonline.com/tenant/v2.0", "https://sts.windows.net/tenant/", entra):
        with not_authenticated(700222):
            credential(**trusting(emulator, issuer)).get_token(ARM)


def test_7000272_a_key_that_is_not_published(credential):
    message = "The certificate with identifier two used to sign the federated credential could not be found"
    with not_authenticated(7000272, message):
        credential(key="two").get_token(ARM)


def test_700027_a_signature_by_another_key(credential):
    with not_authenticated(700027):
        credential(key="unpublished", key_id="one").get_token(ARM)


@pytest.mark.parametrize(
    "name, code",
    [
        ("redirecting", 50166),
        ("missing", 50166),
        ("somebody-else", 501661),
        ("not-json", 501661),
        ("plain-http-keys", 90061),
    ],
)
def test_an_issuer_whose_documents_cannot_be_read(emulator, credential, issuer, name, code):
    with not_authenticated(code, "Request to External OIDC endpoint failed."):
        credential(**trusting(emulator, issuer.url(name))).get_token(ARM)
    assert "/good/.well-known/openid-configuration" not in issuer.requests, "redirects are not followed"


def test_90061_an_issuer_over_plain_http_or_that_does_not_listen(emulator, credential, issuer):
    for url in (issuer.url().replace("https://", "http://"), "https://127.0.0.1:1/x", "rubbish"):
        with not_authenticated(90061):
            credential(**trusting(emulator, url)).get_token(ARM)


def test_900612_an_issuer_with_invalid_keys(emulator, credential, issuer):
    with not_authenticated(900612, "Failed to parse provider signing keys."):
        credential(**trusting(emulator, issuer.url("bad-keys"))).get_token(ARM)


def test_50027_only_rs256_is_accepted(credential, issuer):
    now = int(time.time())
    claims = {"iss": issuer.url(), "sub": SUBJECT, "aud": AUDIENCE, "exp": now + 600}
    for token in (
        jwt.encode(claims, None, algorithm="none", headers={"kid": "one"}),
        hs256_signed_with_the_public_key(issuer, claims),
        issuer.token(algorithm="RS384"),
        issuer.token(algorithm="PS256"),
    ):
        with not_authenticated(50027):
            credential(token).get_token(ARM)


def hs256_signed_with_the_public_key(issuer, claims):
    """The classic algorithm confusion, which PyJWT itself rejects to create."""
    encode = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=")
    header = encode(json.dumps({"alg": "HS256", "typ": "JWT", "kid": "one"}).encode())
    signed = header + b"." + encode(json.dumps(claims).encode())
    signature = hmac.new(issuer.public_key_pem(), signed, hashlib.sha256).digest()
    return (signed + b"." + encode(signature)).decode()


@pytest.mark.parametrize("token", ["rubbish", "a.b", "a.b.c", "a.b.c.d", "e30.e30.", ".."])
def test_50027_a_malformed_assertion(credential, token):
    with not_authenticated(50027):
        credential(token).get_token(ARM)


@pytest.mark.parametrize("claim", ["iss", "sub", "aud", "exp"])
def test_50027_an_assertion_without_a_claim(credential, claim):
    with not_authenticated(50027):
        credential(**{claim: None}).get_token(ARM)


def test_700016_an_unknown_client(credential, emulator):
    unknown = "11111111-2222-4333-8444-555555555555"
    message = f"Application with identifier '{unknown}' was not found in the directory '{emulator.tenant_id}'."
    with not_authenticated(700016, message):
        credential(client_id=unknown).get_token(ARM)


def test_90002_an_unknown_tenant(credential):
    unknown = "11111111-2222-4333-8444-555555555555"
    with not_authenticated(90002, f"Tenant '{unknown}' not found. Check to make sure you have the correct tenant ID"):
        credential(tenant_id=unknown).get_token(ARM)


def test_1002012_a_scope_without_default(credential):
    with not_authenticated(1002012, "Client credential flows must have a scope value with /.default suffixed to"):
        credential().get_token("https://management.azure.com/user_impersonation")


@pytest.fixture
def post(emulator, issuer):
    """Posts a form as no SDK would; a field given as None is omitted."""

    def post(tenant=None, headers=None, **fields):
        usual = {
            "client_id": emulator.identity("orders")["clientId"],
            "scope": ARM,
            "grant_type": "client_credentials",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": issuer.token(),
        }
        form = {name: value for name, value in {**usual, **fields}.items() if value is not None}
        path = f"/{tenant or emulator.tenant_id}/oauth2/v2.0/token"
        return emulator.request("POST", path, data=form, headers=headers)

    return post


def test_unknown_fields_are_ignored(post):
    answer = post(client_info="1", **{"x-client-sku": "test"})
    assert answer.status_code == 200
    assert answer.json()["token_type"] == "Bearer" and answer.json()["expires_in"] == 86400


REFUSED_FORMS = {
    "7000216 no assertion": ({"client_assertion": None}, 7000216, 401, "invalid_client"),
    "7000216 another kind of assertion": ({"client_assertion_type": "saml"}, 7000216, 401, "invalid_client"),
    "7000215 a secret": ({"client_assertion": None, "client_secret": "x"}, 7000215, 401, "invalid_client"),
    "70003 another grant": ({"grant_type": "password"}, 70003, 400, "unsupported_grant_type"),
    "900144 no grant type": ({"grant_type": None}, 900144, 400, "invalid_request"),
    "900144 no client": ({"client_id": None}, 900144, 400, "invalid_request"),
    "900144 no scope": ({"scope": None}, 900144, 400, "invalid_request"),
    "1002012 two scopes": ({"scope": f"{ARM} https://vault.azure.net/.default"}, 1002012, 400, "invalid_scope"),
    "500011 no such resource": ({"scope": "api://my-app/.default"}, 500011, 400, "invalid_resource"),
    "90002 no such tenant": ({"tenant": "nobody"}, 90002, 400, "invalid_request"),
    "700016 no such client": ({"client_id": "nobody"}, 700016, 400, "unauthorized_client"),
}


@pytest.mark.parametrize("fields, code, status, error", REFUSED_FORMS.values(), ids=REFUSED_FORMS.keys())
def test_an_invalid_form_is_rejected(post, fields, code, status, error):
    answer = post(**fields)
    body = answer.json()
    assert (answer.status_code, body["error"], body["error_codes"]) == (status, error, [code])
    assert body["error_description"].startswith(f"AADSTS{code}: ")
    assert body["error_uri"].endswith(f"?code={code}")
    assert set(body) == {
        "error",
        "error_description",
        "error_codes",
        "timestamp",
        "trace_id",
        "correlation_id",
        "error_uri",
    }


def test_a_client_of_another_tenant_is_not_found(emulator, post):
    tenant, subscription = "7e000000-0000-4000-8000-0000000000ff", "50b00000-0000-4000-8000-0000000000ff"
    subscriptions = emulator.state()["subscriptions"]
    emulator.change_state(subscriptions=[*subscriptions, {"id": subscription, "tenantId": tenant}])
    assert post(tenant=tenant).json()["error_codes"] == [700016]


def test_the_token_endpoint_accepts_only_forms(emulator, post):
    assert post(headers={"Content-Type": "application/json"}).json()["error_codes"] == [900144]
    answer = emulator.request("GET", f"/{emulator.tenant_id}/oauth2/v2.0/token")
    assert (answer.status_code, answer.json()["error_codes"]) == (400, [900561])


def test_metadata_is_served_for_sdks(emulator):
    host = emulator.arm_endpoint.removeprefix("https://")
    for path in (f"{emulator.tenant_id}", f"{emulator.tenant_id}/v2.0", "common/v2.0"):
        document = emulator.request("GET", f"/{path}/.well-known/openid-configuration").json()
        for name in ("issuer", "token_endpoint", "authorization_endpoint", "jwks_uri"):
            assert document[name].startswith(emulator.authority_host), name
    unknown = emulator.request("GET", "/nobody/v2.0/.well-known/openid-configuration")
    assert (unknown.status_code, unknown.json()["error_codes"]) == (400, [90002])
    ask = f"{emulator.authority_host}{emulator.tenant_id}/oauth2/v2.0/authorize"
    instance = emulator.request(
        "GET", "/common/discovery/instance", params={"api-version": "1.1", "authorization_endpoint": ask}
    ).json()
    assert instance["tenant_discovery_endpoint"].startswith(f"{emulator.authority_host}{emulator.tenant_id}/")
    assert instance["metadata"][0]["aliases"] == [host]
