//! What happens to a pod, given the bindings of its service account.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::binding::{Binding, BindingReadiness};
use super::config::Config;
use super::denial::{self, Denial};
use super::inject::{self, Identity};
use super::inject_label::{InjectLabel, is_exempt};
use super::json_patch::Addition;
use super::pod::Pod;
use super::{scheduling_gate, upstream_pod};
use ensign_api::InjectionMode;

/// What happens to the pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It is admitted unchanged.
    Allow {
        /// Warnings for the pod's creator.
        warnings: Vec<String>,
    },
    /// It is admitted with changes.
    Patch {
        /// The changes; never empty.
        operations: Vec<Addition>,
        /// Warnings for the pod's creator.
        warnings: Vec<String>,
        /// Whether the pod is gated until its identity is ready.
        gated: bool,
    },
    /// It is denied.
    Deny(Denial),
}

impl Decision {
    pub(super) fn leave_unchanged() -> Self {
        Self::Allow { warnings: Vec::new() }
    }
}

/// Decides about a pod of `namespace`, given every binding there for the pod's service account.
pub fn admit(pod: &Pod<'_>, namespace: &str, bindings: &[Arc<Binding>], config: &Config) -> Decision {
    if is_exempt(pod, namespace, config) {
        return Decision::leave_unchanged();
    }
    let is_required = InjectLabel::of(pod) == InjectLabel::Required;
    let matching = matching(pod, bindings);
    if let Some(waiting) = matching.iter().find(|binding| match binding.readiness {
        BindingReadiness::Unresolved { .. } => true,
        BindingReadiness::Pending => is_required,
        _ => false,
    }) {
        return Decision::Deny(denial::not_ready(waiting, namespace));
    }
    let identities: Vec<_> = matching.iter().filter_map(|binding| Identity::of(binding)).collect();
    let Some(first) = identities.first() else {
        return if !is_required {
            Decision::leave_unchanged()
        } else if let Some(binding) = matching.first() {
            Decision::Deny(denial::not_ready(binding, namespace))
        } else {
            let account = pod.service_account();
            let others =
                bindings.iter().map(AsRef::as_ref).filter(|binding| binding.service_account.as_ref() == account);
            Decision::Deny(denial::no_binding(namespace, account, others))
        };
    };
    let mut injection = match inject::inject(pod, &identities, config) {
        Ok(Some(injection)) => injection,
        Ok(None) if is_required => return Decision::Deny(denial::no_container(first.binding, namespace)),
        Ok(None) => return Decision::leave_unchanged(),
        Err(denial) => return Decision::Deny(denial),
    };
    let gated = scheduling_gate::gate(&mut injection, pod, &identities, config);
    let mut warnings = injection.warnings;
    if is_required || upstream_pod::asks(pod, namespace, config) {
        warnings.extend(matching.iter().filter_map(|binding| not_accepted(binding)));
    }
    inject::limit_warnings(&mut warnings);
    if injection.operations.is_empty() {
        Decision::Allow { warnings }
    } else {
        Decision::Patch { operations: injection.operations, warnings, gated }
    }
}

/// A warning if the binding is not accepted.
fn not_accepted(binding: &Binding) -> Option<String> {
    let BindingReadiness::NotAccepted { reason, .. } = &binding.readiness else { return None };
    Some(format!("ManagedIdentityBinding {:?} is not accepted ({reason}) and was not injected", binding.name))
}

/// The bindings that match the pod, oldest first.
fn matching<'b>(pod: &Pod<'_>, bindings: &'b [Arc<Binding>]) -> Vec<&'b Binding> {
    let service_account = pod.service_account();
    let mut matching: Vec<&Binding> = bindings
        .iter()
        .map(AsRef::as_ref)
        .filter(|binding| binding.service_account.as_ref() == service_account && binding.mode == InjectionMode::Pods)
        .filter(|binding| match (&binding.pod_selector, pod.labels()) {
            (None, _) => true,
            (Some(selector), Some(labels)) => selector.matches(labels),
            (Some(selector), None) => selector.matches(&BTreeMap::new()),
        })
        .collect();
    matching.sort_unstable_by(|one, other| one.seniority().cmp(&other.seniority()));
    matching
}
