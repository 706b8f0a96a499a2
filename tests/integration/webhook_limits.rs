//! `ensign webhook` as a process, with clients that are slow, send large requests, or are many.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

use ensign_testkit::control_plane::ControlPlane;
use ensign_testkit::webhook_process::{Install, WebhookProcess};

const MIB: usize = 1024 * 1024;
/// How long a peer may take to close or to respond.
const TIMEOUT: Duration = Duration::from_secs(60);

struct Webhook {
    install: Install,
    process: WebhookProcess,
    address: SocketAddr,
}

impl Webhook {
    fn start(prefix: &str, flags: &[&str]) -> Self {
        let install = Install::new(ControlPlane::shared(), prefix);
        let mut process = install.start(flags);
        let address = process.endpoint().webhook;
        Self { install, process, address }
    }

    fn client(&self) -> reqwest::Client {
        let ca = self.install.secret("ca.crt").expect("a CA");
        let ca = reqwest::Certificate::from_pem(ca.as_bytes()).expect("a certificate");
        reqwest::Client::builder().tls_certs_only([ca]).no_proxy().timeout(TIMEOUT).build().expect("a client")
    }

    async fn post(&self, client: &reqwest::Client, body: Vec<u8>) -> reqwest::Response {
        self.try_post(client, body).await.expect("a response")
    }

    async fn try_post(&self, client: &reqwest::Client, body: Vec<u8>) -> reqwest::Result<reqwest::Response> {
        let url = format!("https://{}/mutate-pods", self.address);
        client.post(url).header("content-type", "application/json").body(body).send().await
    }

    /// A connection on which a test sends arbitrary bytes.
    fn connect(&self) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        let ca = self.install.secret("ca.crt").expect("a CA");
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("a certificate")).expect("add a CA");
        ensign_runtime::tls::install_provider();
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let connection = ClientConnection::new(Arc::new(config), name).expect("a connection");
        let stream = TcpStream::connect(self.address).expect("connect");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a deadline");
        StreamOwned::new(connection, stream)
    }
}

fn review(padding: usize) -> Vec<u8> {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "x", "operation": "CREATE", "namespace": "shop",
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "object": {"metadata": {"name": "x"}, "spec": {"containers": [{"name": "x"}]}},
            "userInfo": {"username": "x".repeat(padding)},
        },
    });
    review.to_string().into_bytes()
}

async fn is_allowed(response: reqwest::Response) -> bool {
    assert_eq!(response.status(), 200);
    response.json::<Value>().await.expect("a review")["response"]["allowed"] == true
}

#[tokio::test]
async fn thousands_of_silent_connections_block_no_client_and_are_closed() {
    let webhook = Webhook::start("silent", &[]);
    let before = webhook.process.memory_mib();
    let old = webhook.client();
    assert!(is_allowed(webhook.post(&old, review(0)).await).await);

    let mut silent = Vec::new();
    for number in 0..2_000 {
        let mut stream = tokio::net::TcpStream::connect(webhook.address).await.expect("connect");
        if number % 2 == 0 {
            // The beginning of a handshake that is never completed. It may be closed already.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, &[22, 3, 1, 2, 0]).await;
        }
        silent.push(stream);
        if number % 500 == 499 {
            assert!(is_allowed(webhook.post(&webhook.client(), review(0)).await).await, "a new client");
            assert!(is_allowed(webhook.post(&old, review(0)).await).await, "an old client");
        }
    }
    let closed = silent.into_iter().map(|mut stream| async move {
        let mut rest = Vec::new();
        let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest);
        // The connection ends with EOF or a reset, possibly after a TLS alert.
        let _ = tokio::time::timeout(TIMEOUT, read).await.expect("the server closes the connection");
    });
    futures::future::join_all(closed).await;
    assert!(is_allowed(webhook.post(&old, review(0)).await).await);
    let grown = webhook.process.memory_mib().saturating_sub(before);
    assert!(grown < 150, "{grown} MiB more than before");
}

#[tokio::test]
async fn an_idle_connection_is_kept_longer_than_a_silent_one() {
    let webhook = Webhook::start("rest", &[]);
    let body = review(0);
    let head = format!(
        "POST /mutate-pods HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let ask = |stream: &mut StreamOwned<ClientConnection, TcpStream>| {
        stream.write_all(head.as_bytes()).expect("send");
        stream.write_all(&body).expect("send");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("a response");
        assert_eq!(&answer, b"HTTP/1.1 200");
        // The rest arrives in the same record or the next one.
        let mut seen = Vec::new();
        while !seen.ends_with(b"}}") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("the rest of the response");
            seen.push(byte[0]);
        }
    };
    let mut resting = webhook.connect();
    ask(&mut resting);
    // A connection without a request is closed after a while. API servers expect an idle one to stay open.
    let mut silent = webhook.connect();
    silent.conn.complete_io(&mut silent.sock).expect("a handshake");
    let mut rest = Vec::new();
    let _ = silent.read_to_end(&mut rest);
    ask(&mut resting);
}

#[tokio::test]
async fn too_large_too_slow_and_too_deep_requests_are_rejected_with_their_status() {
    let webhook = Webhook::start("refused", &[]);
    let client = webhook.client();
    assert_eq!(webhook.post(&client, vec![b' '; 5 * MIB]).await.status(), 413);
    assert_eq!(webhook.post(&client, vec![b'['; MIB]).await.status(), 400);
    let deep = format!("{{\"request\":{{\"object\":{}", "{\"spec\":".repeat(100_000));
    assert_eq!(webhook.post(&client, deep.into_bytes()).await.status(), 400);

    let mut slow = webhook.connect();
    slow.write_all(
        b"POST /mutate-pods HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{",
    )
    .expect("send");
    let mut answer = String::new();
    let _ = slow.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(is_allowed(webhook.post(&client, review(0)).await).await);
}

#[tokio::test]
async fn many_concurrent_large_requests_use_bounded_memory() {
    let webhook = Webhook::start("large", &["--request-memory-mib=16"]);
    let client = webhook.client();
    assert!(is_allowed(webhook.post(&client, review(0)).await).await);
    let before = webhook.process.memory_mib();
    // On a slow machine, the connection is closed at the deadline.
    let requests = (0..64).map(|_| webhook.try_post(&client, review(3 * MIB)));
    for response in futures::future::join_all(requests).await.into_iter().flatten() {
        match response.status().as_u16() {
            503 => assert_eq!(response.headers()["retry-after"], "1"),
            408 => {}
            _ => assert!(is_allowed(response).await),
        }
    }
    let grown = webhook.process.memory_mib().saturating_sub(before);
    assert!(grown < 150, "{grown} MiB more than before");
    // Their memory was released. A request beyond the deadline is cut off.
    while !webhook.try_post(&client, review(3 * MIB)).await.is_ok_and(|response| response.status() == 200) {}
}
