//! What users and operators do while faults occur. Each step waits for its result.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::lock::lock;
use ensign_testkit::azure::AUDIENCE;

use super::harness::{Checked, Harness};

const BINDING: &str = "ManagedIdentityBinding";
const IDENTITY: &str = "ManagedIdentity";

/// A scenario.
pub struct Scenario {
    pub name: &'static str,
    pub run: fn(&Arc<Harness>) -> Checked,
    /// The rows of the matrix that it covers, whatever the fault.
    pub rows: &'static [u32],
}

pub const ALL: &[Scenario] = &[
    Scenario { name: "create", run: create, rows: &[] },
    Scenario { name: "several", run: several, rows: &[] },
    Scenario { name: "delete", run: delete, rows: &[] },
    Scenario { name: "revoke", run: revoke, rows: &[] },
    Scenario { name: "label", run: label, rows: &[] },
    Scenario { name: "reuse", run: reuse, rows: &[5] },
    Scenario { name: "adopt", run: adopt, rows: &[9] },
    Scenario { name: "audience", run: audience, rows: &[9, 32] },
    Scenario { name: "quota", run: quota, rows: &[26] },
    Scenario { name: "twins", run: twins, rows: &[28] },
    Scenario { name: "returns", run: returns, rows: &[23] },
    Scenario { name: "issuer", run: issuer, rows: &[27] },
    Scenario { name: "namespace", run: namespace, rows: &[] },
    Scenario { name: "pages", run: pages, rows: &[] },
    Scenario { name: "provisioned", run: provisioned, rows: &[] },
    Scenario { name: "dedicated", run: dedicated, rows: &[] },
    Scenario { name: "roles", run: roles, rows: &[] },
    Scenario { name: "dedicated-roles", run: dedicated_roles, rows: &[] },
];

pub fn named(name: &str) -> &'static Scenario {
    ALL.iter().find(|scenario| scenario.name == name).expect("a scenario of that name")
}

/// A namespace, an identity that it may use, and a controller.
pub fn begin(harness: &Arc<Harness>) -> Checked {
    harness.namespace("shop", &json!({}));
    harness.identity("orders");
    harness.start();
    harness.identity_ready("orders")
}

fn create(harness: &Arc<Harness>) -> Checked {
    begin(harness)?;
    harness.binding("shop", "app", "orders", "app");
    harness.ready("shop", "app")?;
    harness.trusts("orders", &[("shop", "app")])?;
    harness.identity_ready("orders")
}

fn several(harness: &Arc<Harness>) -> Checked {
    begin(harness)?;
    harness.identity("audit");
    harness.identity_ready("audit")?;
    harness.binding("shop", "a", "orders", "one");
    harness.ready("shop", "a")?;
    harness.binding("shop", "b", "orders", "two");
    harness.ready("shop", "b")?;
    harness.binding("shop", "c", "orders", "one");
    harness.ready("shop", "c")?;
    harness.binding("shop", "d", "audit", "three");
    harness.ready("shop", "d")?;
    harness.delete(BINDING, "shop", "b");
    harness.binding_deleted("shop", "b")?;
    harness.delete(BINDING, "shop", "a");
    harness.binding_deleted("shop", "a")?;
    harness.trusts("orders", &[("shop", "one")])?;
    harness.trusts("audit", &[("shop", "three")])
}

fn delete(harness: &Arc<Harness>) -> Checked {
    begin(harness)?;
    harness.binding("shop", "app", "orders", "app");
    harness.ready("shop", "app")?;
    harness.binding("shop", "more", "orders", "more");
    harness.ready("shop", "more")?;
    harness.delete(BINDING, "shop", "app");
    harness.binding_deleted("shop", "app")?;
    harness.trusts("orders", &[("shop", "more")])?;
    harness.delete(IDENTITY, "", "orders");
    harness.deleted(IDENTITY, "", "orders")?;
    harness.trusts("orders", &[])?;
    harness.not_ready("shop", "more", "ManagedIdentityNotFound")?;
    harness.delete(BINDING, "shop", "more");
    harness.binding_deleted("shop", "more")
}

fn revoke(harness: &Arc<Harness>) -> Checked {
    begin(harness)?;
    harness.binding("shop", "app", "orders", "app");
    harness.ready("shop", "app")?;
    harness.patch(IDENTITY, "", "orders", &json!({"spec": {"allowedSubjects": []}}));
    harness.not_ready("shop", "app", "NotAllowed")?;
    harness.trusts("orders", &[])?;
    harness.patch(IDENTITY, "", "orders", &json!({"spec": {"allowedSubjects": [harness.grant("shop")]}}));
    harness.ready("shop", "app")?;
    harness.trusts("orders", &[("shop", "app")])
}

fn label(harness: &Arc<Harness>) -> Checked {
    harness.namespace("shop", &json!({"team": "orders"}));
    harness.azure_identity("orders", &[]);
    let selector = json!({"matchLabels": {"team": "orders"}});
    let grants = json!([{"name": "team", "namespaceSelector": selector, "serviceAccounts": ["app"]}]);
    harness.managed_identity("orders", "orders", &grants, &json!({}));
    harness.start();
    harness.identity_ready("orders")?;
    harness.binding("shop", "app", "orders", "app");
    harness.ready("shop", "app")?;
    harness.patch("Namespace", "", "shop", &json!({"metadata": {"labels": {"team": null}}}));
    harness.not_ready("shop", "app", "NotAllowed")?;
    harness.trusts("orders", &[])
}

fn reuse(harness: &Arc<Harness>) -> Checked {
    begin(harness)?;
    harness.binding("shop", "app", "orders", "old");
    harness.ready("shop", "app")?;
    harness.delete(BINDING, "shop", "app");
    harness.binding_deleted("shop", "app")?;
    harness.binding("shop", "app", "orders", "new");
    harness.ready("shop", "app")?;
    harness.trusts("orders", &[("shop", "new")])
}

fn adopt(harness: &Arc<Harness>) -> Checked {
    harness.namespace("shop", &json!({}));
    harness.identity("orders");
    harness.change_out_of_band("orders", "by-hand", Some(harness.credential("by-hand", "shop", "app")));
    harness.start();
    harness.binding("shop", "app", "orders", "app");
    harness.ready("shop", "app")?;
    harness.binding("shop", "own", "orders", "own");
    harness.ready("shop", "own")?;
    harness.delete(BINDING, "shop", "app");
    harness.binding_deleted("shop", "app")?;
    harness.delete(BINDING, "shop", "own");
    harness.binding_deleted("shop", "own")?;
    harness.trusts("orders", &[("shop", "app")])
}

fn audience(harness: &Arc<Harness>) -> Checked {
    harness.namespace("shop", &json!({}));
    harness.identity("orders");
    let mut wrong = harness.credential("by-hand", "shop", "app");
    wrong.audiences = vec!["api://SomethingElse".to_owned()];
    harness.change_out_of_band("orders", "by-hand", Some(wrong));
    harness.start();
    harness.identity_ready("orders")?;
    harness.binding("shop", "app", "orders", "app");
    harness.not_ready("shop", "app", "CredentialConflict")?;
    harness.binding("shop", "fine", "orders", "fine");
    harness.ready("shop", "fine")?;
    harness.change_out_of_band("orders", "by-hand", None);
    harness.ready("shop", "app")?;
    assert_eq!(harness.azure_cluster().audience, AUDIENCE);
    harness.trusts("orders", &[("shop", "app"), ("shop", "fine")])
}

fn quota(harness: &Arc<Harness>) -> Checked {
    harness.namespace("shop", &json!({}));
    harness.identity("orders");
    for number in 0..19 {
        let name = format!("foreign-{number}");
        let mut foreign = harness.credential(&name, "elsewhere", &name);
        "https://another.faults.test".clone_into(&mut foreign.issuer);
        harness.change_out_of_band("orders", &name, Some(foreign));
    }
    harness.start();
    harness.identity_ready("orders")?;
    harness.binding("shop", "first", "orders", "first");
    harness.ready("shop", "first")?;
    harness.binding("shop", "second", "orders", "second");
    harness.not_ready("shop", "second", "QuotaExceeded")?;
    harness.ready("shop", "first")?;
    harness.delete(BINDING, "shop", "first");
    harness.binding_deleted("shop", "first")?;
    harness.ready("shop", "second")
}

fn twins(harness: &Arc<Harness>) -> Checked {
    begin(harness)?;
    harness.binding("shop", "app", "orders", "app");
    harness.ready("shop", "app")?;
    harness.managed_identity("orders-twin", "orders", &json!([harness.grant("shop")]), &json!({}));
    harness.condition(IDENTITY, "", "orders-twin", "Accepted", "False", "DuplicateIdentity")?;
    harness.binding("shop", "other", "orders-twin", "other");
    harness.not_ready("shop", "other", "ManagedIdentityNotAccepted")?;
    harness.delete(IDENTITY, "", "orders-twin");
    harness.deleted(IDENTITY, "", "orders-twin")?;
    harness.not_ready("shop", "other", "ManagedIdentityNotFound")?;
    harness.ready("shop", "app")?;
    harness.trusts("orders", &[("shop", "app")])
}

fn returns(harness: &Arc<Harness>) -> Checked {
    begin(harness)?;
    harness.binding("shop", "app", "orders", "app");
    harness.ready("shop", "app")?;
    harness.remove_azure_identity("orders");
    harness.not_ready("shop", "app", "IdentityNotFound")?;
    harness.azure_identity("orders", &[]);
    harness.ready("shop", "app")?;
    harness.trusts("orders", &[("shop", "app")])
}

fn issuer(harness: &Arc<Harness>) -> Checked {
    begin(harness)?;
    harness.patch(IDENTITY, "", "orders", &json!({"spec": {"maxTokenExpirationSeconds": 3600}}));
    harness.binding("shop", "app", "orders", "app");
    harness.ready("shop", "app")?;
    let old = harness.credential_name("shop", "app");
    "https://issuer.faults.test/two".clone_into(&mut lock(&harness.issuer));
    harness.probe.crash_now();
    rolled_over(harness, &old)
}

/// The new issuer's credential is created beside the old one, which is deleted when the last token of its issuer has expired.
pub fn rolled_over(harness: &Arc<Harness>, old: &str) -> Checked {
    let new = harness.credential_name("shop", "app");
    let stand = |harness: &Harness| -> Vec<String> {
        harness.credentials("orders").into_iter().map(|credential| credential.name).collect()
    };
    let both: Vec<String> = [old.to_owned(), new.clone()].into();
    harness.eventually("the new credential beside the old", |harness| {
        let found = stand(harness);
        if both.iter().all(|name| found.contains(name)) { Ok(()) } else { Err(format!("{found:?}")) }
    })?;
    harness.eventually("status to name the new credential", |harness| {
        let binding = harness.live(BINDING, "shop", "app").unwrap_or_default();
        if binding["status"]["credential"]["name"] == new.as_str() { Ok(()) } else { Err(String::new()) }
    })?;
    harness.advance_in_steps(Duration::from_secs(3000))?;
    if !stand(harness).iter().any(|name| name == old) {
        return Err("the old credential was deleted before the last token of its issuer expired".to_owned());
    }
    harness.eventually("the old credential to be deleted", |harness| {
        let found = stand(harness);
        if found == [new.clone()] { Ok(()) } else { Err(format!("{found:?}")) }
    })?;
    harness.eventually("the record of the old issuer to be removed", |harness| {
        let identity = harness.live(IDENTITY, "", "orders").unwrap_or_default();
        let records = identity["status"]["issuers"].as_array().map_or(0, Vec::len);
        if records == 1 { Ok(()) } else { Err(format!("{records} records")) }
    })?;
    harness.ready("shop", "app")
}

fn namespace(harness: &Arc<Harness>) -> Checked {
    begin(harness)?;
    harness.namespace("other", &json!({}));
    harness.patch(
        IDENTITY,
        "",
        "orders",
        &json!({"spec": {"allowedSubjects": [harness.grant("shop"), harness.grant("other")]}}),
    );
    harness.binding("shop", "app", "orders", "app");
    harness.ready("shop", "app")?;
    harness.binding("other", "app", "orders", "app");
    harness.ready("other", "app")?;
    harness.delete("Namespace", "", "other");
    harness.eventually_in_real_time("the binding to be deleted with its namespace", |harness| {
        let binding = harness.live(BINDING, "other", "app");
        binding.is_none_or(|binding| binding["metadata"]["deletionTimestamp"].is_string())
    })?;
    harness.binding_deleted("other", "app")?;
    harness.trusts("orders", &[("shop", "app")])?;
    harness.eventually_in_real_time("the namespace to be deleted", |harness| {
        harness.live("Namespace", "", "other").is_none()
    })
}

fn pages(harness: &Arc<Harness>) -> Checked {
    harness.azure.with_state(|state| state.settings.credential_page_size = 1);
    begin(harness)?;
    for name in ["a", "b", "c"] {
        harness.binding("shop", name, "orders", name);
        harness.ready("shop", name)?;
    }
    harness.delete(BINDING, "shop", "c");
    harness.binding_deleted("shop", "c")?;
    harness.trusts("orders", &[("shop", "a"), ("shop", "b")])
}

fn provisioned(harness: &Arc<Harness>) -> Checked {
    harness.namespace("shop", &json!({}));
    harness.provisioned("made", &json!({"reclaimPolicy": "Delete"}));
    harness.start();
    harness.identity_ready("made")?;
    harness.binding("shop", "app", "made", "app");
    harness.ready("shop", "app")?;
    harness.trusts("made", &[("shop", "app")])?;
    harness.delete(IDENTITY, "", "made");
    harness.deleted(IDENTITY, "", "made")?;
    harness.azure_is_empty()?;
    harness.not_ready("shop", "app", "ManagedIdentityNotFound")?;
    harness.delete(BINDING, "shop", "app");
    harness.binding_deleted("shop", "app")
}

fn dedicated(harness: &Arc<Harness>) -> Checked {
    harness.namespace("shop", &json!({}));
    harness.class(&json!({}));
    harness.start();
    harness.asking("app", "app");
    harness.ready("shop", "app")?;
    harness.delete(BINDING, "shop", "app");
    harness.binding_deleted("shop", "app")?;
    harness.eventually("the object to be deleted with its binding", |harness| {
        if harness.live(IDENTITY, "shop", "app").is_none() { Ok(()) } else { Err("it exists".to_owned()) }
    })?;
    harness.azure_is_empty()
}

/// Roles are assigned with the object, one is unassigned while it exists, and the others before it is deleted.
fn roles(harness: &Arc<Harness>) -> Checked {
    harness.namespace("shop", &json!({}));
    harness.provisioned("made", &json!({"reclaimPolicy": "Delete"}));
    let roles = harness.two_roles();
    harness.ask_for_roles("made", &roles);
    harness.start();
    harness.identity_ready("made")?;
    harness.binding("shop", "app", "made", "app");
    harness.ready("shop", "app")?;
    harness.assigned(2)?;
    harness.ask_for_roles("made", &json!([roles[1]]));
    harness.assigned(1)?;
    harness.roles_ready("made")?;
    harness.delete(IDENTITY, "", "made");
    harness.deleted(IDENTITY, "", "made")?;
    harness.azure_is_empty()?;
    harness.assigned(0)?;
    harness.delete(BINDING, "shop", "app");
    harness.binding_deleted("shop", "app")
}

/// An identity with a role, created for a binding and deleted with it.
fn dedicated_roles(harness: &Arc<Harness>) -> Checked {
    harness.namespace("shop", &json!({}));
    harness.class(&json!({"roleAssignments": [harness.two_roles()[1]]}));
    harness.start();
    harness.asking("app", "app");
    harness.ready("shop", "app")?;
    harness.assigned(1)?;
    harness.delete(BINDING, "shop", "app");
    harness.binding_deleted("shop", "app")?;
    harness.eventually("the object to be deleted with its binding", |harness| {
        if harness.live(IDENTITY, "shop", "app").is_none() { Ok(()) } else { Err("it exists".to_owned()) }
    })?;
    harness.azure_is_empty()?;
    harness.assigned(0)
}
