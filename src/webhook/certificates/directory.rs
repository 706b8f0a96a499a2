//! Certificates in files that something else maintains, for example cert-manager in a mounted Secret.
//!
//! The files are polled: a mounted Secret changes by a symbolic link to another directory, which file watches miss. If the
//! files can't be served, the previous certificate stays in use.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::bundle::{Bundle, CA_CERTIFICATE_KEY, CERTIFICATE_KEY, PRIVATE_KEY_KEY};
use super::fault::Fault;
use super::resolver::Resolver;
use ensign_runtime::clock::{SharedClock, deadline};

/// A kubelet updates a mounted Secret within a minute or two.
const POLL_INTERVAL: Duration = Duration::from_secs(10);

/// The files can't be served.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// A file can't be read.
    #[error("cannot read {} (--tls-cert-dir)", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// Clients would not accept them.
    #[error("cannot serve the certificates in {} (--tls-cert-dir)", path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: Fault,
    },
}

/// Serves the certificate in a directory.
pub struct Directory {
    path: PathBuf,
    names: Vec<String>,
    clock: SharedClock,
    resolver: Arc<Resolver>,
    served: Option<Bundle>,
    /// The last error in the log.
    logged: String,
}

impl Directory {
    /// The directory with `tls.crt`, `tls.key` and `ca.crt`, which should be valid for these names.
    pub fn new(path: PathBuf, names: Vec<String>, clock: SharedClock, resolver: Arc<Resolver>) -> Self {
        Self { path, names, clock, resolver, served: None, logged: String::new() }
    }

    /// Follows the files for as long as it is polled.
    pub async fn run(mut self) {
        loop {
            if let Err(error) = self.look().await {
                let (error, text): (&dyn std::error::Error, _) = (&error, format!("{error:?}"));
                // Files that are replaced one by one don't match for a moment. The same error is logged once.
                if text != self.logged {
                    tracing::error!(error, "cannot load the webhook's certificate; keeping the previous one");
                    self.logged = text;
                }
            }
            self.clock.sleep_until(deadline(self.clock.as_ref(), POLL_INTERVAL)).await;
        }
    }

    /// Reads the files and serves them if possible.
    pub async fn look(&mut self) -> Result<(), DirectoryError> {
        let (ca, certificate, key) =
            tokio::try_join!(self.read(CA_CERTIFICATE_KEY), self.read(CERTIFICATE_KEY), self.read(PRIVATE_KEY_KEY))?;
        let bundle = Bundle::of_others(ca, certificate, key);
        if self.served.as_ref() == Some(&bundle) {
            return Ok(());
        }
        let usable = bundle.check(&self.names, self.clock.now(), self.resolver.provider());
        let usable = usable.map_err(|source| DirectoryError::Unusable { path: self.path.clone(), source })?;
        if let Some(fault @ Fault::LacksName { .. }) = &usable.wanting {
            tracing::warn!(%fault, directory = %self.path.display(), "the certificate is not valid for every name (--tls-san)");
        }
        self.resolver.load(&usable);
        self.served = Some(bundle);
        self.logged.clear();
        tracing::info!(directory = %self.path.display(), "webhook certificate loaded");
        Ok(())
    }

    async fn read(&self, file: &str) -> Result<Vec<u8>, DirectoryError> {
        let path = Path::new(&self.path).join(file);
        tokio::fs::read(&path).await.map_err(|source| DirectoryError::Read { path, source })
    }
}
