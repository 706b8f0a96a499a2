//! The annotation that says by what a pod was injected.
//!
//! ```text
//! value  = entry *("," entry) ["," "+" count]
//! entry  = source "=" identity
//! source = NAME                     a ManagedIdentityBinding of the pod's namespace
//!        | "ServiceAccount/" NAME   annotations of the service account, in compatibility mode
//! identity = "ManagedIdentity/" NAME | "Annotations" | "Overridden"
//! ```
//!
//! Names of objects have none of the separators. The senior binding comes first. `Overridden` says that the service
//! account names a client ID too, and that a binding won. It is for people: nothing of Ensign relies on it, because on a
//! pod that was not injected anybody may have written it.

use serde_json::{Value, json};

use super::binding::Binding;
use super::json_patch::{Addition, Content};
use super::pod::Pod;
use ensign_api::keys::INJECTED_BY_ANNOTATION;

/// How many entries are written out.
const MAX_ENTRIES: usize = 16;

/// The value of the annotation: what injected, and what a binding overrode.
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

/// What sets the annotation right, unless it is.
pub(super) fn set(pod: &Pod<'_>, value: String) -> Option<Addition> {
    let (path, value): (&[&str], Value) = match (pod.annotations(), pod.metadata.is_some()) {
        (Some(annotations), _) if annotations.injected_by.as_deref() == Some(&value) => return None,
        (Some(_), _) => (&["metadata", "annotations", INJECTED_BY_ANNOTATION], Value::String(value)),
        (None, true) => (&["metadata", "annotations"], json!({INJECTED_BY_ANNOTATION: value})),
        (None, false) => (&["metadata"], json!({"annotations": {INJECTED_BY_ANNOTATION: value}})),
    };
    Some(Addition::new(path, Content::Other(value)))
}
