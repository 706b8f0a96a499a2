//! The echo server: it does the part of the webhook's job that no webhook can omit, and decides nothing.
//!
//! It has the same stack with the same settings (rustls, axum-server, axum), parses what any injecting webhook has
//! to read of a review into types, and sends a response of a fixed size.

use std::borrow::Cow;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Failure, reviews};

#[derive(clap::Args)]
pub struct Args {
    /// Where to write the certificate for clients to trust
    #[arg(long)]
    ca_file: PathBuf,
    /// Length of the encoded patch in the response
    #[arg(long)]
    patch_bytes: usize,
}

/// Serves until it is killed; prints its address once it listens.
pub async fn run(args: Args) -> Result<Value, Failure> {
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
    std::fs::write(&args.ca_file, certified.cert.pem())?;
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der())?;
    let mut config = rustls::ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.send_tls13_tickets = 0;
    let tls = RustlsAcceptor::new(RustlsConfig::from_config(Arc::new(config))).acceptor(NoDelayAcceptor::new());
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = listener.local_addr()?;
    let patch: Arc<str> = "e".repeat(args.patch_bytes).into();
    let router = Router::new().route(reviews::PATH, post(answer)).with_state(patch);
    let server = axum_server::from_tcp(listener)?.acceptor(tls).http1_only();
    println!("{}", json!({"address": address.to_string()}));
    server.serve(router.into_make_service()).await?;
    Ok(Value::Null)
}

async fn answer(State(patch): State<Arc<str>>, body: Bytes) -> Response {
    let Ok(review) = serde_json::from_slice::<Review<'_>>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    std::hint::black_box(&review);
    let response = Answered { uid: &review.request.uid, allowed: true, patch_type: "JSONPatch", patch: &patch };
    let answer = Answer { api_version: "admission.k8s.io/v1", kind: "AdmissionReview", response };
    match serde_json::to_vec(&answer) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

type Text<'a> = Option<Str<'a>>;

#[derive(Deserialize)]
#[serde(transparent)]
struct Str<'a>(
    #[serde(borrow)]
    #[expect(dead_code, reason = "parsed, not used")]
    Cow<'a, str>,
);

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsed, not used")]
struct Review<'a> {
    #[serde(borrow, rename = "apiVersion")]
    api_version: Text<'a>,
    #[serde(borrow)]
    kind: Text<'a>,
    #[serde(borrow)]
    request: Request<'a>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsed, not used")]
struct Request<'a> {
    #[serde(borrow)]
    uid: Cow<'a, str>,
    #[serde(borrow)]
    namespace: Text<'a>,
    #[serde(borrow)]
    operation: Text<'a>,
    #[serde(borrow)]
    object: Pod<'a>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsed, not used")]
struct Pod<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    #[serde(borrow)]
    spec: Spec<'a>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsed, not used")]
struct Metadata<'a> {
    #[serde(borrow)]
    name: Text<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "parsed, not used")]
struct Spec<'a> {
    #[serde(borrow)]
    service_account_name: Text<'a>,
    #[serde(borrow)]
    containers: Vec<Container<'a>>,
    #[serde(borrow)]
    volumes: Vec<Named<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "parsed, not used")]
struct Container<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    env: Vec<Named<'a>>,
    #[serde(borrow)]
    volume_mounts: Vec<Named<'a>>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsed, not used")]
struct Named<'a> {
    #[serde(borrow)]
    name: Text<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Answered<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answered<'a> {
    uid: &'a str,
    allowed: bool,
    patch_type: &'static str,
    patch: &'a str,
}
