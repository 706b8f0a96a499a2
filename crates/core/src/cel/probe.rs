//! A policy that reports which version of the policies the API server evaluates.
//!
//! An API server picks up policy changes about once a second, all of one kind at a time and in the order in which they
//! were written. The probe is written last. It matches only dry runs: an event in Ensign's namespace with the probe's
//! label, which is never stored, is returned with a hash of exactly these policies.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::literals::literal;
use super::policy::Policy;
use crate::credentials::names::hex;
use crate::webhook_configuration::NAMESPACE_NAME_LABEL;

/// Name of the probe.
pub const PROBE_POLICY: &str = "probe.ensign.dev";
/// Label of a probe event. The API server replaces its value with the [`mark`] of the policies that it evaluates.
pub const PROBE_LABEL: &str = "ensign.dev/probe";
/// Value of the label in the request.
pub const PROBE_QUESTION: &str = "asked";

/// Hexadecimal digits of a mark; a label's value is limited to 63 characters.
const MARK_DIGITS: usize = 40;

/// The hash of these policies, with which a probe event is returned once the API server evaluates them.
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
    let mark = literal(mark);
    let label = literal(PROBE_LABEL);
    json!({
        // An error in the probe must not block events.
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
        "matchConditions": [{"name": "is-dry-run", "expression": "request.dryRun"}],
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": format!(
            "[JSONPatch{{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey({label}), value: {mark}}}]"
        )}}],
        // The result does not depend on other policies.
        "reinvocationPolicy": "Never",
    })
}
