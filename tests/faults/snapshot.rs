//! The end of a plan, without what differs between two runs: times, UIDs, revisions, and the plan's own names.

use serde_json::{Map, Value, json};

use super::world::World;

const TIMES: [&str; 3] = ["lastTransitionTime", "confirmedSince", "since"];

/// Every object and every credential, in a form that can be compared.
pub fn take(world: &World) -> Value {
    let mut objects = Map::new();
    for kind in ["ManagedIdentity", "ManagedIdentityBinding", "Namespace"] {
        for object in world.cluster.list(kind, &world.plan) {
            let meta = &object["metadata"];
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
    let identities: Map<String, Value> = world.azure.with_state(|state| {
        let show = |credential: &ensign::emulator::state::Credential| {
            json!({"name": credential.name, "issuer": credential.issuer, "subject": credential.subject,
                   "audiences": credential.audiences})
        };
        let identity = |identity: &ensign::emulator::state::Identity| {
            let mut credentials: Vec<Value> = identity.credentials.values().map(show).collect();
            credentials.sort_by_key(|shown| shown["subject"].to_string());
            (identity.id.name.clone(), Value::Array(credentials))
        };
        state.identities.values().map(identity).collect()
    });
    let text = json!({"kubernetes": objects, "azure": identities}).to_string();
    let text = without_hashes(&text.replace(&format!("{}-", world.plan), ""));
    serde_json::from_str(&text).expect("JSON stays JSON")
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

/// Credential names of ours without the hash at their end, which covers the plan's names.
fn without_hashes(text: &str) -> String {
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
