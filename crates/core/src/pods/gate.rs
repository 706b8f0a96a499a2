//! When a pod may start: admission holds it by this, and the controller lets it go by this.
//!
//! A pod is held by the bindings that injected it; the annotation that injection wrote names them. Tenants can change
//! that annotation, and they can remove the gate as well: holding is a convenience, not a boundary. What counts in
//! the end is that nothing strands a pod, so that a binding that can't hold it any more lets it go, with a word.

use kube::ResourceExt;

use crate::events::Event;
use ensign_api::conditions::{ConditionType, Reason, Severity, find, is_true};
use ensign_api::keys::IDENTITY_GATE;
use ensign_api::{ManagedIdentityBinding, StartPolicy};

/// Whether pods of a binding may start, as far as its status tells. The controller decided there when the identity works:
/// Azure has confirmed the credential, and it has settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At once, whatever their identity does.
    AtOnce,
    /// Not yet: the identity does not work.
    Waits,
    /// Their identity works.
    Works,
}

impl Start {
    /// Reads the binding.
    pub fn of(binding: &ManagedIdentityBinding) -> Self {
        let conditions = binding.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        if is_true(conditions, ConditionType::CredentialReady) {
            return Self::Works;
        }
        match binding.spec.injection.start_policy {
            StartPolicy::Immediate => Self::AtOnce,
            StartPolicy::WaitForIdentity => Self::Waits,
        }
    }
}

/// What becomes of a held pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lifting {
    /// Its gate is lifted.
    Lift {
        /// Why, where that is not because its identity works.
        notes: Vec<Event>,
    },
    /// It goes on waiting, until a binding changes.
    Wait {
        /// What for, one note for each reason.
        notes: Vec<Event>,
    },
}

impl Lifting {
    /// Whether the pod starts because its identity works.
    pub fn is_earned(&self) -> bool {
        matches!(self, Self::Lift { notes } if notes.is_empty())
    }
}

/// A binding that injected a pod, as the pod's annotation names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InjectedBinding<'a> {
    /// Name of the binding.
    pub binding: &'a str,
    /// The identity, as `kind/name`.
    pub identity: &'a str,
}

/// Reads the annotation that injection wrote; what it does not mean is skipped.
pub fn claims(injected_by: &str) -> impl Iterator<Item = InjectedBinding<'_>> {
    injected_by
        .split(',')
        .filter_map(|claim| claim.split_once('='))
        .map(|(binding, identity)| InjectedBinding { binding, identity })
}

/// Decides about a pod that has the gate, given its annotation and the bindings of its namespace by name.
pub fn lifting<'b>(injected_by: Option<&str>, binding: impl Fn(&str) -> Option<&'b ManagedIdentityBinding>) -> Lifting {
    let (mut lost, mut waiting) = (Vec::new(), Vec::new());
    let mut claims = claims(injected_by.unwrap_or_default()).peekable();
    if claims.peek().is_none() {
        lost.push(note(Reason::StartedWithoutIdentity, unclaimed()));
    }
    for claim in claims {
        match standing(&claim, binding(claim.binding)) {
            BindingState::Open => {}
            BindingState::Lost(note) => lost.push(note),
            BindingState::Waiting(note) => waiting.push(note),
        }
    }
    if waiting.is_empty() {
        Lifting::Lift { notes: by_reason(lost) }
    } else {
        Lifting::Wait { notes: by_reason(waiting) }
    }
}

/// How a binding stands to a pod that it injected.
enum BindingState {
    Open,
    Waiting(Event),
    Lost(Event),
}

fn standing(claim: &InjectedBinding<'_>, binding: Option<&ManagedIdentityBinding>) -> BindingState {
    let name = claim.binding;
    let lost = |why: String| BindingState::Lost(note(Reason::StartedWithoutIdentity, why));
    let Some(binding) = binding.filter(|binding| identity_of(binding) == claim.identity) else {
        return lost(format!(
            "the pod starts without its identity: ManagedIdentityBinding {name}, which injected it, is gone, and Entra will refuse its token. Make the binding again, and then the pod"
        ));
    };
    if binding.metadata.deletion_timestamp.is_some() {
        return lost(format!(
            "the pod starts without its identity: ManagedIdentityBinding {name}, which injected it, is being deleted, and Entra will refuse its token. Make another binding, and then the pod again"
        ));
    }
    let conditions = binding.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    if let Some(accepted) = find(conditions, ConditionType::Accepted).filter(|accepted| accepted.status == "False") {
        return lost(format!(
            "the pod starts without its identity: ManagedIdentityBinding {name}, which injected it, is not accepted any more ({}), and Entra will refuse its token: {}",
            accepted.reason, accepted.message
        ));
    }
    match Start::of(binding) {
        Start::Works => BindingState::Open,
        Start::AtOnce => lost(format!(
            "the pod starts at once, as spec.injection.startPolicy of ManagedIdentityBinding {name} says; its identity may not work yet"
        )),
        Start::Waits => BindingState::Waiting(waiting(binding)),
    }
}

/// What keeps the identity from working is what the binding says of itself.
fn waiting(binding: &ManagedIdentityBinding) -> Event {
    let name = binding.name_any();
    let conditions = binding.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let ready = find(conditions, ConditionType::Ready).filter(|ready| ready.status != "True");
    let (reason, why) = match ready {
        Some(ready) => {
            (Reason::named(&ready.reason).unwrap_or(Reason::Pending), format!("{}: {}", ready.reason, ready.message))
        }
        None => (Reason::Pending, "the controller has not looked at it yet".to_owned()),
    };
    let message = match reason.severity() {
        Severity::Terminal => format!(
            "the pod is held, and somebody has to act: ManagedIdentityBinding {name} gets no credential ({why}). Once that is cured the pod starts by itself; with spec.injection.startPolicy: Immediate in the binding it starts without"
        ),
        _ => format!(
            "the pod is held until the identity of ManagedIdentityBinding {name} works ({why}); then it starts by itself"
        ),
    };
    note(reason, message)
}

fn unclaimed() -> String {
    format!(
        "the pod starts: no ManagedIdentityBinding injected it, so that nothing holds it back. The scheduling gate {IDENTITY_GATE} is Ensign's own; do not set it"
    )
}

/// The identity of a binding, as the annotation names it.
fn identity_of(binding: &ManagedIdentityBinding) -> String {
    let reference = &binding.spec.identity_ref;
    format!("{}/{}", reference.kind.as_str(), reference.name)
}

fn note(reason: Reason, message: String) -> Event {
    Event { reason, message }
}

/// One note for each reason, in the order in which they came.
fn by_reason(notes: Vec<Event>) -> Vec<Event> {
    let mut merged: Vec<Event> = Vec::with_capacity(notes.len());
    for note in notes {
        match merged.iter_mut().find(|known| known.reason == note.reason) {
            Some(known) => known.message = format!("{}; {}", known.message, note.message),
            None => merged.push(note),
        }
    }
    merged
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
