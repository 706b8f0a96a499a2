//! Where the webhook's certificates come from.
//!
//! Either its own: replicas issue them and share them in a Secret. The installation creates it empty and a replica fills it
//! with `update`, so that one replica wins and the others use what it wrote. The controller copies `ca.crt` into the webhook
//! configuration. Or external ones, in that Secret or in files.

mod bundle;
mod directory;
mod fault;
mod issue;
mod keeper;
mod resolver;
mod trusted_ca;

use std::path::PathBuf;
use std::sync::Arc;

use kube::Client;

pub use self::bundle::{
    Bundle, CA_CERTIFICATE_KEY, CA_PRIVATE_KEY_KEY, CERTIFICATE_KEY, NEXT_CA_PRIVATE_KEY_KEY, PRIVATE_KEY_KEY, Usable,
};
pub use self::directory::{Directory, DirectoryError};
pub use self::fault::Fault;
pub use self::issue::IssueError;
pub use self::keeper::{Keeper, KeeperError, SharedSecret};
pub use self::resolver::{Expiry, Resolver};
pub use self::trusted_ca::TrustError;
use ensign_runtime::clock::SharedClock;

/// Where the webhook's certificates come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certificates {
    /// A Secret that the replicas fill.
    Shared(SharedSecret),
    /// Files that are maintained by something else.
    Directory(PathBuf),
}

impl Certificates {
    /// Keeps a certificate loaded in the resolver for as long as it is polled.
    pub async fn keep(self, client: Client, names: Vec<String>, clock: SharedClock, resolver: Arc<Resolver>) {
        match self {
            Self::Shared(secret) => Keeper::new(client, secret, names, clock, resolver).run().await,
            Self::Directory(path) => Directory::new(path, names, clock, resolver).run().await,
        }
    }
}

#[cfg(test)]
mod tests;
