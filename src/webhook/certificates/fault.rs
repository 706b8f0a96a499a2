//! What can be wrong with certificates.

use ensign_core::scheduling::ca_rotation::RENEW_LEAF_BEFORE;

/// Why certificates can't be served, or should be replaced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// An entry is missing or not PEM.
    #[error("its entry {entry} is missing or not PEM")]
    Unreadable {
        /// The entry.
        entry: &'static str,
    },
    /// The key is not that of the leaf.
    #[error("its tls.key does not belong to tls.crt")]
    KeyMismatch,
    /// The leaf is not signed by a CA that clients trust.
    #[error("its tls.crt is not signed by ca.crt")]
    NotSigned,
    /// The leaf has expired, or is not valid yet.
    #[error("its tls.crt is not valid at this time")]
    NotValidNow,
    /// Every CA has expired, or is not valid yet.
    #[error("its ca.crt is not valid at this time")]
    AuthorityNotValidNow,
    /// The leaf is not valid for a name that clients use.
    #[error("its tls.crt is not valid for {name}")]
    LacksName {
        /// The name.
        name: String,
    },
    /// The leaf expires soon.
    #[error("its tls.crt expires in less than {} days", RENEW_LEAF_BEFORE.as_secs() / (24 * 60 * 60))]
    EndsSoon,
    /// The leaf is rejected for another reason.
    #[error("its tls.crt is rejected: {why}")]
    Refused {
        /// The verifier's error.
        why: String,
    },
}
