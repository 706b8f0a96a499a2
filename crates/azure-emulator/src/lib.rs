//! The Azure emulator: ARM for user-assigned managed identities, Entra's token endpoint for workload identity
//! federation, data that requires a role, and `/_emulator/` to seed it, inspect it and inject faults.
//!
//! It speaks the real wire protocol over https, so that Microsoft's own clients work with it unpatched, and it returns
//! Azure's errors in Azure's words. [`state`] decides and does no I/O; `http` serves.
//!
//! ```text
//!             ┌ /subscriptions/… ─▶ state::arm ──┐
//! https ─▶ http ┤ /{tenant}/… ─────▶ state::entra ─┼─▶ State
//!             ├ /protected/… ───▶ state::protected ┤
//!             └ /_emulator/… ──────────────────┘
//! ```

mod certificates;
mod http;
mod options;
mod server;
pub mod state;

pub use http::faults::{Delay, FaultAction, FaultAnswer, FaultMatch, FaultRule, NamedAction, Stale};
pub use http::log::{LogEntry, LogFilter, LogKind};
pub use options::EmulatorOptions;
pub use server::{Emulator, EmulatorInfo, StartError};
