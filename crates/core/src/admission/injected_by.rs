//! The annotation that records by what a pod was injected.
//!
//! ```text
//! value  = entry *("," entry) ["," "+" count]
//! entry  = source "=" identity
//! source = NAME                     a ManagedIdentityBinding of the pod's namespace
//!        | "ServiceAccount/" NAME   annotations of the service account, in compatibility mode
//! identity = "ManagedIdentity/" NAME | "Annotations" | "Overridden"
//! ```
//!
//! Object names contain none of the separators. The oldest binding comes first. `Overridden` means that the service
//! account sets a client ID too, and that a binding won. On a pod that was not injected, the annotation means nothing,
//! because anyone who may create pods may write it. It grants no rights.

use serde_json::{Value, json};

use super::binding::Binding;
use super::json_patch::{Addition, Content};
use super::pod::Pod;
use ensign_api::keys::INJECTED_BY_ANNOTATION;

/// Maximum number of entries; further ones are counted.
const MAX_ENTRIES: usize = 16;

/// The value of the annotation: what was injected, and what a binding overrode.
pub(super) fn value(used: &[&Binding], overridden: Option<&Binding>) -> String {
    let injected = used.iter().map(|binding| format!("{}={}", binding.name, binding.identity));
    let mut entries: Vec<String> =
        injected.chain(overridden.map(|binding| format!("{}=Overridden", binding.name))).collect();
    if entries.len() > MAX_ENTRIES {
        let more = entries.len() - MAX_ENTRIES;
        entries.truncate(MAX_ENTRIES);
        entries.push(format!("+{more}"));
    }
    entries.join(",")
}

/// Sets the annotation, unless it has the value already.
pub(super) fn set(pod: &Pod<'_>, value: String) -> Option<Addition> {
    let (path, value): (&[&str], Value) = match (pod.annotations(), pod.metadata.is_some()) {
        (Some(annotations), _) if annotations.injected_by.as_deref() == Some(&value) => return None,
        (Some(_), _) => (&["metadata", "annotations", INJECTED_BY_ANNOTATION], Value::String(value)),
        (None, true) => (&["metadata", "annotations"], json!({INJECTED_BY_ANNOTATION: value})),
        (None, false) => (&["metadata"], json!({"annotations": {INJECTED_BY_ANNOTATION: value}})),
    };
    Some(Addition::new(path, Content::Other(value)))
}
