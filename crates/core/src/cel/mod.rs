//! Injection without a webhook: admission policies that the API server evaluates itself, with bindings as parameters.
//!
//! ```text
//!                          unlabelled pods of                pods with the opt-in label,
//!                          namespaces that grants cover      everywhere
//!   mutating               pods.ensign.dev                   labelled-pods.ensign.dev
//!   validating             pods.ensign.dev                   labelled-pods.ensign.dev
//!   validating, no params                                    injected-pods.ensign.dev
//!   mutating, no params      probe.ensign.dev, for dry runs of Ensign's own
//! ```
//!
//! The first row injects (`mutation`), once for each ready binding. The second row denies what the webhook would deny,
//! with the same messages (`validation`). The third row enforces the opt-in label in namespaces without a binding, where
//! the API server does not evaluate a policy with parameters. The last row reports which version of the policies is
//! evaluated (`probe`).
//!
//! The installer creates the policy bindings, which never change and without which a policy has no effect. The controller
//! creates the policies, fills them in and empties them again. Where it may not create them, the installer creates them
//! [`inert`](Form::Inert). The selectors are in the policies, not in their bindings, because a policy whose parameter kind
//! does not exist denies every pod that *it* matches.

mod already_injected;
mod api_server;
mod literals;
mod mode;
mod mutation;
mod policies;
mod policy;
mod predicates;
mod probe;
mod validation;

pub use self::api_server::{Served, shortfall};
pub use self::mode::{Choice, Mode, mode};
pub use self::policies::{Form, OUTCOME_POLICY, bindings, differs, inert, policies};
pub use self::policy::{Policy, PolicyKind};
pub use self::probe::{PROBE_LABEL, PROBE_POLICY, PROBE_QUESTION, mark};

#[cfg(test)]
mod tests;
