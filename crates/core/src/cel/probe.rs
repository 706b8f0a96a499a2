//! A policy that says of itself which version of the policies the API server evaluates.
//!
//! An API server takes a change of its policies in about once a second, all of a kind at a time and in the order in which
//! they were written. The probe is written last. It answers to dry runs alone: an event of Ensign's own namespace with a
//! certain label, which is never stored, comes back with a mark that only these policies have.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{NAMESPACE_NAME_LABEL, Policy};
use crate::credentials::names::hex;

/// Name of the probe.
pub const PROBE_POLICY: &str = "probe.ensign.dev";
/// Label of a probing event; its value says by which policies it was answered.
pub const PROBE_LABEL: &str = "ensign.dev/probe";
/// What the label says before it is answered.
pub const PROBE_QUESTION: &str = "asked";

/// How much of the hash a mark has; a label's value could not have much more.
const MARK_DIGITS: usize = 40;

/// What a probing event comes back with once these policies are evaluated.
pub fn mark(policies: &[Policy]) -> String {
    let mut hash = Sha256::new();
    for policy in policies.iter().filter(|policy| policy.name != PROBE_POLICY) {
        for part in [policy.kind.as_str(), policy.name, &policy.spec.to_string()] {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
    }
    hex(&hash.finalize(), MARK_DIGITS)
}

/// The probe's spec, for policies with this mark.
pub(super) fn spec(namespace: &str, mark: &str) -> Value {
    let mark = super::literals::literal(mark);
    let label = super::literals::literal(PROBE_LABEL);
    json!({
        // Whatever is wrong with the probe must not be in the way of events.
        "failurePolicy": "Ignore",
        "matchConstraints": {
            "matchPolicy": "Exact",
            "namespaceSelector": {"matchLabels": {NAMESPACE_NAME_LABEL: namespace}},
            "objectSelector": {"matchLabels": {PROBE_LABEL: PROBE_QUESTION}},
            "resourceRules": [{
                "apiGroups": ["events.k8s.io"], "apiVersions": ["v1"], "operations": ["CREATE"],
                "resources": ["events"], "scope": "*",
            }],
        },
        "matchConditions": [{"name": "is-a-dry-run", "expression": "request.dryRun"}],
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": format!(
            "[JSONPatch{{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey({label}), value: {mark}}}]"
        )}}],
        // It says what it says, however often it is asked.
        "reinvocationPolicy": "Never",
    })
}
