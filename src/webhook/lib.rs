//! The admission webhook: stateless replicas that inject identities into pods, and never talk to Azure.
//!
//! ```text
//! API server ── AdmissionReview ──> server ─> admission ─> decide::admit
//!     │                               │          │
//!     │<── watch: bindings ───────────┼── cache ─┘ (a live list before a refusal: lookup)
//!     │<── watch: service accounts ───┼── accounts (in compatibility mode only)
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

/// What the webhook has to be told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where its certificates come from.
    pub certificates: Certificates,
    /// DNS names and addresses under which the API server reaches it.
    pub tls_names: Vec<String>,
    /// What pods get.
    pub config: Config,
    /// What clients may take.
    pub limits: RequestLimits,
    /// How long it goes on serving after it was told to stop, while whoever sends requests learns that.
    pub lame_duck: Duration,
    /// What is counted.
    pub metrics: WebhookMetrics,
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

/// Binds the address for admission reviews; returns the one that was bound.
pub fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Runs the webhook until `stop`, and says in `readiness` whether the API server may count on it.
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
    let kept = certificates.keep(client.clone(), tls_names, clock, Arc::clone(&resolver));
    let certificates = Box::pin(kept);
    let lookup = Arc::new(LiveLookup::new(client.clone()));
    let accounts = config.compatibility.is_some().then(|| Arc::new(service_account_store::Index::default()));
    let with = |index| Accounts::new(index, Arc::new(LiveAccount::new(client.clone())));
    let admission = Admission::new(config, Arc::clone(&index), lookup, accounts.clone().map(with), metrics);
    let admission = Arc::new(admission);

    let serve = async {
        // Without a certificate every handshake would fail; until there is one, callers wait in the backlog.
        tokio::select! {
            () = resolver.loaded() => {}
            () = stop.cancelled() => return Ok(()),
        }
        let router = server::router(admission, limits);
        let resolver = Arc::clone(&resolver);
        let served = server::serve(listener, resolver, router, limits.connections, lame_duck, stop.clone()).await;
        served.map_err(|source| Error::Serve { source })
    };
    let tell = async {
        tokio::join!(index.initialised(), service_account_store::initialised(accounts.as_deref()), resolver.loaded());
        if !stop.is_cancelled() {
            readiness.set(true);
            tracing::info!("ready");
        }
        stop.cancelled().await;
        readiness.set(false);
        std::future::pending::<()>().await;
    };
    // The end of any of them is the end of the process; only `serve` ends as it should, when `stop` is cancelled.
    tokio::select! {
        served = serve => served,
        () = Box::pin(service_account_store::run(client.clone(), accounts.clone())) => {
            Err(Error::Ended { part: "the watch of ServiceAccounts" })
        }
        () = Box::pin(binding_store::run(client, Arc::clone(&index))) => {
            Err(Error::Ended { part: "the watch of ManagedIdentityBindings" })
        }
        () = certificates => Err(Error::Ended { part: "the keeper of the webhook's certificates" }),
        () = tell => Ok(()),
    }
}

#[cfg(test)]
mod tests;
