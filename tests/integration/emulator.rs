//! The Azure emulator in this process, tested with `azure_identity`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

pub mod issuer;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::TokenCredential;
use azure_core::error::ErrorKind;
use azure_core::http::{ClientOptions, RetryOptions, Transport};
use azure_identity::{ClientAssertionCredentialOptions, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions};
use ensign_azure_emulator::state::StateDocument;
use ensign_azure_emulator::{
    Emulator, EmulatorOptions, FaultAction, FaultMatch, FaultRule, LogFilter, LogKind, NamedAction,
};
use ensign_runtime::clock::{Clock, SystemClock};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use issuer::Issuer;

const SUBJECT: &str = "system:serviceaccount:shop:orders";
const SCOPE: &str = "https://management.azure.com/.default";

fn document(document: Value) -> StateDocument {
    serde_json::from_value(document).unwrap()
}

/// An emulator whose identity `orders` trusts the issuer's subject.
fn emulator(issuer: &Issuer, options: EmulatorOptions) -> Emulator {
    let credential = json!({"name": "trust", "issuer": issuer.url, "subject": SUBJECT});
    Emulator::start(EmulatorOptions {
        seed: document(json!({"identities": [{"name": "orders", "federatedIdentityCredentials": [credential]}]})),
        issuer_ca_pems: vec![issuer.ca_pem.clone()],
        ..options
    })
    .unwrap()
}

fn http(emulator: &Emulator) -> reqwest::Client {
    let ca = reqwest::Certificate::from_pem(emulator.info().ca_pem.as_bytes()).unwrap();
    reqwest::Client::builder().tls_certs_only([ca]).no_proxy().timeout(Duration::from_secs(30)).build().unwrap()
}

/// The SDK's own credential for `orders`, with a token file as the kubelet or an editor writes it.
fn credential(emulator: &Emulator, token: &str) -> Arc<WorkloadIdentityCredential> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{token}").unwrap();
    let mut cloud = CustomConfiguration::default();
    cloud.authority_host.clone_from(&emulator.info().authority_host);
    let client_options = ClientOptions {
        transport: Some(Transport::new(Arc::new(http(emulator)))),
        cloud: Some(Arc::new(CloudConfiguration::Custom(cloud))),
        retry: RetryOptions::none(),
        ..ClientOptions::default()
    };
    WorkloadIdentityCredential::new(Some(WorkloadIdentityCredentialOptions {
        credential_options: ClientAssertionCredentialOptions { client_options },
        client_id: emulator.state().identities[0].client_id.clone(),
        tenant_id: Some(emulator.info().tenant_id.clone()),
        token_file_path: Some(file.path().to_owned()),
    }))
    .unwrap()
}

/// The AADSTS code of the error that the SDK got.
async fn error_code(credential: &WorkloadIdentityCredential) -> String {
    let error = credential.get_token(&[SCOPE], None).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Credential), "{error:?}");
    let source = std::error::Error::source(&error).unwrap().downcast_ref::<azure_core::Error>().unwrap();
    match source.kind() {
        ErrorKind::HttpResponse { error_code: Some(code), .. } => code.clone(),
        other => panic!("not an error: {other:?}"),
    }
}

fn identity_url(emulator: &Emulator) -> String {
    let info = emulator.info();
    format!(
        "{}/subscriptions/{}/resourceGroups/{}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders?api-version=2024-11-30",
        info.arm_endpoint, info.subscription_id, info.resource_group
    )
}

#[tokio::test]
async fn the_sdk_exchanges_a_workloads_token() {
    let issuer = Issuer::start();
    let emulator = emulator(&issuer, EmulatorOptions::default());
    let token = credential(&emulator, &issuer.token(SUBJECT)).get_token(&[SCOPE], None).await.unwrap();
    let claims = jsonwebtoken::dangerous::insecure_decode::<Value>(token.token.secret()).unwrap().claims;
    let identity = &emulator.state().identities[0];
    assert_eq!(claims["oid"], *identity.principal_id.as_ref().unwrap());
    assert_eq!(claims["xms_mirid"], *identity.id.as_ref().unwrap());
    let [asked] = &emulator.log(&LogFilter { kind: Some("token".to_owned()), ..LogFilter::default() })[..] else {
        panic!("one exchange is one request");
    };
    assert_eq!((asked.kind, asked.status), (LogKind::Token, Some(200)));
}

#[tokio::test]
async fn the_sdk_gets_entras_error_codes() {
    let issuer = Issuer::start();
    let emulator = emulator(&issuer, EmulatorOptions::default());
    let stranger = credential(&emulator, &issuer.token("system:serviceaccount:shop:somebody-else"));
    assert_eq!(error_code(&stranger).await, "700213");
    let garbage = credential(&emulator, "rubbish");
    assert_eq!(error_code(&garbage).await, "50027");
}

#[tokio::test]
async fn an_issuer_is_accepted_once_its_ca_is_trusted() {
    let (issuer, other) = (Issuer::start(), Issuer::start());
    let seed = emulator(&issuer, EmulatorOptions::default()).state();
    let issuer_ca_pems = vec![other.ca_pem.clone()];
    let emulator = Emulator::start(EmulatorOptions { seed, issuer_ca_pems, ..EmulatorOptions::default() }).unwrap();
    let workload = credential(&emulator, &issuer.token(SUBJECT));
    assert_eq!(error_code(&workload).await, "90061", "another CA is trusted");
    emulator.trust_issuer_ca(&issuer.ca_pem).unwrap();
    assert!(workload.get_token(&[SCOPE], None).await.is_ok());
}

/// A clock that the test sets.
struct Moved(Mutex<Timestamp>);

impl Clock for Moved {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    fn monotonic(&self) -> Instant {
        Instant::now()
    }

    fn sleep_until(&self, deadline: Instant) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        SystemClock.sleep_until(deadline)
    }
}

#[tokio::test]
async fn a_credential_works_once_its_propagation_delay_has_passed() {
    let issuer = Issuer::start();
    let clock = Arc::new(Moved(Mutex::new(Timestamp::now())));
    let emulator = emulator(
        &issuer,
        EmulatorOptions { propagation_seconds: 60, clock: clock.clone(), ..EmulatorOptions::default() },
    );
    let workload = credential(&emulator, &issuer.token(SUBJECT));
    assert_eq!(error_code(&workload).await, "70025");
    *clock.0.lock().unwrap() += SignedDuration::from_secs(60);
    assert!(workload.get_token(&[SCOPE], None).await.is_ok());
}

#[tokio::test]
async fn arm_accepts_the_administrators_token_and_rejects_the_workloads() {
    let issuer = Issuer::start();
    let emulator = emulator(&issuer, EmulatorOptions::default());
    let get = |token: String| http(&emulator).get(identity_url(&emulator)).bearer_auth(token).send();
    let allowed = get(emulator.arm_token().unwrap()).await.unwrap();
    assert_eq!(allowed.status(), 200);
    let workload = credential(&emulator, &issuer.token(SUBJECT)).get_token(&[SCOPE], None).await.unwrap();
    let refused = get(workload.token.secret().to_owned()).await.unwrap();
    assert_eq!(refused.status(), 403);
    let codes: Vec<_> = emulator
        .log(&LogFilter { kind: Some("arm-read".to_owned()), ..LogFilter::default() })
        .into_iter()
        .map(|entry| entry.error_code)
        .collect();
    assert_eq!(codes, [None, Some("AuthorizationFailed".to_owned())]);
}

#[tokio::test]
async fn an_emulator_rejects_the_tokens_of_another() {
    let [one, two] = [(), ()].map(|()| Emulator::start(EmulatorOptions::default()).unwrap());
    let request = http(&one).get(identity_url(&one)).bearer_auth(two.arm_token().unwrap());
    assert_eq!(request.send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn a_fault_can_be_scripted_and_counted() {
    let emulator = Emulator::start(EmulatorOptions::default()).unwrap();
    emulator.set_state(document(json!({"identities": [{"name": "orders"}]}))).unwrap();
    emulator.set_faults(vec![FaultRule {
        matching: FaultMatch { method: Some("DELETE".to_owned()), ..FaultMatch::default() },
        nth: 1,
        times: 1,
        action: FaultAction::Named(NamedAction::ApplyThenDrop),
        matched: 0,
        fired: 0,
    }]);
    let delete = || http(&emulator).delete(identity_url(&emulator)).bearer_auth(emulator.arm_token().unwrap()).send();
    assert!(delete().await.is_err(), "the response is lost");
    assert!(emulator.state().identities.is_empty(), "but the deletion is not");
    assert_eq!(delete().await.unwrap().status(), 204);
    assert_eq!((emulator.faults()[0].matched, emulator.faults()[0].fired), (2, 1));
    let [lost, answered] = &emulator.log(&LogFilter::default())[..] else { panic!("two requests") };
    assert_eq!((lost.status, lost.applied_status), (None, Some(200)));
    assert_eq!((answered.status, answered.applied_status), (Some(204), None));
}

#[tokio::test]
async fn a_scripted_answer_can_have_every_shape_of_azures_errors() {
    let emulator = Emulator::start(EmulatorOptions::default()).unwrap();
    let info = emulator.info();
    let token_url = format!("{}{}/oauth2/v2.0/token", info.authority_host, info.tenant_id);
    let scripted = async |action: Value, url: String| {
        let rules = json!([{"action": action}]);
        emulator.set_faults(serde_json::from_value(rules).unwrap());
        let response = http(&emulator).get(url).send().await.unwrap();
        let header = |name: &str| {
            response.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
        };
        let headers = [header("content-type"), header("retry-after")];
        (response.status().as_u16(), headers, response.text().await.unwrap())
    };
    let error = json!({
        "status": 409, "code": "Outer", "message": "m", "target": "t", "details": [{"code": "Inner"}],
        "additionalInfo": [{"type": "PolicyViolation"}],
    });
    let (status, _, body) = scripted(error.clone(), identity_url(&emulator)).await;
    let mut inner = error;
    inner.as_object_mut().unwrap().remove("status");
    assert_eq!((status, serde_json::from_str::<Value>(&body).unwrap()), (409, json!({"error": inner})));

    let text = json!({"status": 429, "text": "Too Many Requests", "retryAfter": "10"});
    let (status, [kind, after], body) = scripted(text, identity_url(&emulator)).await;
    assert_eq!((status, after.as_str(), body.len()), (429, "10", 17));
    assert!(kind.starts_with("text/plain"), "{kind}");
    let page = json!({"status": 429, "text": "<p>Too many</p>", "html": true});
    let (_, [kind, _], body) = scripted(page, identity_url(&emulator)).await;
    assert!(kind.starts_with("text/html") && body == "<p>Too many</p>", "{kind} {body}");

    let entra = json!({"status": 429, "code": "AADSTS50196", "message": "The server terminated an operation."});
    let (status, _, body) = scripted(entra, token_url).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, &body["error"], &body["error_codes"]),
        (429, &json!("temporarily_unavailable"), &json!([50196]))
    );
    assert!(
        body["error_description"].as_str().unwrap().starts_with("AADSTS50196: The server terminated an operation.")
    );
}

#[tokio::test]
async fn a_read_can_return_an_earlier_state_while_the_state_shows_the_truth() {
    let emulator = Emulator::start(EmulatorOptions::default()).unwrap();
    let rules = json!([{"match": {"kind": "arm-read"}, "times": 2, "action": {"stale": {"seconds": 30}}}]);
    emulator.set_faults(serde_json::from_value(rules).unwrap());
    let put = http(&emulator).put(identity_url(&emulator)).bearer_auth(emulator.arm_token().unwrap());
    assert_eq!(put.json(&json!({"location": "westeurope"})).send().await.unwrap().status(), 201);
    let read = || http(&emulator).get(identity_url(&emulator)).bearer_auth(emulator.arm_token().unwrap()).send();
    assert_eq!(read().await.unwrap().status(), 404);
    emulator.with_state(|state| state.identities.clear());
    assert_eq!(read().await.unwrap().status(), 404, "it was created and deleted within the lag");
    assert!(emulator.state().identities.is_empty());
    emulator.set_state(document(json!({"identities": [{"name": "orders"}], "readLagSeconds": 3600}))).unwrap();
    emulator.with_state(|state| state.identities.clear());
    let mut found = Vec::new();
    for _ in 0..20 {
        found.push(read().await.unwrap().status().as_u16());
    }
    assert!(found.contains(&200) && found.contains(&404), "some replicas lag: {found:?}");
    assert!(emulator.state().identities.is_empty());
}

#[tokio::test]
async fn a_dropped_emulator_stops_listening_and_leaves_no_files() {
    let emulator = Emulator::start(EmulatorOptions::default()).unwrap();
    let info = emulator.info().clone();
    let [before, after] = [http(&emulator), http(&emulator)];
    assert_eq!(before.get(&info.state_url).send().await.unwrap().status(), 200);
    drop(emulator);
    assert!(after.get(&info.state_url).send().await.is_err());
    assert!(!info.ca_file.exists());
}

#[test]
fn an_emulator_that_cannot_start_names_the_wrong_flag() {
    let running = Emulator::start(EmulatorOptions::default()).unwrap();
    let address = running.info().arm_endpoint.trim_start_matches("https://").parse().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let broken = [
        (EmulatorOptions { listen: address, ..EmulatorOptions::default() }, "--listen"),
        (EmulatorOptions { data_dir: Some(file.join("below")), ..EmulatorOptions::default() }, "--data-dir"),
        (
            EmulatorOptions {
                issuer_ca_pems: vec!["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned()],
                ..EmulatorOptions::default()
            },
            "--issuer-ca-file",
        ),
        (EmulatorOptions { seed: document(json!({"identities": [{}]})), ..EmulatorOptions::default() }, "--seed"),
    ];
    for (options, flag) in broken {
        let error = Emulator::start(options).unwrap_err().to_string();
        assert!(error.contains(flag), "{error}");
    }
}
