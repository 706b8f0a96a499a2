//! The admission webhook: stateless replicas that inject identities into pods and never call Azure.
//!
//! ```text
//! API server ── AdmissionReview ──> server ─> admission ─> ensign_core::admission
//!     │                                          │
//!     │<── watch: bindings ─────── binding_store ┤ (live_lookup: a list before a denial)
//!     │<── watch: service accounts ─ service_account_store (compatibility mode only)
//!     └<── watch, update: Secret ── certificates
//! ```

pub mod admission;
pub mod binding_store;
pub mod certificates;
pub mod live_lookup;
pub mod metrics;
pub mod review;
pub mod server;
pub mod service_account_store;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio_util::sync::CancellationToken;

use self::admission::Admission;
use self::binding_store::Index;
use self::certificates::{Certificates, Resolver};
use self::live_lookup::LiveLookup;
use self::metrics::WebhookMetrics;
use self::server::limits::RequestLimits;
use self::service_account_store::{Accounts, LiveAccount};
use ensign_core::admission::Config;
use ensign_runtime::clock::SharedClock;
use ensign_runtime::health::Readiness;

/// How the webhook is configured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where its certificates come from.
    pub certificates: Certificates,
    /// DNS names and IP addresses at which the API server reaches it.
    pub tls_names: Vec<String>,
    /// What is injected into pods.
    pub config: Config,
    /// What clients may use.
    pub limits: RequestLimits,
    /// How long it keeps serving after it was asked to stop, while clients learn that it is no longer ready.
    pub lame_duck: Duration,
    /// Its metrics.
    pub metrics: WebhookMetrics,
}

/// The webhook has to exit.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is in use, or not an address of this machine.
    #[error("cannot listen on {address} for admission reviews (--listen)")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// The server failed.
    #[error("the server for admission reviews stopped")]
    Serve {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A task that should never end has ended.
    #[error("{part} stopped unexpectedly")]
    Ended {
        /// The task.
        part: &'static str,
    },
}

/// Listens on the address for admission reviews; returns the address that was bound.
pub fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Runs the webhook until `stop`, and reports in `readiness` whether it can serve.
pub async fn run(
    client: Client,
    options: Options,
    listener: TcpListener,
    readiness: Readiness,
    clock: SharedClock,
    stop: CancellationToken,
) -> Result<(), Error> {
    let index = Arc::new(Index::default());
    let resolver = Resolver::new(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let Options { certificates, tls_names, config, limits, lame_duck, metrics } = options;
    metrics.watch(&resolver);
    let certificates = Box::pin(certificates.keep(client.clone(), tls_names, clock, Arc::clone(&resolver)));
    let lookup = Arc::new(LiveLookup::new(client.clone()));
    let accounts = config.compatibility.is_some().then(|| Arc::new(service_account_store::Index::default()));
    let with_source = |index| Accounts::new(index, Arc::new(LiveAccount::new(client.clone())));
    let admission = Admission::new(config, Arc::clone(&index), lookup, accounts.clone().map(with_source), metrics);
    let admission = Arc::new(admission);

    let serve = async {
        // Without a certificate every handshake would fail; until there is one, clients wait in the backlog.
        tokio::select! {
            () = resolver.loaded() => {}
            () = stop.cancelled() => return Ok(()),
        }
        let router = server::router(admission, limits);
        let resolver = Arc::clone(&resolver);
        let served = server::serve(listener, resolver, router, limits.connections, lame_duck, stop.clone()).await;
        served.map_err(|source| Error::Serve { source })
    };
    let report_readiness = async {
        tokio::join!(index.initialised(), service_account_store::initialised(accounts.as_deref()), resolver.loaded());
        if !stop.is_cancelled() {
            readiness.set(true);
            tracing::info!("ready");
        }
        stop.cancelled().await;
        readiness.set(false);
        std::future::pending::<()>().await;
    };
    // If any of them ends, so does the process. Only `serve` is meant to end, when `stop` is cancelled.
    tokio::select! {
        served = serve => served,
        () = Box::pin(service_account_store::run(client.clone(), accounts.clone())) => {
            Err(Error::Ended { part: "the watch of ServiceAccounts" })
        }
        () = Box::pin(binding_store::run(client, Arc::clone(&index))) => {
            Err(Error::Ended { part: "the watch of ManagedIdentityBindings" })
        }
        () = certificates => Err(Error::Ended { part: "the maintenance of the webhook's certificates" }),
        () = report_readiness => Ok(()),
    }
}

#[cfg(test)]
mod tests;
