//! A cheap client: HTTP/1.1 over TLS on one connection, with requests prepared in advance.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Failure;

/// The address of a server, and its trusted certificate.
#[derive(Clone)]
pub struct Server {
    address: SocketAddr,
    connector: TlsConnector,
}

/// An open connection.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

/// A successful response.
#[derive(Clone, Copy)]
pub struct Answer {
    /// Length of its body.
    pub body: usize,
}

impl Server {
    pub fn new(address: SocketAddr, ca_file: &Path) -> Result<Self, Failure> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca_file)? {
            roots.add(certificate?)?;
        }
        let mut config = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Each connection of a burst belongs to another client.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self { address, connector: TlsConnector::from(Arc::new(config)) })
    }

    pub async fn connect(&self) -> Result<Connection, Failure> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::IpAddress(self.address.ip().into());
        let stream = self.connector.connect(name, stream).await?;
        Ok(Connection { stream, buffer: Vec::with_capacity(16 * 1024) })
    }
}

impl Connection {
    /// Sends a request; anything except a response with a patch is a failure.
    pub async fn send(&mut self, request: &[u8]) -> Result<Answer, Failure> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        self.buffer.clear();
        let (head, body) = loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the connection was closed before the answer".into());
            }
            if let Some(head) = find(&self.buffer, b"\r\n\r\n") {
                break (head, content_length(self.buffer.get(..head).unwrap_or_default())?);
            }
        };
        let whole = head + 4 + body;
        while self.buffer.len() < whole {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the connection was closed within the answer".into());
            }
        }
        let start = self.buffer.get(head + 4..whole.min(head + 4 + 256)).unwrap_or_default();
        if self.buffer.starts_with(b"HTTP/1.1 200") && find(start, b"\"allowed\":true,\"patchType\"").is_some() {
            return Ok(Answer { body });
        }
        Err(format!("no answer with a patch: {}", String::from_utf8_lossy(&self.buffer)).into())
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

fn content_length(head: &[u8]) -> Result<usize, Failure> {
    let head = std::str::from_utf8(head)?;
    let value = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    Ok(value.ok_or("the answer has no content-length")?.parse()?)
}
