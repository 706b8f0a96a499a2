//! The end state of a plan, without what differs between runs: times, UIDs, revisions, and the plan's names.

use serde_json::{Map, Value, json};

use super::eventually::text;
use super::harness::Harness;
use super::roles;

const TIMES: [&str; 3] = ["lastTransitionTime", "confirmedSince", "since"];

/// Every object and every credential, in a comparable form.
pub fn take(harness: &Harness) -> Value {
    let mut objects = Map::new();
    // UIDs, and what is derived from them, differ between runs.
    let mut unlike: Vec<(String, String)> = Vec::new();
    for kind in ["ManagedIdentity", "ManagedIdentityBinding", "ManagedIdentityClass", "Namespace"] {
        for object in harness.cluster.list(kind, &harness.plan) {
            let meta = &object["metadata"];
            let claim = &object["spec"]["claimRef"];
            if claim.is_object() {
                unlike.push((text(&claim["uid"]).to_owned(), format!("UID-of-{}", text(&claim["name"]))));
            }
            unlike.push((text(&meta["uid"]).to_owned(), "UID".to_owned()));
            let name = format!("{kind} {}/{}", meta["namespace"], meta["name"]).replace('"', "");
            let mut status = if kind == "Namespace" { Value::Null } else { object["status"].clone() };
            strip(&mut status);
            let shown = json!({
                "finalizers": meta["finalizers"], "leaving": meta["deletionTimestamp"].is_string(),
                "generation": meta["generation"], "status": status,
            });
            objects.insert(name, shown);
        }
    }
    let identities: Map<String, Value> = harness.azure.with_state(|state| {
        let show = |credential: &ensign_azure_emulator::state::Credential| {
            json!({"name": credential.name, "issuer": credential.issuer, "subject": credential.subject,
                   "audiences": credential.audiences})
        };
        let identity = |identity: &ensign_azure_emulator::state::Identity| {
            let mut credentials: Vec<Value> = identity.credentials.values().map(show).collect();
            credentials.sort_by_key(|shown| shown["subject"].to_string());
            if identity.tags.is_empty() {
                return (identity.id.name.clone(), Value::Array(credentials));
            }
            (identity.id.name.clone(), json!({"credentials": credentials, "tags": identity.tags}))
        };
        state.identities.values().map(identity).collect()
    });
    harness.azure.with_state(|state| {
        let made = state.identities.values().filter(|identity| !identity.tags.is_empty());
        unlike.extend(made.flat_map(|made| {
            [(made.client_id.clone(), "client".to_owned()), (made.principal_id.clone(), "principal".to_owned())]
        }));
    });
    let assignments = harness.azure.with_state(|state| roles::shown(state));
    unlike.extend(harness.assignments().into_keys().map(|name| (name, "assignment".to_owned())));
    let mut whole = json!({"kubernetes": objects, "azure": identities, "roles": assignments}).to_string();
    for (from, to) in unlike.iter().filter(|(from, _)| !from.is_empty()) {
        whole = whole.replace(from, to);
    }
    let whole = without_hashes(&whole.replace(&format!("{}-", harness.plan), ""));
    serde_json::from_str(&whole).expect("JSON stays JSON")
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !TIMES.contains(&name.as_str()));
            fields.values_mut().for_each(strip);
        }
        Value::Array(values) => values.iter_mut().for_each(strip),
        _ => {}
    }
}

/// Removes the hash at the end of Ensign's names, which depends on the plan's names.
pub fn without_hashes(text: &str) -> String {
    let mut parts = text.split("ensign-");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(part.len());
        let (name, rest) = part.split_at(end);
        let hash = name.rsplit_once('-').filter(|(_, hash)| hash.len() == 16).map(|(name, _)| name);
        plain.push_str("ensign-");
        plain.push_str(hash.unwrap_or(name));
        plain.push_str(rest);
    }
    plain
}

/// The first difference between two snapshots.
pub fn difference(at: &str, expected: &Value, found: &Value) -> Option<String> {
    match (expected, found) {
        (Value::Object(one), Value::Object(other)) => {
            let names = one.keys().chain(other.keys());
            let null = Value::Null;
            names.into_iter().find_map(|name| {
                let (one, other) = (one.get(name).unwrap_or(&null), other.get(name).unwrap_or(&null));
                difference(&format!("{at}.{name}"), one, other)
            })
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            let pairs = one.iter().zip(other).enumerate();
            pairs.into_iter().find_map(|(index, (one, other))| difference(&format!("{at}[{index}]"), one, other))
        }
        _ if expected == found => None,
        _ => Some(format!("{at}: expected {expected}, found {found}")),
    }
}
