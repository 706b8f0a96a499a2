//! Admission of a pod: inject identities, leave it alone, or refuse it.
//!
//! | The pod's matching binding | unlabelled | label `ensign.dev/inject: "true"` |
//! |---|---|---|
//! | accepted, client ID known | inject | inject |
//! | accepted, client ID not known | refuse | refuse |
//! | not judged yet | leave alone | refuse |
//! | not accepted, or none | leave alone | refuse |
//!
//! An injected pod whose identity does not work yet is held, unless its binding says `startPolicy: Immediate`
//! ([`hold`]).
//!
//! Label `"false"` opts out. With several matching bindings each one adds its client ID: one that waits for its
//! identity refuses the pod as above, one that is not accepted stands back with a warning as long as another injects.

pub mod azure_workload_identity;
mod binding;
pub(crate) mod denial;
mod inject;
mod injected_by;
mod json_patch;
mod pod;
mod scheduling_gate;
mod token_volume;

use std::collections::BTreeSet;
use std::sync::Arc;

use self::azure_workload_identity::Compatibility;
pub use self::binding::{Binding, BindingReadiness};
pub use self::denial::{Denial, DenialCode};
use self::inject::Identity;
pub use self::json_patch::Addition;
pub use self::pod::{Pod, Text};
use ensign_api::InjectionMode;
use ensign_api::keys::INJECT_LABEL;

/// What every injected pod of this install shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Entra authority for `AZURE_AUTHORITY_HOST`, with its trailing slash.
    pub authority_host: String,
    /// Audience of the projected token.
    pub audience: String,
    /// Namespaces whose pods are never touched.
    pub excluded: BTreeSet<String>,
    /// Pods of azure-workload-identity are injected too.
    pub compatibility: Option<Compatibility>,
    /// Pods wait for their identity before they start.
    pub hold: bool,
}

/// What happens to the pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It is admitted as it is.
    Allow {
        /// What its creator should know.
        warnings: Vec<String>,
    },
    /// It is admitted with changes.
    Patch {
        /// The changes; never empty.
        operations: Vec<Addition>,
        /// What its creator should know.
        warnings: Vec<String>,
        /// Whether it waits for its identity.
        held: bool,
    },
    /// It is refused.
    Refuse(Denial),
}

impl Decision {
    fn leave_alone() -> Self {
        Self::Allow { warnings: Vec::new() }
    }
}

/// What the pod's label asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To be injected, or refused.
    Guaranteed,
    /// To be injected where a binding matches.
    IfMatched,
    /// To be left alone.
    OptOut,
}

impl Wish {
    /// Reads the label; values other than `true` and `false` mean nothing.
    pub fn of(pod: &Pod<'_>) -> Self {
        match pod.labels().and_then(|labels| labels.get(INJECT_LABEL)).map(String::as_str) {
            Some("true") => Self::Guaranteed,
            Some("false") => Self::OptOut,
            _ => Self::IfMatched,
        }
    }
}

/// Whether bindings have no say: the pod opted out, its namespace is excluded, or it mirrors a static pod.
pub fn is_exempt(pod: &Pod<'_>, namespace: &str, config: &Config) -> bool {
    config.excluded.contains(namespace)
        || Wish::of(pod) == Wish::OptOut
        || pod.annotations().is_some_and(|annotations| annotations.mirror)
}

/// Decides about a pod of `namespace`, given every binding there for the pod's service account.
pub fn admit(pod: &Pod<'_>, namespace: &str, bindings: &[Arc<Binding>], config: &Config) -> Decision {
    if is_exempt(pod, namespace, config) {
        return Decision::leave_alone();
    }
    let guaranteed = Wish::of(pod) == Wish::Guaranteed;
    let matching = matching(pod, bindings);
    if let Some(waiting) = matching.iter().find(|binding| match binding.standing {
        BindingReadiness::Unresolved { .. } => true,
        BindingReadiness::Pending => guaranteed,
        _ => false,
    }) {
        return Decision::Refuse(denial::unfit(waiting, namespace));
    }
    let identities: Vec<_> = matching.iter().filter_map(|binding| Identity::of(binding)).collect();
    let Some(first) = identities.first() else {
        return if !guaranteed {
            Decision::leave_alone()
        } else if let Some(binding) = matching.first() {
            Decision::Refuse(denial::unfit(binding, namespace))
        } else {
            let account = pod.service_account();
            let others =
                bindings.iter().map(AsRef::as_ref).filter(|binding| binding.service_account.as_ref() == account);
            Decision::Refuse(denial::no_binding(namespace, account, others))
        };
    };
    let mut injection = match inject::inject(pod, &identities, config) {
        Ok(Some(injection)) => injection,
        Ok(None) if guaranteed => return Decision::Refuse(denial::no_container(first.binding, namespace)),
        Ok(None) => return Decision::leave_alone(),
        Err(refusal) => return Decision::Refuse(refusal),
    };
    let held = scheduling_gate::hold(&mut injection, pod, &identities, config);
    let mut warnings = injection.warnings;
    if guaranteed || azure_workload_identity::asks(pod, namespace, config) {
        warnings.extend(matching.iter().filter_map(|binding| match &binding.standing {
            BindingReadiness::NotAccepted { reason, .. } => Some(format!(
                "ManagedIdentityBinding {:?} is not accepted ({reason}) and was not injected",
                binding.name
            )),
            _ => None,
        }));
    }
    inject::bound_warnings(&mut warnings);
    if injection.operations.is_empty() {
        Decision::Allow { warnings }
    } else {
        Decision::Patch { operations: injection.operations, warnings, held }
    }
}

/// The bindings that mean the pod, the senior first.
fn matching<'b>(pod: &Pod<'_>, bindings: &'b [Arc<Binding>]) -> Vec<&'b Binding> {
    let service_account = pod.service_account();
    let mut matching: Vec<&Binding> = bindings
        .iter()
        .map(AsRef::as_ref)
        .filter(|binding| binding.service_account.as_ref() == service_account && binding.mode == InjectionMode::Pods)
        .filter(|binding| match (&binding.pod_selector, pod.labels()) {
            (None, _) => true,
            (Some(selector), Some(labels)) => selector.matches(labels),
            (Some(selector), None) => selector.matches(&std::collections::BTreeMap::new()),
        })
        .collect();
    matching.sort_unstable_by(|one, other| one.seniority().cmp(&other.seniority()));
    matching
}

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod scheduling_gate_tests;
#[cfg(test)]
mod tests;
