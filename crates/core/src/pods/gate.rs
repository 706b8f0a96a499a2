//! When a pod may start: admission gates it and the controller removes the gate by the same rule.
//!
//! A pod is gated by the bindings that injected it, which the annotation written at injection lists. Tenants can change
//! that annotation, and can remove the gate too: gating is a convenience, not a security boundary. Most of all, no pod may
//! stay gated forever, so a binding that can no longer become ready removes the gate, with an event.

use kube::ResourceExt;

use crate::events::Event;
use ensign_api::conditions::{ConditionType, Reason, Severity, find, is_true};
use ensign_api::keys::IDENTITY_GATE;
use ensign_api::{ManagedIdentityBinding, StartPolicy};

/// Whether pods of a binding may start, according to its status. `CredentialReady` is true once Azure has confirmed the
/// federated identity credential and the propagation delay has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Immediately: the identity is not ready, and the binding does not require it to be.
    Immediate,
    /// Not yet: the identity is not ready.
    WaitForIdentity,
    /// The identity is ready.
    IdentityReady,
}

impl Start {
    /// Reads the binding.
    pub fn of(binding: &ManagedIdentityBinding) -> Self {
        let conditions = binding.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        if is_true(conditions, ConditionType::CredentialReady) {
            return Self::IdentityReady;
        }
        match binding.spec.injection.start_policy {
            StartPolicy::Immediate => Self::Immediate,
            StartPolicy::WaitForIdentity => Self::WaitForIdentity,
        }
    }
}

/// What happens to a gated pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GateDecision {
    /// Its gate is removed.
    Remove {
        /// Why, unless it is because its identity is ready.
        events: Vec<Event>,
    },
    /// It stays gated until a binding changes.
    Wait {
        /// What it waits for; one event for each reason.
        events: Vec<Event>,
    },
}

impl GateDecision {
    /// Whether the gate is removed because the pod's identity is ready.
    pub fn is_identity_ready(&self) -> bool {
        matches!(self, Self::Remove { events } if events.is_empty())
    }
}

/// A binding that injected a pod, according to the pod's annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InjectedBinding<'a> {
    /// Name of the binding.
    pub binding: &'a str,
    /// The identity, as `kind/name`.
    pub identity: &'a str,
}

/// Parses the annotation that injection wrote. Entries without `=` are skipped.
pub fn injected_bindings(injected_by: &str) -> impl Iterator<Item = InjectedBinding<'_>> {
    injected_by
        .split(',')
        .filter_map(|claim| claim.split_once('='))
        .map(|(binding, identity)| InjectedBinding { binding, identity })
}

/// Decides about a pod that has the gate, given its annotation and the bindings of its namespace by name.
pub fn decide<'b>(
    injected_by: Option<&str>,
    binding: impl Fn(&str) -> Option<&'b ManagedIdentityBinding>,
) -> GateDecision {
    let (mut lost, mut waiting) = (Vec::new(), Vec::new());
    let mut injected = injected_bindings(injected_by.unwrap_or_default()).peekable();
    if injected.peek().is_none() {
        lost.push(event(Reason::StartedWithoutIdentity, not_injected()));
    }
    for one in injected {
        match state(&one, binding(one.binding)) {
            BindingState::Ready => {}
            BindingState::Lost(event) => lost.push(event),
            BindingState::Waiting(event) => waiting.push(event),
        }
    }
    if waiting.is_empty() {
        GateDecision::Remove { events: by_reason(lost) }
    } else {
        GateDecision::Wait { events: by_reason(waiting) }
    }
}

/// Whether a binding gates a pod that it injected.
enum BindingState {
    /// Its identity is ready.
    Ready,
    /// It gates the pod.
    Waiting(Event),
    /// Its identity is not ready, and it does not gate the pod.
    Lost(Event),
}

fn state(claim: &InjectedBinding<'_>, binding: Option<&ManagedIdentityBinding>) -> BindingState {
    let name = claim.binding;
    let lost = |why: String| BindingState::Lost(event(Reason::StartedWithoutIdentity, why));
    let Some(binding) = binding.filter(|binding| identity_of(binding) == claim.identity) else {
        return lost(format!(
            "the pod starts without its identity: ManagedIdentityBinding {name}, which injected it, was deleted, and Entra will reject its token. Recreate the binding, and then the pod"
        ));
    };
    if binding.metadata.deletion_timestamp.is_some() {
        return lost(format!(
            "the pod starts without its identity: ManagedIdentityBinding {name}, which injected it, is being deleted, and Entra will reject its token. Create another binding, and then recreate the pod"
        ));
    }
    let conditions = binding.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    if let Some(accepted) = find(conditions, ConditionType::Accepted).filter(|accepted| accepted.status == "False") {
        return lost(format!(
            "the pod starts without its identity: ManagedIdentityBinding {name}, which injected it, is no longer accepted ({}), and Entra will reject its token: {}",
            accepted.reason, accepted.message
        ));
    }
    match Start::of(binding) {
        Start::IdentityReady => BindingState::Ready,
        Start::Immediate => lost(format!(
            "the pod starts immediately, as spec.injection.startPolicy of ManagedIdentityBinding {name} requests; its identity may not work yet"
        )),
        Start::WaitForIdentity => BindingState::Waiting(waiting(binding)),
    }
}

/// What the pod waits for, from the binding's `Ready` condition.
fn waiting(binding: &ManagedIdentityBinding) -> Event {
    let name = binding.name_any();
    let conditions = binding.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let ready = find(conditions, ConditionType::Ready).filter(|ready| ready.status != "True");
    let (reason, why) = match ready {
        Some(ready) => {
            (Reason::named(&ready.reason).unwrap_or(Reason::Pending), format!("{}: {}", ready.reason, ready.message))
        }
        None => (Reason::Pending, "the controller has not evaluated it yet".to_owned()),
    };
    let message = match reason.severity() {
        Severity::Terminal => format!(
            "the pod is gated, and someone has to act: ManagedIdentityBinding {name} gets no credential ({why}). Once that is fixed, the pod starts automatically; with spec.injection.startPolicy: Immediate in the binding, it starts without it"
        ),
        _ => format!(
            "the pod is gated until the identity of ManagedIdentityBinding {name} is ready ({why}); then it starts automatically"
        ),
    };
    event(reason, message)
}

fn not_injected() -> String {
    format!(
        "the pod starts: no ManagedIdentityBinding injected it, so nothing gates it. The scheduling gate {IDENTITY_GATE} is reserved for Ensign; do not set it"
    )
}

/// The identity of a binding, in the annotation's format.
fn identity_of(binding: &ManagedIdentityBinding) -> String {
    let reference = &binding.spec.identity_ref;
    format!("{}/{}", reference.kind.as_str(), reference.name)
}

fn event(reason: Reason, message: String) -> Event {
    Event { reason, message }
}

/// Merges events with the same reason, in their order.
fn by_reason(events: Vec<Event>) -> Vec<Event> {
    let mut merged: Vec<Event> = Vec::with_capacity(events.len());
    for event in events {
        match merged.iter_mut().find(|known| known.reason == event.reason) {
            Some(known) => known.message = format!("{}; {}", known.message, event.message),
            None => merged.push(event),
        }
    }
    merged
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
