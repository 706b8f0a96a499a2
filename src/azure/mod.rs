//! Azure: clouds, Ensign's own credential, and the ARM client for identities and their credentials.

pub mod arm;
pub mod cloud;
pub mod credential;
pub mod error;
mod renewal;
pub mod role;
mod transport;

pub use arm::ArmClient;
pub use cloud::Cloud;
pub use error::ArmError;
pub use transport::{Connection, ConnectionError, ProxySettings, read_certificates};
