//! One test for each error of the token endpoint.
#![allow(clippy::needless_pass_by_value, reason = "tests pass literals")]

use std::sync::LazyLock;

use axum::http::Method;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use k8s_openapi::jiff::Timestamp;
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};

use super::*;
use crate::state::arm::fixtures::{self, TENANT, now, state};

const ISSUER: &str = "https://issuer.example";
const SUBJECT: &str = "system:serviceaccount:shop:orders";
const AUDIENCE: &str = "api://AzureADTokenExchange";
const AUTHORITY: &str = "https://127.0.0.1:1";
const CLIENT: &str = "11111111-0000-4000-8000-000000000001";

static KEYS: LazyLock<[EncodingKey; 2]> = LazyLock::new(|| {
    [(), ()].map(|()| {
        let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap()
    })
});

fn trusting(issuer: &str, subject: &str) -> State {
    let credential = json!({"name": "trust", "issuer": issuer, "subject": subject, "writtenAt": now().to_string()});
    state(json!({
        "identities": [{"name": "orders", "clientId": CLIENT, "federatedIdentityCredentials": [credential]}]
    }))
}

fn orders() -> State {
    trusting(ISSUER, SUBJECT)
}

fn claims() -> Value {
    let now = now().as_second();
    json!({"iss": ISSUER, "sub": SUBJECT, "aud": [AUDIENCE], "iat": now, "nbf": now, "exp": now + 3600})
}

fn signed_by(key: &EncodingKey, key_id: Option<&str>, claims: &Value) -> String {
    let header = Header { kid: key_id.map(str::to_owned), ..Header::new(Algorithm::RS256) };
    jsonwebtoken::encode(&header, claims, key).unwrap()
}

fn token(changes: Value) -> String {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    signed_by(&KEYS[0], Some("one"), &claims)
}

fn form(fields: &[(&str, &str)], assertion: &str) -> TokenRequest {
    let usual = [
        ("client_id", CLIENT),
        ("scope", "https://management.azure.com/.default"),
        ("grant_type", "client_credentials"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion),
    ];
    let kept = usual.iter().filter(|(name, _)| fields.iter().all(|(changed, _)| changed != name));
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(kept.chain(fields)).finish();
    TokenRequest::from_form(body.as_bytes())
}

fn code_of(state: &State, assertion: &str) -> Option<u32> {
    examine(state, TENANT, &form(&[], assertion), AUTHORITY, now()).err().map(|error| error.code)
}

/// Some seconds from now; the assertion is valid then too.
fn code_at(state: &State, seconds: i64) -> Option<u32> {
    let then = Timestamp::from_second(now().as_second() + seconds).unwrap();
    examine(state, TENANT, &form(&[], &token(json!({}))), AUTHORITY, then).err().map(|error| error.code)
}

fn code_of_form(fields: &[(&str, &str)]) -> Option<u32> {
    examine(&orders(), TENANT, &form(fields, &token(json!({}))), AUTHORITY, now()).err().map(|error| error.code)
}

#[test]
fn a_valid_assertion_gets_the_identitys_claims() {
    let mut state = orders();
    let request = form(&[], &format!("{}\n", token(json!({}))));
    let candidate = examine(&state, TENANT, &request, AUTHORITY, now()).unwrap();
    let claims = grant(&mut state, &candidate, AUTHORITY, now()).unwrap();
    let identity = state.identities.values().next().unwrap();
    assert_eq!((&claims.oid, &claims.appid), (&identity.principal_id, &identity.client_id));
    assert_eq!(claims.aud, "https://management.azure.com");
    assert_eq!(claims.iss, format!("{AUTHORITY}/{TENANT}/v2.0"));
    assert_eq!(claims.exp - claims.iat, 3600);
    assert_eq!(claims.xms_mirid.as_deref(), Some(identity.id.in_answers().as_str()));
}

#[test]
fn error_90002_an_unknown_tenant() {
    let error = examine(&orders(), "nobody", &form(&[], "x"), AUTHORITY, now()).unwrap_err();
    assert_eq!((error.code, error.status, error.error), (90002, 400, "invalid_request"));
    assert!(examine(&orders(), &TENANT.to_uppercase(), &form(&[], &token(json!({}))), AUTHORITY, now()).is_ok());
}

#[test]
fn error_900144_a_missing_parameter() {
    for name in ["grant_type", "client_id", "scope"] {
        assert_eq!(code_of_form(&[(name, "")]), Some(900_144), "{name}");
    }
}

#[test]
fn error_70003_another_grant_type() {
    assert_eq!(code_of_form(&[("grant_type", "password")]), Some(70003));
}

#[test]
fn error_1002012_anything_but_a_single_default_scope() {
    for scope in ["https://vault.azure.net", "/.default", "https://a/.default https://b/.default", "openid"] {
        assert_eq!(code_of_form(&[("scope", scope)]), Some(1_002_012), "{scope}");
    }
    assert_eq!(code_of_form(&[("scope", "openid https://vault.azure.net/.default")]), None);
}

#[test]
fn error_700016_an_unknown_client_or_one_of_another_tenant() {
    assert_eq!(code_of_form(&[("client_id", "nobody")]), Some(700_016));
    let mut state = orders();
    let other = "7e000000-0000-4000-8000-0000000000ff";
    let mut subscription = state.subscriptions.values().next().unwrap().clone();
    other.clone_into(&mut subscription.tenant_id);
    state.subscriptions.insert("other".to_owned(), subscription);
    let error = examine(&state, other, &form(&[], &token(json!({}))), AUTHORITY, now()).unwrap_err();
    assert_eq!((error.code, error.error), (700_016, "unauthorized_client"));
}

#[test]
fn error_7000216_no_assertion_and_7000215_a_secret() {
    assert_eq!(code_of_form(&[("client_assertion", "")]), Some(7_000_216));
    assert_eq!(code_of_form(&[("client_assertion_type", "saml")]), Some(7_000_216));
    assert_eq!(code_of_form(&[("client_assertion", ""), ("client_secret", "s")]), Some(7_000_215));
}

#[test]
fn error_50027_a_malformed_assertion() {
    let good = token(json!({}));
    let parts: Vec<&str> = good.split('.').collect();
    let bad = ["x", "a.b", "a.b.c", "..", &format!("{good}.x"), &format!("{}..{}", parts[0], parts[2])];
    for assertion in bad {
        assert_eq!(code_of(&orders(), assertion), Some(50027), "{assertion}");
    }
    for claim in ["iss", "sub", "aud", "exp"] {
        assert_eq!(code_of(&orders(), &token(json!({claim: null}))), Some(50027), "{claim}");
    }
    assert_eq!(code_of(&orders(), &token(json!({"aud": [1]}))), Some(50027));
    assert_eq!(code_of(&orders(), &token(json!({"exp": "soon"}))), Some(50027));
}

#[test]
fn error_50027_any_algorithm_but_rs256() {
    let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::HS256) };
    let secret = EncodingKey::from_secret(b"the public key");
    assert_eq!(code_of(&orders(), &jsonwebtoken::encode(&header, &claims(), &secret).unwrap()), Some(50027));
    for algorithm in [Algorithm::RS384, Algorithm::PS256] {
        let token = jsonwebtoken::encode(&Header::new(algorithm), &claims(), &KEYS[0]).unwrap();
        assert_eq!(code_of(&orders(), &token), Some(50027), "{algorithm:?}");
    }
}

#[test]
fn error_70025_a_client_without_credentials() {
    let state = state(json!({"identities": [{"name": "orders", "clientId": CLIENT}]}));
    assert_eq!(code_of(&state, &token(json!({}))), Some(70025));
}

#[test]
fn error_700211_another_issuer_comes_before_another_subject() {
    for issuer in ["https://other.example", "https://issuer.example/", "https://ISSUER.example"] {
        assert_eq!(code_of(&orders(), &token(json!({"iss": issuer, "sub": "x"}))), Some(700_211), "{issuer}");
    }
    let blank = trusting(&format!("{ISSUER} "), SUBJECT);
    assert_eq!(code_of(&blank, &token(json!({}))), Some(700_211), "whitespace around the issuer prevents the exchange");
}

#[test]
fn error_700213_another_subject_comes_before_another_audience() {
    assert_eq!(code_of(&orders(), &token(json!({"sub": "x", "aud": "y"}))), Some(700_213));
    let wildcard = trusting(ISSUER, "system:serviceaccount:shop:*");
    assert_eq!(code_of(&wildcard, &token(json!({}))), Some(700_213), "there are no wildcards");
}

#[test]
fn error_7002138_a_subject_that_differs_only_in_case() {
    assert_eq!(code_of(&orders(), &token(json!({"sub": SUBJECT.to_uppercase()}))), Some(7_002_138));
}

#[test]
fn error_700212_another_audience_or_more_than_one() {
    for audience in [json!("x"), json!(["x"]), json!([]), json!([AUDIENCE, "x"]), json!("api://azureadtokenexchange")] {
        assert_eq!(code_of(&orders(), &token(json!({"aud": audience}))), Some(700_212), "{audience}");
    }
    assert_eq!(code_of(&orders(), &token(json!({"aud": AUDIENCE}))), None);
}

#[test]
fn until_it_has_propagated_the_first_credential_is_no_credential() {
    let mut state = orders();
    state.settings.propagation_seconds = 60;
    assert_eq!([0, 59, 60].map(|seconds| code_at(&state, seconds)), [Some(70025), Some(70025), None]);
}

#[test]
fn until_it_has_propagated_a_further_credential_does_not_match() {
    let credential = |name: &str, issuer: &str, subject: &str, written: &str| json!({"name": name, "issuer": issuer, "subject": subject, "writtenAt": written});
    let (old, new) = ("2020-01-01T00:00:00Z".to_owned(), now().to_string());
    for (issuer, code) in [("https://other.example", 700_211), (ISSUER, 700_213)] {
        let credentials = json!([credential("old", issuer, "another", &old), credential("new", ISSUER, SUBJECT, &new)]);
        let identity = json!({"name": "orders", "clientId": CLIENT, "federatedIdentityCredentials": credentials});
        let state = state(json!({"identities": [identity], "propagationSeconds": 60}));
        assert_eq!([0, 59, 60].map(|seconds| code_at(&state, seconds)), [Some(code), Some(code), None], "{issuer}");
    }
}

#[test]
fn until_a_change_has_propagated_the_former_content_is_trusted() {
    let mut state = trusting(ISSUER, "before");
    state.settings.propagation_seconds = 60;
    let after = |seconds| Timestamp::from_second(now().as_second() + seconds).unwrap();
    let changed = state.identities.values_mut().next().unwrap().credentials.get_mut("trust").unwrap();
    changed.subject = SUBJECT.to_owned();
    changed.written_at = after(100);
    state.record_changes(after(100));
    let codes = |seconds| {
        let code = |subject: &str| {
            let request = form(&[], &token(json!({"sub": subject})));
            examine(&state, TENANT, &request, AUTHORITY, after(seconds)).err().map(|error| error.code)
        };
        (code("before"), code(SUBJECT))
    };
    assert_eq!(codes(159), (None, Some(700_213)));
    assert_eq!(codes(160), (Some(700_213), None));
}

#[test]
fn a_credential_that_entra_never_learns_of_matches_once_it_was_deleted_and_created_again() {
    let credential = json!({"name": "Trust", "issuer": ISSUER, "subject": SUBJECT});
    let mut state = state(json!({"identities": [{
        "name": "orders", "clientId": CLIENT, "federatedIdentityCredentials": [credential], "unlearnedCredentials": ["trust"],
    }]}));
    let ask = |state: &mut State, method| {
        let path = fixtures::credential("trust");
        fixtures::ask(state, method, &path, fixtures::trust(ISSUER, SUBJECT)).unwrap()
    };
    assert_eq!(code_of(&state, &token(json!({}))), Some(70025));
    ask(&mut state, Method::PUT);
    assert_eq!(code_of(&state, &token(json!({}))), Some(70025), "an update does not help");
    ask(&mut state, Method::DELETE);
    ask(&mut state, Method::PUT);
    assert_eq!(code_of(&state, &token(json!({}))), None);
}

#[test]
fn no_token_matches_an_entry_of_another_shape() {
    let properties = json!({"issuer": ISSUER, "subject": SUBJECT, "audiences": [AUDIENCE]});
    let state = state(json!({"identities": [{
        "name": "orders", "clientId": CLIENT, "rawCredentials": {"flex": {"properties": properties}},
    }]}));
    assert_eq!(code_of(&state, &token(json!({}))), Some(700_211));
}

#[test]
fn error_7000112_a_disabled_principal() {
    let credential = json!({"name": "trust", "issuer": ISSUER, "subject": SUBJECT});
    let state = state(json!({"identities": [{
        "name": "orders", "clientId": CLIENT, "federatedIdentityCredentials": [credential], "disabled": true,
    }]}));
    let error = examine(&state, TENANT, &form(&[], &token(json!({}))), AUTHORITY, now()).unwrap_err();
    assert_eq!((error.status, error.error, error.code), (400, "unauthorized_client", 7_000_112));
    assert_eq!(error.message, format!("Application '{CLIENT}'(orders) is disabled."));
}

#[test]
fn error_500011_an_unknown_resource() {
    let request = form(&[("scope", "https://nobody.example/.default")], &token(json!({})));
    let error = examine(&orders(), TENANT, &request, AUTHORITY, now()).unwrap_err();
    assert_eq!((error.status, error.error, error.code), (400, "invalid_resource", 500_011));
    let start =
        format!("The resource principal named https://nobody.example was not found in the tenant named {TENANT}. ");
    assert!(error.message.starts_with(&start), "{}", error.message);
}

#[test]
fn a_percentage_of_exchanges_with_a_matching_credential_fails() {
    for (percent, failed) in [(0, 0), (2, 4), (50, 100), (100, 200)] {
        let mut state = orders();
        state.settings.directory.spurious_mismatch_percent = percent;
        let candidate = examine(&state, TENANT, &form(&[], &token(json!({}))), AUTHORITY, now()).unwrap();
        let results: Vec<_> = (0..200).map(|_| grant(&mut state, &candidate, AUTHORITY, now())).collect();
        let codes: Vec<_> = results.into_iter().filter_map(Result::err).map(|error| error.code).collect();
        assert_eq!((codes.len(), codes.iter().all(|code| *code == 700_213)), (failed, true), "{percent} %");
    }
}

#[test]
fn error_700024_an_assertion_outside_of_its_validity() {
    let now = now().as_second();
    for (claim, at, rejected) in [
        ("exp", now - 300, true),
        ("exp", now - 299, false),
        ("nbf", now + 301, true),
        ("nbf", now + 300, false),
        ("iat", now + 301, true),
        ("exp", i64::MIN, true),
    ] {
        let code = code_of(&orders(), &token(json!({claim: at})));
        assert_eq!(code, rejected.then_some(700_024), "{claim} at {at}");
    }
    assert_eq!(code_of(&orders(), &token(json!({"nbf": null, "iat": null}))), None);
    assert_eq!(code_of(&orders(), &token(json!({"exp": 1e300}))), None, "a number out of range is harmless");
}

#[test]
fn error_700222_a_token_issued_by_entra() {
    for issuer in
        ["https://login.microsoftonline.com/t/v2.0", "https://sts.windows.net/t/", &format!("{AUTHORITY}/t/v2.0")]
    {
        assert_eq!(code_of(&trusting(issuer, SUBJECT), &token(json!({"iss": issuer}))), Some(700_222), "{issuer}");
    }
}

fn published() -> Vec<u8> {
    let mut key = serde_json::to_value(Jwk::from_encoding_key(&KEYS[0], Algorithm::RS256).unwrap()).unwrap();
    key["kid"] = json!("one");
    json!({"keys": [{"kty": "EC", "kid": "two"}, key]}).to_string().into_bytes()
}

fn verified(assertion: &str) -> Result<(), u32> {
    let keys = keys::read(&published()).map_err(|error| error.code)?;
    let assertion = Assertion::read(assertion).map_err(|error| error.code)?;
    keys::verify(&keys, &assertion).map_err(|error| error.code)
}

#[test]
fn a_signature_by_a_published_key_is_verified() {
    assert_eq!(verified(&token(json!({}))), Ok(()));
}

#[test]
fn error_7000272_a_key_that_is_not_published() {
    for key_id in [Some("two"), Some("three"), None] {
        assert_eq!(verified(&signed_by(&KEYS[0], key_id, &claims())), Err(7_000_272), "{key_id:?}");
    }
}

#[test]
fn error_700027_an_invalid_signature() {
    assert_eq!(verified(&signed_by(&KEYS[1], Some("one"), &claims())), Err(700_027));
    let (mine, theirs) = (token(json!({})), token(json!({"sub": "x"})));
    let swapped = format!("{}.{}", mine.rsplit_once('.').unwrap().0, theirs.rsplit_once('.').unwrap().1);
    assert_eq!(verified(&swapped), Err(700_027));
    assert_eq!(verified(&format!("{}.", mine.rsplit_once('.').unwrap().0)), Err(700_027));
}

#[test]
fn error_900612_invalid_keys() {
    for keys in ["", "{}", r#"{"keys":[]}"#, r#"{"keys":"x"}"#, r#"{"keys":[{"kty":"EC","kid":"a"}]}"#] {
        assert_eq!(keys::read(keys.as_bytes()).unwrap_err().code, 900_612, "{keys}");
    }
}

#[test]
fn an_identity_deleted_while_the_keys_are_fetched_gets_no_token() {
    let candidate = examine(&orders(), TENANT, &form(&[], &token(json!({}))), AUTHORITY, now()).unwrap();
    assert_eq!(grant(&mut state(json!({})), &candidate, AUTHORITY, now()).unwrap_err().code, 700_016);
}

#[test]
fn an_error_has_entras_format() {
    let request = form(&[], &token(json!({"sub": "SUB"})));
    let error = examine(&orders(), TENANT, &request, AUTHORITY, now()).unwrap_err();
    assert_eq!(error.status, 401);
    assert_eq!(
        error.body(now(), "G", "H"),
        json!({
            "error": "invalid_client",
            "error_description": "AADSTS700213: No matching federated identity record found for presented assertion subject 'SUB'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation Trace ID: G Correlation ID: H Timestamp: 2026-01-18 00:16:16Z",
            "error_codes": [700_213],
            "timestamp": "2026-01-18 00:16:16Z",
            "trace_id": "G",
            "correlation_id": "H",
            "error_uri": "https://login.microsoftonline.com/error?code=700213",
        })
    );
}

#[test]
fn assertions_do_not_appear_in_debug_output() {
    let assertion = token(json!({}));
    let request = form(&[], &assertion);
    let candidate = examine(&orders(), TENANT, &request, AUTHORITY, now()).unwrap();
    let printed = format!("{request:?} {candidate:?} {}", request.shown());
    for part in assertion.split('.') {
        assert!(!printed.contains(part));
    }
}

proptest::proptest! {
    #[test]
    fn random_requests_are_rejected(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
        text in "\\PC{0,80}",
        parts in "(eyJhbGciOiJSUzI1NiJ9|e30|[A-Za-z0-9_-]{0,9})(\\.(eyJhbGciOiJSUzI1NiJ9|e30|[A-Za-z0-9_-]{0,9})){0,4}",
    ) {
        for assertion in [&text, &parts] {
            proptest::prop_assert!(Assertion::read(assertion).is_err());
        }
        let request = TokenRequest::from_form(&bytes);
        proptest::prop_assert!(examine(&orders(), TENANT, &request, AUTHORITY, now()).is_err());
        proptest::prop_assert!(keys::read(&bytes).is_err());
    }
}
