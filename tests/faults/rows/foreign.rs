//! Rows 9, 24, 26, 28, 29 and 32: what others have, and what slots are there for.

use std::sync::Arc;

use serde_json::json;

use super::super::world::{Checked, RESYNC, World};
use super::{BINDING, IDENTITY, azure_untouched, settled};

pub(super) fn drift_is_repaired_once(world: &Arc<World>) -> Checked {
    settled(world)?;
    let mut foreign = world.credential("foreign", "elsewhere", "x");
    "https://another.faults.test".clone_into(&mut foreign.issuer);
    world.meddle("orders", "foreign", Some(foreign.clone()));
    let name = world.credential_name("shop", "app");
    let right = world.credential(&name, "shop", "app");
    let mut audience = right.clone();
    audience.audiences = vec!["api://Else".to_owned()];
    let mut subject = right.clone();
    "system:serviceaccount:elsewhere:intruder".clone_into(&mut subject.subject);
    for edited in [None, Some(audience), Some(subject)] {
        let before = world.azure_writes().len();
        world.meddle("orders", &name, edited);
        world.pass_slowly(RESYNC * 5 / 4)?;
        // On a busy machine the look that is due may not have begun yet.
        world.happens("a repair", |world| world.azure_writes().len() > before)?;
        world.quiet(std::time::Instant::now())?;
        let writes = world.azure_writes().len() - before;
        if writes != 1 {
            return Err(format!("{writes} writes for one drift"));
        }
        let stands = world.credentials("orders").into_iter().find(|found| found.name == name);
        if stands.is_none_or(|found| found.subject != right.subject || found.audiences != right.audiences) {
            return Err("the drift was not repaired".to_owned());
        }
    }
    let found = world.credentials("orders").into_iter().find(|found| found.name == "foreign");
    if found == Some(foreign) { Ok(()) } else { Err("a foreign credential changed".to_owned()) }
}

pub(super) fn owner_of_twins_goes(world: &Arc<World>) -> Checked {
    settled(world)?;
    world.managed_identity("orders-twin", "orders", &json!([world.grant("shop")]), &json!({}));
    world.condition(IDENTITY, "", "orders-twin", "Accepted", "False", "DuplicateIdentity")?;
    world.binding("shop", "other", "orders-twin", "other");
    world.refused("shop", "other", "ManagedIdentityNotAccepted")?;
    world.delete(IDENTITY, "", "orders");
    world.gone(IDENTITY, "", "orders")?;
    world.ready("shop", "other")?;
    world.trusts("orders", &[("shop", "other")])
}

pub(super) fn revoked_over_an_adopted_credential(world: &Arc<World>) -> Checked {
    world.namespace("shop", &json!({}));
    world.identity("orders");
    world.meddle("orders", "by-hand", Some(world.credential("by-hand", "shop", "app")));
    world.start();
    world.binding("shop", "app", "orders", "app");
    world.ready("shop", "app")?;
    world.patch(IDENTITY, "", "orders", &json!({"spec": {"allowedSubjects": []}}));
    world.refused("shop", "app", "NotAllowed")?;
    world.condition(BINDING, "shop", "app", "TrustRevoked", "False", "ForeignCredential")?;
    world.pass_slowly(RESYNC * 5 / 4)?;
    world.trusts("orders", &[("shop", "app")])
}

pub(super) fn taken_name_is_left(world: &Arc<World>) -> Checked {
    world.namespace("shop", &json!({}));
    world.identity("orders");
    let name = world.credential_name("shop", "app");
    let taken = world.credential(&name, "elsewhere", "intruder");
    world.meddle("orders", &name, Some(taken.clone()));
    world.start();
    world.binding("shop", "app", "orders", "app");
    world.refused("shop", "app", "CredentialConflict")?;
    world.pass_slowly(RESYNC * 5 / 4)?;
    if world.credentials("orders") == [taken] { Ok(()) } else { Err("a foreign credential changed".to_owned()) }
}

pub(super) fn create_goes_before_delete(world: &Arc<World>) -> Checked {
    settled(world)?;
    // Azure comes back when both are wanted.
    world.azure_fails(&json!([{"match": {"method": "GET"}, "times": 1000, "action": {"status": 503}}]));
    world.delete(BINDING, "shop", "app");
    world.binding("shop", "more", "orders", "more");
    world.happens("the new binding to be seen", |world| {
        world.live(BINDING, "shop", "more").is_some_and(|binding| binding["status"].is_object())
    })?;
    world.quiet(std::time::Instant::now())?;
    world.azure_fails(&json!([]));
    world.binding_gone("shop", "app")?;
    world.ready("shop", "more")?;
    let methods: Vec<String> = world.azure_writes().into_iter().map(|entry| entry.method).collect();
    if methods == ["PUT", "PUT", "DELETE"] { Ok(()) } else { Err(format!("{methods:?}")) }
}

pub(super) fn own_prefix_is_not_ownership(world: &Arc<World>) -> Checked {
    settled(world)?;
    let ours = world.credential_name("shop", "app");
    let (stem, _) = ours.rsplit_once('-').expect("a name with a hash");
    let forged = format!("{stem}-0123456789abcdef");
    world.meddle("orders", &forged, Some(world.credential(&forged, "elsewhere", "forged")));
    let mut cluster = world.azure_cluster();
    "https://unrecorded.faults.test".clone_into(&mut cluster.issuer);
    let copied = cluster.credential_name(&world.subject("shop", "copied"));
    let mut foreign = world.credential(&copied, "shop", "copied");
    foreign.issuer.clone_from(&cluster.issuer);
    world.meddle("orders", &copied, Some(foreign));
    azure_untouched(world)?;
    world.delete(BINDING, "shop", "app");
    world.binding_gone("shop", "app")?;
    let left = world.credentials("orders").len();
    if left == 2 { Ok(()) } else { Err(format!("{left} foreign credentials are left of 2")) }
}
