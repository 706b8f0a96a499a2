//! What users and operators do while faults happen. Each step waits for the truth that it should come to.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::clock::lock;
use super::world::{AUDIENCE, Checked, World};

const BINDING: &str = "ManagedIdentityBinding";
const IDENTITY: &str = "ManagedIdentity";

/// A scenario.
pub struct Scenario {
    pub name: &'static str,
    pub run: fn(&Arc<World>) -> Checked,
    /// Rows of the matrix that it is about, whatever else fails.
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
pub fn begin(world: &Arc<World>) -> Checked {
    world.namespace("shop", &json!({}));
    world.identity("orders");
    world.start();
    world.identity_ready("orders")
}

fn create(world: &Arc<World>) -> Checked {
    begin(world)?;
    world.binding("shop", "app", "orders", "app");
    world.ready("shop", "app")?;
    world.trusts("orders", &[("shop", "app")])?;
    world.identity_ready("orders")
}

fn several(world: &Arc<World>) -> Checked {
    begin(world)?;
    world.identity("audit");
    world.identity_ready("audit")?;
    world.binding("shop", "a", "orders", "one");
    world.ready("shop", "a")?;
    world.binding("shop", "b", "orders", "two");
    world.ready("shop", "b")?;
    world.binding("shop", "c", "orders", "one");
    world.ready("shop", "c")?;
    world.binding("shop", "d", "audit", "three");
    world.ready("shop", "d")?;
    world.delete(BINDING, "shop", "b");
    world.binding_gone("shop", "b")?;
    world.delete(BINDING, "shop", "a");
    world.binding_gone("shop", "a")?;
    world.trusts("orders", &[("shop", "one")])?;
    world.trusts("audit", &[("shop", "three")])
}

fn delete(world: &Arc<World>) -> Checked {
    begin(world)?;
    world.binding("shop", "app", "orders", "app");
    world.ready("shop", "app")?;
    world.binding("shop", "more", "orders", "more");
    world.ready("shop", "more")?;
    world.delete(BINDING, "shop", "app");
    world.binding_gone("shop", "app")?;
    world.trusts("orders", &[("shop", "more")])?;
    world.delete(IDENTITY, "", "orders");
    world.gone(IDENTITY, "", "orders")?;
    world.trusts("orders", &[])?;
    world.refused("shop", "more", "ManagedIdentityNotFound")?;
    world.delete(BINDING, "shop", "more");
    world.binding_gone("shop", "more")
}

fn revoke(world: &Arc<World>) -> Checked {
    begin(world)?;
    world.binding("shop", "app", "orders", "app");
    world.ready("shop", "app")?;
    world.patch(IDENTITY, "", "orders", &json!({"spec": {"allowedSubjects": []}}));
    world.refused("shop", "app", "NotAllowed")?;
    world.trusts("orders", &[])?;
    world.patch(IDENTITY, "", "orders", &json!({"spec": {"allowedSubjects": [world.grant("shop")]}}));
    world.ready("shop", "app")?;
    world.trusts("orders", &[("shop", "app")])
}

fn label(world: &Arc<World>) -> Checked {
    world.namespace("shop", &json!({"team": "orders"}));
    world.azure_identity("orders", &[]);
    let selector = json!({"matchLabels": {"team": "orders"}});
    let grants = json!([{"name": "team", "namespaceSelector": selector, "serviceAccounts": ["app"]}]);
    world.managed_identity("orders", "orders", &grants, &json!({}));
    world.start();
    world.identity_ready("orders")?;
    world.binding("shop", "app", "orders", "app");
    world.ready("shop", "app")?;
    world.patch("Namespace", "", "shop", &json!({"metadata": {"labels": {"team": null}}}));
    world.refused("shop", "app", "NotAllowed")?;
    world.trusts("orders", &[])
}

fn reuse(world: &Arc<World>) -> Checked {
    begin(world)?;
    world.binding("shop", "app", "orders", "old");
    world.ready("shop", "app")?;
    world.delete(BINDING, "shop", "app");
    world.binding_gone("shop", "app")?;
    world.binding("shop", "app", "orders", "new");
    world.ready("shop", "app")?;
    world.trusts("orders", &[("shop", "new")])
}

fn adopt(world: &Arc<World>) -> Checked {
    world.namespace("shop", &json!({}));
    world.identity("orders");
    world.meddle("orders", "by-hand", Some(world.credential("by-hand", "shop", "app")));
    world.start();
    world.binding("shop", "app", "orders", "app");
    world.ready("shop", "app")?;
    world.binding("shop", "own", "orders", "own");
    world.ready("shop", "own")?;
    world.delete(BINDING, "shop", "app");
    world.binding_gone("shop", "app")?;
    world.delete(BINDING, "shop", "own");
    world.binding_gone("shop", "own")?;
    world.trusts("orders", &[("shop", "app")])
}

fn audience(world: &Arc<World>) -> Checked {
    world.namespace("shop", &json!({}));
    world.identity("orders");
    let mut wrong = world.credential("by-hand", "shop", "app");
    wrong.audiences = vec!["api://SomethingElse".to_owned()];
    world.meddle("orders", "by-hand", Some(wrong));
    world.start();
    world.identity_ready("orders")?;
    world.binding("shop", "app", "orders", "app");
    world.refused("shop", "app", "CredentialConflict")?;
    world.binding("shop", "fine", "orders", "fine");
    world.ready("shop", "fine")?;
    world.meddle("orders", "by-hand", None);
    world.ready("shop", "app")?;
    assert_eq!(world.azure_cluster().audience, AUDIENCE);
    world.trusts("orders", &[("shop", "app"), ("shop", "fine")])
}

fn quota(world: &Arc<World>) -> Checked {
    world.namespace("shop", &json!({}));
    world.identity("orders");
    for number in 0..19 {
        let name = format!("foreign-{number}");
        let mut foreign = world.credential(&name, "elsewhere", &name);
        "https://another.faults.test".clone_into(&mut foreign.issuer);
        world.meddle("orders", &name, Some(foreign));
    }
    world.start();
    world.identity_ready("orders")?;
    world.binding("shop", "first", "orders", "first");
    world.ready("shop", "first")?;
    world.binding("shop", "second", "orders", "second");
    world.refused("shop", "second", "QuotaExceeded")?;
    world.ready("shop", "first")?;
    world.delete(BINDING, "shop", "first");
    world.binding_gone("shop", "first")?;
    world.ready("shop", "second")
}

fn twins(world: &Arc<World>) -> Checked {
    begin(world)?;
    world.binding("shop", "app", "orders", "app");
    world.ready("shop", "app")?;
    world.managed_identity("orders-twin", "orders", &json!([world.grant("shop")]), &json!({}));
    world.condition(IDENTITY, "", "orders-twin", "Accepted", "False", "DuplicateIdentity")?;
    world.binding("shop", "other", "orders-twin", "other");
    world.refused("shop", "other", "ManagedIdentityNotAccepted")?;
    world.delete(IDENTITY, "", "orders-twin");
    world.gone(IDENTITY, "", "orders-twin")?;
    world.refused("shop", "other", "ManagedIdentityNotFound")?;
    world.ready("shop", "app")?;
    world.trusts("orders", &[("shop", "app")])
}

fn returns(world: &Arc<World>) -> Checked {
    begin(world)?;
    world.binding("shop", "app", "orders", "app");
    world.ready("shop", "app")?;
    world.remove_azure_identity("orders");
    world.refused("shop", "app", "IdentityNotFound")?;
    world.azure_identity("orders", &[]);
    world.ready("shop", "app")?;
    world.trusts("orders", &[("shop", "app")])
}

fn issuer(world: &Arc<World>) -> Checked {
    begin(world)?;
    world.patch(IDENTITY, "", "orders", &json!({"spec": {"maxTokenExpirationSeconds": 3600}}));
    world.binding("shop", "app", "orders", "app");
    world.ready("shop", "app")?;
    let old = world.credential_name("shop", "app");
    "https://issuer.faults.test/two".clone_into(&mut lock(&world.issuer));
    world.probe.crash_now();
    rolled_over(world, &old)
}

/// The new issuer's credential comes beside the old one, which goes when the last token of its issuer has expired.
pub fn rolled_over(world: &Arc<World>, old: &str) -> Checked {
    let new = world.credential_name("shop", "app");
    let stand = |world: &World| -> Vec<String> {
        world.credentials("orders").into_iter().map(|credential| credential.name).collect()
    };
    let both: Vec<String> = [old.to_owned(), new.clone()].into();
    world.until("the new credential beside the old", |world| {
        let found = stand(world);
        if both.iter().all(|name| found.contains(name)) { Ok(()) } else { Err(format!("{found:?}")) }
    })?;
    world.until("status to name the new credential", |world| {
        let binding = world.live(BINDING, "shop", "app").unwrap_or_default();
        if binding["status"]["credential"]["name"] == new.as_str() { Ok(()) } else { Err(String::new()) }
    })?;
    world.pass_slowly(Duration::from_secs(3000))?;
    if !stand(world).iter().any(|name| name == old) {
        return Err("the old credential went before the last token of its issuer".to_owned());
    }
    world.until("the old credential to go", |world| {
        let found = stand(world);
        if found == [new.clone()] { Ok(()) } else { Err(format!("{found:?}")) }
    })?;
    world.until("the record of the old issuer to go", |world| {
        let identity = world.live(IDENTITY, "", "orders").unwrap_or_default();
        let records = identity["status"]["issuers"].as_array().map_or(0, Vec::len);
        if records == 1 { Ok(()) } else { Err(format!("{records} records")) }
    })?;
    world.ready("shop", "app")
}

fn namespace(world: &Arc<World>) -> Checked {
    begin(world)?;
    world.namespace("other", &json!({}));
    world.patch(
        IDENTITY,
        "",
        "orders",
        &json!({"spec": {"allowedSubjects": [world.grant("shop"), world.grant("other")]}}),
    );
    world.binding("shop", "app", "orders", "app");
    world.ready("shop", "app")?;
    world.binding("other", "app", "orders", "app");
    world.ready("other", "app")?;
    world.delete("Namespace", "", "other");
    world.happens("the binding to be deleted with its namespace", |world| {
        let binding = world.live(BINDING, "other", "app");
        binding.is_none_or(|binding| binding["metadata"]["deletionTimestamp"].is_string())
    })?;
    world.binding_gone("other", "app")?;
    world.trusts("orders", &[("shop", "app")])?;
    world.happens("the namespace to be gone", |world| world.live("Namespace", "", "other").is_none())
}

fn pages(world: &Arc<World>) -> Checked {
    world.azure.with_state(|state| state.settings.credential_page_size = 1);
    begin(world)?;
    for name in ["a", "b", "c"] {
        world.binding("shop", name, "orders", name);
        world.ready("shop", name)?;
    }
    world.delete(BINDING, "shop", "c");
    world.binding_gone("shop", "c")?;
    world.trusts("orders", &[("shop", "a"), ("shop", "b")])
}

fn provisioned(world: &Arc<World>) -> Checked {
    world.namespace("shop", &json!({}));
    world.provisioned("made", &json!({"reclaimPolicy": "Delete"}));
    world.start();
    world.identity_ready("made")?;
    world.binding("shop", "app", "made", "app");
    world.ready("shop", "app")?;
    world.trusts("made", &[("shop", "app")])?;
    world.delete(IDENTITY, "", "made");
    world.gone(IDENTITY, "", "made")?;
    world.azure_is_empty()?;
    world.refused("shop", "app", "ManagedIdentityNotFound")?;
    world.delete(BINDING, "shop", "app");
    world.binding_gone("shop", "app")
}

fn dedicated(world: &Arc<World>) -> Checked {
    world.namespace("shop", &json!({}));
    world.class(&json!({}));
    world.start();
    world.asking("app", "app");
    world.ready("shop", "app")?;
    world.delete(BINDING, "shop", "app");
    world.binding_gone("shop", "app")?;
    world.until("the object to go with its binding", |world| {
        if world.live(IDENTITY, "shop", "app").is_none() { Ok(()) } else { Err("it is there".to_owned()) }
    })?;
    world.azure_is_empty()
}

/// Roles come with the object, one goes while it lives, and the others go before it.
fn roles(world: &Arc<World>) -> Checked {
    world.namespace("shop", &json!({}));
    world.provisioned("made", &json!({"reclaimPolicy": "Delete"}));
    let roles = world.two_roles();
    world.ask_for_roles("made", &roles);
    world.start();
    world.identity_ready("made")?;
    world.binding("shop", "app", "made", "app");
    world.ready("shop", "app")?;
    world.assigned(2)?;
    world.ask_for_roles("made", &json!([roles[1]]));
    world.assigned(1)?;
    world.roles_ready("made")?;
    world.delete(IDENTITY, "", "made");
    world.gone(IDENTITY, "", "made")?;
    world.azure_is_empty()?;
    world.assigned(0)?;
    world.delete(BINDING, "shop", "app");
    world.binding_gone("shop", "app")
}

/// An identity with a role, made for a binding and gone with it.
fn dedicated_roles(world: &Arc<World>) -> Checked {
    world.namespace("shop", &json!({}));
    world.class(&json!({"roleAssignments": [world.two_roles()[1]]}));
    world.start();
    world.asking("app", "app");
    world.ready("shop", "app")?;
    world.assigned(1)?;
    world.delete(BINDING, "shop", "app");
    world.binding_gone("shop", "app")?;
    world.until("the object to go with its binding", |world| {
        if world.live(IDENTITY, "shop", "app").is_none() { Ok(()) } else { Err("it is there".to_owned()) }
    })?;
    world.azure_is_empty()?;
    world.assigned(0)
}
