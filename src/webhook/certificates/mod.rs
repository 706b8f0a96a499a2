//! Certificates that the webhook makes itself and shares among its replicas in a Secret.
//!
//! The Secret is made empty by whoever installs Ensign; a replica fills it with `update`, so that of several one wins
//! and the others take over what it wrote. The controller copies `ca.crt` into the webhook's registration.

mod bundle;
mod keeper;
mod resolver;

pub use self::bundle::{
    Bundle, CA_CERTIFICATE_KEY, CA_PRIVATE_KEY_KEY, CERTIFICATE_KEY, Fault, IssueError, PRIVATE_KEY_KEY, Usable,
};
pub use self::keeper::{Keeper, KeeperError};
pub use self::resolver::Resolver;

#[cfg(test)]
mod tests;
