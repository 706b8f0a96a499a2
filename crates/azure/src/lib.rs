//! Azure: clouds, Ensign's own credential, and a rate-limited ARM client for identities, credentials and roles.

mod arm_url;
pub mod check;
pub mod client;
pub mod cloud;
pub mod credential;
pub mod error;
pub mod exchange;
mod gate;
mod http;
mod identities;
pub mod inventory;
mod listed_credential;
mod metrics;
pub mod own_role;
mod paging;
mod rate_limited;
mod response;
mod role_assignments;
mod token_refresh;
mod versions;

pub use client::ArmClient;
pub use cloud::Cloud;
pub use error::ArmError;
pub use http::{Connection, ConnectionError, ProxySettings, read_certificates};
pub use identities::WrittenIdentity;
pub use metrics::AzureMetrics;
pub use rate_limited::RateLimiter;
