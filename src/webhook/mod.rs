//! The admission webhook: stateless replicas that inject identities into pods, and never talk to Azure.
//!
//! ```text
//! API server ── AdmissionReview ──> server ─> admission ─> decide::admit
//!     │                               │          │
//!     │<── watch: bindings ───────────┼── cache ─┘ (a live list before a refusal: lookup)
//!     └<── watch, update: Secret ── certificates
//! ```

pub mod admission;
pub mod cache;
pub mod certificates;
pub mod lookup;
pub mod review;
pub mod server;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kube::Client;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::admission::Admission;
use self::cache::Index;
use self::certificates::{Keeper, Resolver};
use self::lookup::LiveLookup;
use crate::decide::admit::Config;
use crate::decide::registration::MUTATE_PODS_PATH;
use crate::runtime::clock::SharedClock;
use crate::runtime::health::{self, Readiness};

/// What the webhook has to be told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens for the API server.
    pub listen: SocketAddr,
    /// Where it listens for health checks.
    pub health_listen: SocketAddr,
    /// Its own namespace.
    pub namespace: String,
    /// The Secret there with its certificates.
    pub tls_secret: String,
    /// DNS names and addresses under which the API server reaches it.
    pub tls_names: Vec<String>,
    /// What pods get.
    pub config: Config,
    /// Written once it is ready.
    pub ready_file: Option<PathBuf>,
}

/// The webhook can't go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {address} for admission reviews (--listen)")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Health checks can't be served.
    #[error(transparent)]
    Health(#[from] health::ListenError),
    /// The ready file can't be written.
    #[error("cannot write {} (--ready-file)", path.display())]
    ReadyFile {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The server broke.
    #[error("the server for admission reviews stopped")]
    Serve {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A part that never ends has ended.
    #[error("{part} stopped unexpectedly")]
    Ended {
        /// The part.
        part: &'static str,
    },
}

/// Runs the webhook until `stop`.
pub async fn run(client: Client, options: Options, clock: SharedClock, stop: CancellationToken) -> Result<(), Error> {
    let listen_failed = |source| Error::Listen { address: options.listen, source };
    let listener = TcpListener::bind(options.listen).map_err(listen_failed)?;
    let address = listener.local_addr().map_err(listen_failed)?;

    let readiness = Readiness::default();
    let health_stop = CancellationToken::new();
    let _stop_health = health_stop.clone().drop_guard();
    let health_address = health::serve(options.health_listen, readiness.clone(), health_stop).await?;

    let index = Arc::new(Index::default());
    let resolver = Resolver::new(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let keeper = Keeper::new(
        client.clone(),
        options.namespace,
        options.tls_secret,
        options.tls_names,
        clock,
        Arc::clone(&resolver),
    );
    let lookup = Arc::new(LiveLookup::new(client.clone()));
    let admission = Arc::new(Admission::new(options.config, Arc::clone(&index), lookup));

    let ready = async {
        tokio::join!(index.initialised(), resolver.loaded());
        let webhook_url = format!("https://{address}{MUTATE_PODS_PATH}");
        if let Some(path) = &options.ready_file {
            let content = json!({"health_address": health_address.to_string(), "webhook_url": webhook_url});
            write_whole(path, &format!("{content}\n"))
                .map_err(|source| Error::ReadyFile { path: path.clone(), source })?;
        }
        readiness.set(true);
        tracing::info!(%health_address, webhook_url, "ready");
        std::future::pending::<Result<(), Error>>().await
    };
    let serve = async {
        // Without a certificate every handshake would fail; until there is one, callers wait in the backlog.
        tokio::select! {
            () = resolver.loaded() => {}
            () = stop.cancelled() => return Ok(()),
        }
        let router = server::router(admission);
        server::serve(listener, Arc::clone(&resolver), router, stop.clone())
            .await
            .map_err(|source| Error::Serve { source })
    };
    let unready = async {
        stop.cancelled().await;
        readiness.set(false);
        std::future::pending::<()>().await;
    };
    // The end of any of them is the end of the process; only `serve` ends as it should, when `stop` is cancelled.
    tokio::select! {
        served = serve => served,
        failed = ready => failed,
        () = cache::run(client, Arc::clone(&index)) => Err(Error::Ended { part: "the watch of ManagedIdentityBindings" }),
        () = keeper.run() => Err(Error::Ended { part: "the keeper of the webhook's certificates" }),
        () = unready => Ok(()),
    }
}

/// Writes a file so that readers see all of it or none.
fn write_whole(path: &Path, content: &str) -> io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, content)?;
    std::fs::rename(&partial, path)
}
