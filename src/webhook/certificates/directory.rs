//! Certificates that somebody else keeps in files, for example cert-manager in a mounted Secret.
//!
//! The files are read every few seconds: a mounted Secret changes by a link to another directory, which watches of files
//! miss. What can't be served leaves what is served.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::bundle::{Bundle, CA_CERTIFICATE_KEY, CERTIFICATE_KEY, Fault, PRIVATE_KEY_KEY};
use super::resolver::Resolver;
use ensign_runtime::clock::{SharedClock, deadline};

/// A kubelet brings a changed Secret within a minute or two.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// The files can't be served.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// A file can't be read.
    #[error("cannot read {} (--tls-cert-dir)", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// They are no certificate that clients would accept.
    #[error("the certificates in {} can't be served", path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: Fault,
    },
}

/// Serves what is in one directory.
pub struct Directory {
    path: PathBuf,
    names: Vec<String>,
    clock: SharedClock,
    resolver: Arc<Resolver>,
    served: Option<Bundle>,
    said: String,
}

impl Directory {
    /// The directory with `tls.crt`, `tls.key` and `ca.crt`, which are to be for these names.
    pub fn new(path: PathBuf, names: Vec<String>, clock: SharedClock, resolver: Arc<Resolver>) -> Self {
        Self { path, names, clock, resolver, served: None, said: String::new() }
    }

    /// Works for as long as it is polled.
    pub async fn run(mut self) {
        loop {
            if let Err(error) = self.look().await {
                let (error, said): (&dyn std::error::Error, _) = (&error, format!("{error:?}"));
                // Files that are replaced one by one don't fit for a moment, and the same need not be said every time.
                if said != self.said {
                    tracing::error!(error, "what was served before is served on");
                    self.said = said;
                }
            }
            self.clock.sleep_until(deadline(self.clock.as_ref(), LOOK_INTERVAL)).await;
        }
    }

    /// Serves what the files hold, if it can be served.
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
            tracing::warn!(%fault, directory = %self.path.display(), "certificates are not for every name (--tls-san)");
        }
        self.resolver.load(&usable);
        self.served = Some(bundle);
        self.said.clear();
        tracing::info!(directory = %self.path.display(), "webhook certificate loaded");
        Ok(())
    }

    async fn read(&self, file: &str) -> Result<Vec<u8>, DirectoryError> {
        let path = Path::new(&self.path).join(file);
        tokio::fs::read(&path).await.map_err(|source| DirectoryError::Read { path, source })
    }
}
