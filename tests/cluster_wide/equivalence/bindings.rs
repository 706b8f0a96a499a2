//! Generated bindings with their status.

use ensign_api::keys::ENV_CLIENT_ID;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::pods::{CONTAINERS, TIERS};
use crate::policy_namespace::{binding, condition};

fn selector() -> impl Strategy<Value = Value> {
    let with_values = (select(vec!["In", "NotIn"]), subsequence(TIERS.to_vec(), 1..=2))
        .prop_map(|(operator, values)| json!({"key": "tier", "operator": operator, "values": values}));
    let without = (select(vec!["app", "tier"]), select(vec!["Exists", "DoesNotExist"]))
        .prop_map(|(key, operator)| json!({"key": key, "operator": operator}));
    let expressions = prop::collection::vec(prop_oneof![with_values, without], 0..3);
    let labels =
        select(vec![json!({}), json!({"app": "orders"}), json!({"tier": ""}), json!({"app": "pay", "tier": "db"})]);
    prop_oneof![
        4 => Just(Value::Null),
        1 => Just(json!({})),
        2 => (labels, expressions)
            .prop_map(|(labels, expressions)| json!({"matchLabels": labels, "matchExpressions": expressions})),
    ]
}

fn status() -> impl Strategy<Value = (Value, Value)> {
    let accepted = condition("Accepted", "True", "Accepted", "");
    let ready = select(vec![
        Some(condition("CredentialReady", "True", "Confirmed", "")),
        Some(condition("CredentialReady", "True", "Confirmed", "")),
        Some(condition("CredentialReady", "False", "Forbidden", "no")),
        Some(condition("CredentialReady", "Unknown", "Pending", "")),
        None,
    ]);
    let why = condition("IdentityResolved", "False", "IdentityNotFound", "Azure has it not");
    let refused = condition("Accepted", "False", "NotAllowed", "it's up to \"the owner\"");
    let with = |conditions: Value, client: Value| json!({"status": {"conditions": conditions, "clientID": client}});
    let (one, known) = (accepted.clone(), json!("client"));
    let resolved = ready.prop_map(move |ready| {
        let conditions: Vec<_> = [one.clone()].into_iter().chain(ready).collect();
        with(json!(conditions), known.clone())
    });
    let none = Value::Null;
    prop_oneof![
        20 => resolved.prop_map(|change| (change, Value::Null)),
        1 => Just((with(json!([accepted.clone(), why]), none.clone()), Value::Null)),
        1 => Just((with(json!([accepted.clone()]), json!("")), Value::Null)),
        1 => Just((json!({"status": null}), Value::Null)),
        1 => Just((with(json!([condition("Accepted", "Unknown", "Pending", "")]), none.clone()), Value::Null)),
        3 => Just((with(json!([refused]), none), Value::Null)),
        1 => Just((json!({}), json!("now"))),
    ]
}

/// The binding in a namespace of its round, as the controller accepts it: variable names differ, lifetimes do not.
fn generated_binding(at: usize, seconds: u32) -> impl Strategy<Value = Value> {
    let account = prop_oneof![12 => Just("orders"), 1 => Just("other"), 1 => Just("default")];
    let filter = || prop::option::weighted(0.3, subsequence(CONTAINERS.to_vec(), 1..=4));
    let mode = prop_oneof![12 => Just("Pods"), 1 => Just("None")];
    let start = select(vec!["WaitForIdentity", "Immediate"]);
    (account, selector(), filter(), filter(), mode, start, status()).prop_map(
        move |(account, selector, include, exclude, mode, start, (status, deletion))| {
            let env = if at == 0 { ENV_CLIENT_ID.to_owned() } else { format!("CLIENT_{at}") };
            let kind = if at.is_multiple_of(2) { "ManagedIdentity" } else { "ManagedIdentityClass" };
            let mut change = json!({"spec": {
                "identityRef": {"kind": kind},
                "serviceAccountName": account,
                "podSelector": selector,
                "injection": {
                    "mode": mode, "clientIDEnv": env, "startPolicy": start, "tokenExpirationSeconds": seconds,
                    "containers": {"include": include.unwrap_or_default(), "exclude": exclude.unwrap_or_default()},
                },
            }});
            json_patch::merge(&mut change, &status);
            if !deletion.is_null() {
                change["metadata"] = json!({"deletionTimestamp": deletion});
            }
            let mut binding = binding(&format!("b{at}"), &change);
            if binding["status"]["clientID"] == "client" {
                binding["status"]["clientID"] = json!(format!("client-of-b{at}"));
            }
            binding
        },
    )
}

pub(super) fn bindings() -> impl Strategy<Value = Vec<Value>> {
    (0_usize..5, select(vec![3600_u32, 7200]))
        .prop_flat_map(|(count, seconds)| (0..count).map(|at| generated_binding(at, seconds)).collect::<Vec<_>>())
}
