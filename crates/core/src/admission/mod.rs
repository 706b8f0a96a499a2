//! Admission of a pod: inject identities, leave the pod unchanged, or deny it.
//!
//! | The pod's matching binding | unlabelled | label `ensign.dev/inject: "true"` |
//! |---|---|---|
//! | accepted, client ID known | inject | inject |
//! | accepted, client ID not known | deny | deny |
//! | not evaluated yet | leave unchanged | deny |
//! | not accepted, or none | leave unchanged | deny |
//!
//! An injected pod whose identity is not ready is gated, unless its binding sets `startPolicy: Immediate`
//! (`scheduling_gate`).
//!
//! Label `"false"` opts out. With several matching bindings, each one adds its client ID: one that waits for its identity
//! denies the pod as above, and one that is not accepted is skipped with a warning if another one injects.

pub mod azure_workload_identity;
mod binding;
mod config;
mod decision;
pub(crate) mod denial;
mod inject;
mod inject_label;
mod injected_by;
mod injection;
mod json_patch;
mod pod;
mod scheduling_gate;
mod token_volume;
mod upstream_keys;
mod upstream_pod;

pub use self::binding::{Binding, BindingReadiness};
pub use self::config::Config;
pub use self::decision::{Decision, admit};
pub use self::denial::{Denial, DenialCode};
pub use self::inject_label::{InjectLabel, is_exempt};
pub use self::json_patch::Addition;
pub use self::pod::{Pod, Text};
pub(crate) use self::upstream_keys::VOLUME_PREFIX;

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod scheduling_gate_tests;
#[cfg(test)]
mod tests;
