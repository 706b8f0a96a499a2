//! Row 34: other people's credentials of any shape, which their tools wrote beside ours.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::harness::{Checked, Harness, RESYNC};
use super::{BINDING, IDENTITY};

/// What LIST can contain: flexible credentials as the preview versions store them, and whatever else may come.
fn shapes() -> BTreeMap<String, Value> {
    let audiences = json!(["api://AzureADTokenExchange"]);
    let expression = json!({"value": "claims['sub'] matches 'system:serviceaccount:*'", "languageVersion": 1});
    let issuer = "https://other.faults.test";
    let properties = [
        ("flexible", json!({"issuer": issuer, "audiences": audiences, "claimsMatchingExpression": expression})),
        ("no-audiences", json!({"issuer": issuer, "subject": "s"})),
        ("null-subject", json!({"issuer": issuer, "subject": null, "audiences": audiences})),
        ("number", json!({"issuer": 7, "subject": 7, "audiences": 7})),
        ("text-audience", json!({"issuer": issuer, "subject": "s", "audiences": "api://AzureADTokenExchange"})),
        ("mixed-audiences", json!({"issuer": issuer, "subject": "s", "audiences": [null, 1, {}]})),
        ("nested", json!({"issuer": {"url": issuer}, "subject": ["s"], "audiences": {}})),
        ("empty", json!({})),
        ("null", Value::Null),
        ("list", json!([])),
    ];
    let mut shapes: BTreeMap<String, Value> = properties
        .into_iter()
        .map(|(name, properties)| (name.to_owned(), json!({"name": name, "properties": properties})))
        .collect();
    shapes.insert("name-only".to_owned(), json!({"name": "name-only"}));
    shapes.insert("nameless".to_owned(), json!({"properties": {"issuer": issuer}}));
    shapes
}

fn beside(harness: &Arc<Harness>, shapes: &BTreeMap<String, Value>) {
    let key = harness.arm_id("orders").key();
    harness.meddle(|state| state.identities.get_mut(&key).expect("the identity").raw_credentials.clone_from(shapes));
}

fn unchanged(harness: &Arc<Harness>, shapes: &BTreeMap<String, Value>) -> Checked {
    let key = harness.arm_id("orders").key();
    let found = harness.azure.with_state(|state| state.identities[&key].raw_credentials.clone());
    if found == *shapes { Ok(()) } else { Err(format!("other people's credentials became {found:?}")) }
}

pub(super) fn foreign_credentials_of_any_shape(harness: &Arc<Harness>) -> Checked {
    harness.namespace("shop", &json!({}));
    harness.identity("orders");
    let shapes = shapes();
    beside(harness, &shapes);
    harness.start();
    harness.binding("shop", "app", "orders", "app");
    harness.ready("shop", "app")?;
    harness.eventually("the slots of others to be counted", |harness| {
        let counts = harness.live(IDENTITY, "", "orders").unwrap_or_default()["status"]["credentials"].clone();
        if counts["foreign"] == shapes.len() { Ok(()) } else { Err(format!("status.credentials is {counts}")) }
    })?;
    harness.advance_in_steps(RESYNC * 5 / 4)?;
    harness.delete(BINDING, "shop", "app");
    harness.binding_deleted("shop", "app")?;
    harness.trusts("orders", &[])?;
    unchanged(harness, &shapes)
}

/// They take slots, and one of them may have the name that Ensign needs.
pub(super) fn foreign_credentials_of_any_shape_take_slots_and_names(harness: &Arc<Harness>) -> Checked {
    harness.namespace("shop", &json!({}));
    harness.identity("orders");
    let flexible = shapes()["flexible"].clone();
    let mut many: BTreeMap<String, Value> =
        (0..18).map(|number| (format!("other-{number}"), flexible.clone())).collect();
    let taken = harness.credential_name("shop", "taken");
    many.insert(taken.to_lowercase(), json!({"name": taken, "properties": flexible["properties"]}));
    beside(harness, &many);
    harness.start();
    harness.binding("shop", "taken", "orders", "taken");
    harness.not_ready("shop", "taken", "CredentialConflict")?;
    harness.binding("shop", "app", "orders", "app");
    harness.ready("shop", "app")?;
    harness.binding("shop", "late", "orders", "late");
    harness.not_ready("shop", "late", "QuotaExceeded")?;
    unchanged(harness, &many)
}
