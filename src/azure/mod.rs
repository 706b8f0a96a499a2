//! Azure: clouds, Ensign's own credential, and the ARM client for identities and their credentials, at its own pace.

pub mod arm;
pub mod cloud;
pub mod credential;
pub mod error;
mod identities;
mod pace;
mod renewal;
pub mod role;
mod transport;

pub use arm::ArmClient;
pub use cloud::Cloud;
pub use error::ArmError;
pub use pace::Pace;
pub use transport::{Connection, ConnectionError, ProxySettings, read_certificates};
