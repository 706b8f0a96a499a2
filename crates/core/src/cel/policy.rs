//! An admission policy as an object.

use serde_json::{Value, json};

/// A kind of admission policy, of `admissionregistration.k8s.io/v1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyKind {
    /// `MutatingAdmissionPolicy`.
    Mutating,
    /// `ValidatingAdmissionPolicy`.
    Validating,
}

impl PolicyKind {
    /// The kind's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mutating => "MutatingAdmissionPolicy",
            Self::Validating => "ValidatingAdmissionPolicy",
        }
    }

    /// The kind's plural, as in URLs.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Mutating => "mutatingadmissionpolicies",
            Self::Validating => "validatingadmissionpolicies",
        }
    }

    /// The kind of its policy bindings.
    pub fn binding(self) -> &'static str {
        match self {
            Self::Mutating => "MutatingAdmissionPolicyBinding",
            Self::Validating => "ValidatingAdmissionPolicyBinding",
        }
    }

    /// The plural of [`Self::binding`], as in URLs.
    pub fn binding_plural(self) -> &'static str {
        match self {
            Self::Mutating => "mutatingadmissionpolicybindings",
            Self::Validating => "validatingadmissionpolicybindings",
        }
    }
}

/// An admission policy in its desired state.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Its kind.
    pub kind: PolicyKind,
    /// Its name.
    pub name: &'static str,
    /// Its spec, with every default set explicitly, so that it can be compared with what is read back.
    pub spec: Value,
}

impl Policy {
    /// The policy as an object.
    pub fn object(&self) -> Value {
        object(self.kind.as_str(), self.name, &self.spec)
    }
}

/// An object of `admissionregistration.k8s.io/v1`.
pub(super) fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    })
}
