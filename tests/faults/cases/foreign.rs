//! Rows 9, 24, 26, 28, 29 and 32: foreign credentials, drift and quotas.

use std::sync::Arc;

use serde_json::json;

use super::super::harness::{Checked, Harness, RESYNC};
use super::{BINDING, IDENTITY, azure_not_written, bound};

pub(super) fn drift_is_repaired_once(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    let mut foreign = harness.credential("foreign", "elsewhere", "x");
    "https://another.faults.test".clone_into(&mut foreign.issuer);
    harness.change_out_of_band("orders", "foreign", Some(foreign.clone()));
    let name = harness.credential_name("shop", "app");
    let right = harness.credential(&name, "shop", "app");
    let mut audience = right.clone();
    audience.audiences = vec!["api://Else".to_owned()];
    let mut subject = right.clone();
    "system:serviceaccount:elsewhere:intruder".clone_into(&mut subject.subject);
    for edited in [None, Some(audience), Some(subject)] {
        let before = harness.azure_writes().len();
        harness.change_out_of_band("orders", &name, edited);
        harness.advance_in_steps(RESYNC * 5 / 4)?;
        // On a busy machine the check that is due may not have begun yet.
        harness.eventually_in_real_time("a repair", |harness| harness.azure_writes().len() > before)?;
        harness.wait_until_idle(std::time::Instant::now())?;
        let writes = harness.azure_writes().len() - before;
        if writes != 1 {
            return Err(format!("{writes} writes for one drift"));
        }
        let stands = harness.credentials("orders").into_iter().find(|found| found.name == name);
        if stands.is_none_or(|found| found.subject != right.subject || found.audiences != right.audiences) {
            return Err("the drift was not repaired".to_owned());
        }
    }
    let found = harness.credentials("orders").into_iter().find(|found| found.name == "foreign");
    if found == Some(foreign) { Ok(()) } else { Err("a foreign credential changed".to_owned()) }
}

pub(super) fn owner_of_duplicates_is_deleted(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    harness.managed_identity("orders-twin", "orders", &json!([harness.grant("shop")]), &json!({}));
    harness.condition(IDENTITY, "", "orders-twin", "Accepted", "False", "DuplicateIdentity")?;
    harness.binding("shop", "other", "orders-twin", "other");
    harness.not_ready("shop", "other", "ManagedIdentityNotAccepted")?;
    harness.delete(IDENTITY, "", "orders");
    harness.deleted(IDENTITY, "", "orders")?;
    harness.ready("shop", "other")?;
    harness.trusts("orders", &[("shop", "other")])
}

pub(super) fn revoked_over_an_adopted_credential(harness: &Arc<Harness>) -> Checked {
    harness.namespace("shop", &json!({}));
    harness.identity("orders");
    harness.change_out_of_band("orders", "by-hand", Some(harness.credential("by-hand", "shop", "app")));
    harness.start();
    harness.binding("shop", "app", "orders", "app");
    harness.ready("shop", "app")?;
    harness.patch(IDENTITY, "", "orders", &json!({"spec": {"allowedSubjects": []}}));
    harness.not_ready("shop", "app", "NotAllowed")?;
    harness.condition(BINDING, "shop", "app", "TrustRevoked", "False", "ForeignCredential")?;
    harness.advance_in_steps(RESYNC * 5 / 4)?;
    harness.trusts("orders", &[("shop", "app")])
}

pub(super) fn a_foreign_credential_under_our_name_is_unchanged(harness: &Arc<Harness>) -> Checked {
    harness.namespace("shop", &json!({}));
    harness.identity("orders");
    let name = harness.credential_name("shop", "app");
    let taken = harness.credential(&name, "elsewhere", "intruder");
    harness.change_out_of_band("orders", &name, Some(taken.clone()));
    harness.start();
    harness.binding("shop", "app", "orders", "app");
    harness.not_ready("shop", "app", "CredentialConflict")?;
    harness.advance_in_steps(RESYNC * 5 / 4)?;
    if harness.credentials("orders") == [taken] { Ok(()) } else { Err("a foreign credential changed".to_owned()) }
}

pub(super) fn create_precedes_delete(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    // Azure works again when both are wanted.
    harness.azure_fails(&json!([{"match": {"method": "GET"}, "times": 1000, "action": {"status": 503}}]));
    harness.delete(BINDING, "shop", "app");
    harness.binding("shop", "more", "orders", "more");
    harness.eventually_in_real_time("the new binding to have a status", |harness| {
        harness.live(BINDING, "shop", "more").is_some_and(|binding| binding["status"].is_object())
    })?;
    harness.wait_until_idle(std::time::Instant::now())?;
    harness.azure_fails(&json!([]));
    harness.binding_deleted("shop", "app")?;
    harness.ready("shop", "more")?;
    let methods: Vec<String> = harness.azure_writes().into_iter().map(|entry| entry.method).collect();
    if methods == ["PUT", "PUT", "DELETE"] { Ok(()) } else { Err(format!("{methods:?}")) }
}

pub(super) fn own_prefix_is_not_ownership(harness: &Arc<Harness>) -> Checked {
    bound(harness)?;
    let ours = harness.credential_name("shop", "app");
    let (stem, _) = ours.rsplit_once('-').expect("a name with a hash");
    let forged = format!("{stem}-0123456789abcdef");
    harness.change_out_of_band("orders", &forged, Some(harness.credential(&forged, "elsewhere", "forged")));
    let mut cluster = harness.azure_cluster();
    "https://unrecorded.faults.test".clone_into(&mut cluster.issuer);
    let copied = cluster.credential_name(&harness.subject("shop", "copied"));
    let mut foreign = harness.credential(&copied, "shop", "copied");
    foreign.issuer.clone_from(&cluster.issuer);
    harness.change_out_of_band("orders", &copied, Some(foreign));
    azure_not_written(harness)?;
    harness.delete(BINDING, "shop", "app");
    harness.binding_deleted("shop", "app")?;
    let left = harness.credentials("orders").len();
    if left == 2 { Ok(()) } else { Err(format!("{left} of 2 foreign credentials are left")) }
}
