//! Requests to Entra and to ARM go through a proxy, except for hosts that bypass it.

use std::sync::{Arc, Mutex};

use ensign_api::conditions::Reason;
use ensign_azure::{Connection, ProxySettings};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::Azure;

/// A request line with its headers.
type Request = Vec<String>;

/// A proxy that accepts `CONNECT` and records the requests.
struct Proxy {
    address: String,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Proxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = listener.local_addr().expect("an address").to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let asked = Arc::clone(&kept);
                tokio::spawn(async move { tunnel(client, &asked).await });
            }
        });
        Self { address, asked }
    }

    /// The requested hosts in order, each once.
    fn hosts(&self) -> Vec<String> {
        let asked = self.asked.lock().expect("no proxy panicked");
        let host = |request: &Request| request[0].trim_start_matches("CONNECT ").split(':').next().map(str::to_owned);
        let mut hosts: Vec<_> = asked.iter().filter_map(host).collect();
        hosts.sort();
        hosts.dedup();
        hosts
    }

    fn connection(&self, azure: &Azure, user: &str, except: &str) -> Connection {
        let proxy = ProxySettings::new(&format!("http://{user}{}", self.address), except).expect("a proxy");
        Connection { proxy: Some(proxy), ..azure.connection() }
    }
}

async fn tunnel(client: TcpStream, asked: &Mutex<Vec<Request>>) {
    let mut client = BufReader::new(client);
    let mut request = Request::new();
    loop {
        let mut line = String::new();
        match client.read_line(&mut line).await {
            Ok(read) if read > 0 && !line.trim().is_empty() => request.push(line.trim().to_owned()),
            _ => break,
        }
    }
    let target = request.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
    assert!(request.first().is_some_and(|line| line.starts_with("CONNECT ")), "{request:?}");
    asked.lock().expect("no proxy panicked").push(request);
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.expect("answer");
    let _ = copy_bidirectional(&mut client, &mut server).await;
}

#[tokio::test]
async fn requests_to_entra_and_to_arm_go_through_the_proxy() {
    let (azure, proxy) = (Azure::start(), Proxy::start().await);
    let client = azure.client(&proxy.connection(&azure, "", ""));
    client.get_identity(&azure.orders()).await.expect("the identity");
    assert_eq!(proxy.hosts(), ["127.0.0.1", "localhost"]);
}

#[tokio::test]
async fn no_proxy_hosts_are_reached_directly() {
    for (except, through) in
        [("localhost", vec!["127.0.0.1"]), ("10.0.0.0/8, 127.0.0.0/8", vec!["localhost"]), ("*", vec![])]
    {
        let (azure, proxy) = (Azure::start(), Proxy::start().await);
        let client = azure.client(&proxy.connection(&azure, "", except));
        client.get_identity(&azure.orders()).await.expect("the identity");
        assert_eq!(proxy.hosts(), through, "except {except}");
    }
}

#[tokio::test]
async fn a_proxy_with_a_password_receives_it() {
    let (azure, proxy) = (Azure::start(), Proxy::start().await);
    let client = azure.client(&proxy.connection(&azure, "ensign:secret@", ""));
    client.get_identity(&azure.orders()).await.expect("the identity");
    let asked = proxy.asked.lock().expect("no proxy panicked");
    let authorized = |request: &Request| {
        request.iter().any(|header| header.eq_ignore_ascii_case("proxy-authorization: basic ZW5zaWduOnNlY3JldA=="))
    };
    assert!(!asked.is_empty() && asked.iter().all(authorized), "{asked:?}");
}

#[tokio::test]
async fn an_unreachable_proxy_is_not_bypassed_and_its_password_not_logged() {
    let azure = Azure::start();
    let gone = Proxy { address: "127.0.0.1:9".to_owned(), asked: Arc::default() };
    let client = azure.client(&gone.connection(&azure, "ensign:canary@", ""));
    let error = client.get_identity(&azure.orders()).await.unwrap_err();
    assert_eq!(error.failure(None).reason, Reason::CredentialUnavailable);
    let told = format!("{error:?} {} {}", error.cause, error.failure(None).message);
    assert!(!told.contains("canary"), "{told}");
    assert_eq!(azure.emulator.log(&ensign_azure_emulator::LogFilter::default()), [], "nothing bypassed the proxy");
}
