//! Over TLS, with a real client.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::*;

const NAMES: [&str; 2] = ["127.0.0.1", "ensign-webhook.ensign-system.svc"];

struct Server {
    address: SocketAddr,
    resolver: Arc<Resolver>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<io::Result<()>>,
}

fn issue() -> (Bundle, Usable) {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let names = NAMES.map(str::to_owned);
    Bundle::default().repaired(None, &names, Timestamp::now(), &provider).unwrap()
}

fn start(app: Router) -> (Server, Bundle) {
    start_with(app, 100, Duration::ZERO)
}

fn start_with(app: Router, connections: usize, lame_duck: Duration) -> (Server, Bundle) {
    let (bundle, usable) = issue();
    let resolver = Resolver::new(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    resolver.load(&usable);
    let (listener, address) = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(server::serve(listener, Arc::clone(&resolver), app, connections, lame_duck, stop.clone()));
    (Server { address, resolver, stop, task }, bundle)
}

fn client(bundle: &Bundle) -> reqwest::ClientBuilder {
    ensign_runtime::tls::install_provider();
    let authority = reqwest::Certificate::from_pem(bundle.ca_certificate()).unwrap();
    reqwest::Client::builder().tls_certs_only([authority]).no_proxy().timeout(Duration::from_secs(20))
}

async fn post(client: &reqwest::Client, url: &str) -> reqwest::Result<reqwest::Response> {
    client.post(url).json(&review(&json!({}))).send().await
}

#[tokio::test]
async fn a_client_that_trusts_the_authority_is_answered_by_address_and_by_name() {
    let (server, bundle) = start(resolved_app());
    let client = client(&bundle).resolve(NAMES[1], server.address).build().unwrap();
    for name in NAMES {
        let url = format!("https://{name}:{}/mutate-pods", server.address.port());
        let response = post(&client, &url).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.json::<Value>().await.unwrap()["response"]["allowed"], true);
    }
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let (server, bundle) = start(resolved_app());
    let old = client(&bundle).tls_version_max(reqwest::tls::Version::TLS_1_2).build().unwrap();
    assert!(post(&old, &format!("https://{}/mutate-pods", server.address)).await.unwrap_err().is_connect());
}

#[tokio::test]
async fn clients_that_know_http_2_too_are_served_over_http_1_1() {
    let (server, bundle) = start(resolved_app());
    let address = server.address;
    let negotiated = tokio::task::spawn_blocking(move || {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(bundle.ca_certificate()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut connection = rustls::ClientConnection::new(Arc::new(config), NAMES[0].try_into().unwrap()).unwrap();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        connection.complete_io(&mut stream).unwrap();
        connection.alpn_protocol().map(<[u8]>::to_vec)
    });
    assert_eq!(negotiated.await.unwrap().unwrap(), b"http/1.1");
}

#[tokio::test]
async fn a_client_that_trusts_another_authority_turns_away() {
    let (server, _) = start(resolved_app());
    let (other, _) = issue();
    let client = client(&other).build().unwrap();
    assert!(post(&client, &format!("https://{}/mutate-pods", server.address)).await.unwrap_err().is_connect());
}

#[tokio::test]
async fn a_new_certificate_is_served_to_new_connections_and_open_ones_go_on() {
    let (server, bundle) = start(resolved_app());
    let url = format!("https://{}/mutate-pods", server.address);
    let open = client(&bundle).build().unwrap();
    post(&open, &url).await.unwrap();

    let (renewed, usable) = issue();
    server.resolver.load(&usable);
    assert_eq!(post(&open, &url).await.unwrap().status(), StatusCode::OK, "the open connection is kept");
    let trusting = client(&renewed).build().unwrap();
    assert_eq!(post(&trusting, &url).await.unwrap().status(), StatusCode::OK);
    let stale = client(&bundle).build().unwrap();
    assert!(post(&stale, &url).await.is_err());
}

/// Lets a lookup finish when it is told to.
struct Gate {
    entered: tokio::sync::Notify,
    open: tokio::sync::Notify,
}

#[async_trait]
impl Lookup for Gate {
    async fn bindings(&self, _: &str) -> Result<Vec<Arc<Binding>>, LookupError> {
        self.entered.notify_one();
        self.open.notified().await;
        Ok(vec![binding(&json!({}))])
    }
}

#[tokio::test]
async fn a_stop_lets_requests_under_way_finish_and_takes_no_new_ones() {
    let gate = Arc::new(Gate { entered: tokio::sync::Notify::new(), open: tokio::sync::Notify::new() });
    let config = Config {
        authority_host: String::new(),
        audience: String::new(),
        excluded: BTreeSet::new(),
        compatibility: None,
        gate_pods: false,
    };
    let lookup: Arc<dyn Lookup> = gate.clone();
    let metrics = WebhookMetrics::default();
    let admission = Admission::new(config, Arc::default(), lookup, None, metrics);
    let app = server::router(Arc::new(admission), RequestLimits::default());
    let (server, bundle) = start(app);
    let url = format!("https://{}/mutate-pods", server.address);
    let slow = client(&bundle).build().unwrap();
    let under_way = tokio::spawn({
        let url = url.clone();
        async move { post(&slow, &url).await }
    });
    gate.entered.notified().await;
    server.stop.cancel();
    let closed = async {
        while tokio::net::TcpStream::connect(server.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), closed).await.expect("no new connection is taken");
    gate.open.notify_one();
    assert_eq!(under_way.await.unwrap().unwrap().status(), StatusCode::OK);
    server.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_that_stops_goes_on_for_a_while_and_asks_its_clients_to_go_elsewhere() {
    let (server, bundle) = start_with(resolved_app(), 100, Duration::from_secs(600));
    let url = format!("https://{}/mutate-pods", server.address);
    let open = client(&bundle).build().unwrap();
    let goes = |response: &reqwest::Response| response.headers().get(header::CONNECTION).cloned();
    assert_eq!(goes(&post(&open, &url).await.unwrap()), None);
    server.stop.cancel();
    for client in [open, client(&bundle).build().unwrap()] {
        let response = post(&client, &url).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(goes(&response).unwrap(), "close");
    }
    assert!(!server.task.is_finished());
    server.task.abort();
}

#[tokio::test]
async fn connections_that_send_nothing_make_room_for_those_that_do() {
    let (server, bundle) = start_with(resolved_app(), 2, Duration::ZERO);
    let url = format!("https://{}/mutate-pods", server.address);
    let first = client(&bundle).build().unwrap();
    post(&first, &url).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(tokio::net::TcpStream::connect(server.address).await.unwrap());
    }
    // The last one is still there, the others were closed to make room.
    for closed in &mut silent[..4] {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_secs(20), tokio::io::AsyncReadExt::read(closed, &mut byte));
        assert!(matches!(read.await.expect("closed in time"), Ok(0) | Err(_)));
    }
    let second = client(&bundle).build().unwrap();
    for client in [first, second] {
        assert_eq!(post(&client, &url).await.unwrap().status(), StatusCode::OK);
    }
}
