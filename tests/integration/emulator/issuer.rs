//! A token issuer over https, like a cluster's API server.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, LazyLock};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::routing::get;
use axum::{Json, Router};
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};

pub const AUDIENCE: &str = "api://AzureADTokenExchange";

/// Generating a key takes a while and nothing here is secret, so all tests share one.
static KEY: LazyLock<EncodingKey> = LazyLock::new(|| {
    let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap()
});

/// A running issuer; it stops when it is dropped.
pub struct Issuer {
    pub url: String,
    pub ca_pem: String,
    handle: Handle<SocketAddr>,
}

impl Issuer {
    /// Starts an issuer on the runtime of the test.
    pub fn start() -> Self {
        ensign_runtime::tls::install_provider();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let tls = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let discovery = json!({"issuer": url, "jwks_uri": format!("{url}/keys")});
        let mut key = serde_json::to_value(Jwk::from_encoding_key(&KEY, Algorithm::RS256).unwrap()).unwrap();
        key["kid"] = json!("one");
        let keys = json!({"keys": [key]});
        let app = Router::new()
            .route("/.well-known/openid-configuration", get(|| async { Json(discovery) }))
            .route("/keys", get(|| async { Json(keys) }));
        let handle = Handle::new();
        let server = axum_server::from_tcp_rustls(listener, RustlsConfig::from_config(Arc::new(tls))).unwrap();
        tokio::spawn(server.handle(handle.clone()).serve(app.into_make_service()));
        Self { url, ca_pem: certificate.pem(), handle }
    }

    /// A service account token for a subject.
    pub fn token(&self, subject: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let claims: Value = json!({
            "iss": self.url, "sub": subject, "aud": [AUDIENCE], "iat": now, "nbf": now, "exp": now + 3600,
        });
        let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::RS256) };
        jsonwebtoken::encode(&header, &claims, &KEY).unwrap()
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.handle.shutdown();
    }
}
